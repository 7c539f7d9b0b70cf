"""A reservation's life: hold, confirm, extend, use, end; or cancel, expire, not come. Pure: every change returns the next value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.parking.domain.errors import SpanInvalid, WrongState
from services.parking.domain.price import FULL_PRICE

SLOT_S = 900
"""Bays are promised in quarters of an hour."""
SPAN_MAX_S = 86_400
AHEAD_MAX_S = 30 * 86_400
CONFIRM_WAIT_S = 1_800
"""How long a bay is kept while the provider's answer is unknown."""

HELD, CONFIRMING, CONFIRMED, ACTIVE = "held", "confirming", "confirmed", "active"
ENDED, CANCELLED, NO_SHOW, EXPIRED, DECLINED = "ended", "cancelled", "no-show", "expired", "declined"
OPEN = frozenset({HELD, CONFIRMING, CONFIRMED, ACTIVE})
"""States in which the bay is promised."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Times are unix seconds; 0 where they have not come. `price_minor` is what is owed once it is over, else None."""

    id: str
    subject: str
    lot: str
    bay: str
    from_time: int
    to_time: int
    hold_until: int
    quote_minor: int
    currency: str
    tariff: str
    tariff_version: int
    permit_basis_points: int = FULL_PRICE
    plate: str = ""
    state: str = HELD
    version: int = 1
    mandate: str = ""
    entry_time: int = 0
    exit_time: int = 0
    price_minor: int | None = None

    @property
    def slots(self) -> range:
        """The quarters of an hour it takes."""
        return slots_of(self.from_time, self.to_time)


def slots_of(from_time: int, to_time: int) -> range:
    return range(from_time // SLOT_S, to_time // SLOT_S)


def require_span(from_time: int, to_time: int, now: int) -> None:
    """Raises: SpanInvalid, saying what is allowed."""
    if from_time % SLOT_S or to_time % SLOT_S:
        raise SpanInvalid("times are whole quarters of an hour", "from_time")
    if not 0 < to_time - from_time <= SPAN_MAX_S:
        raise SpanInvalid("a reservation lasts a quarter of an hour to a day", "to_time")
    if to_time <= now or from_time < now - SLOT_S or from_time > now + AHEAD_MAX_S:
        raise SpanInvalid("a reservation begins now or within 30 days", "from_time")


def confirming(one: Reservation, mandate: str, now: int) -> Reservation:
    """The provider is asked; the bay stays promised while its answer is unknown."""
    _require(one, (HELD,), "confirm")
    if now > one.hold_until:
        raise WrongState(f"the hold ended at {one.hold_until}; hold a bay again", "reservation")
    return _next(one, state=CONFIRMING, mandate=mandate, hold_until=now + CONFIRM_WAIT_S)


def settled(one: Reservation, authorised: bool) -> Reservation:
    """The provider's answer to a confirmation."""
    _require(one, (CONFIRMING,), "settle")
    return _next(one, state=CONFIRMED if authorised else DECLINED)


def extended(one: Reservation, to_time: int, quote_minor: int) -> Reservation:
    _require(one, (CONFIRMED, ACTIVE), "extend")
    if to_time <= one.to_time or to_time - one.from_time > SPAN_MAX_S or to_time % SLOT_S:
        raise SpanInvalid("a later whole quarter of an hour, within a day of the start", "to_time")
    return _next(one, to_time=to_time, quote_minor=quote_minor)


def entered(one: Reservation, time: int) -> Reservation:
    """The lock let the car in."""
    _require(one, (CONFIRMED,), "enter with")
    return _next(one, state=ACTIVE, entry_time=time)


def left(one: Reservation, time: int, price_minor: int) -> Reservation:
    """The lock let the car out; a clock that runs behind ends a session no earlier than it began."""
    _require(one, (ACTIVE,), "leave with")
    return _next(one, state=ENDED, exit_time=max(time, one.entry_time), price_minor=price_minor)


def cancelled(one: Reservation, price_minor: int) -> Reservation:
    _require(one, (HELD, CONFIRMED), "cancel")
    return _next(one, state=CANCELLED, price_minor=price_minor)


def not_come(one: Reservation, price_minor: int) -> Reservation:
    _require(one, (CONFIRMED,), "miss")
    return _next(one, state=NO_SHOW, price_minor=price_minor)


def expired(one: Reservation) -> Reservation:
    """A hold nobody confirmed, or a confirmation the provider never answered."""
    _require(one, (HELD, CONFIRMING), "let go")
    return _next(one, state=EXPIRED)


def _require(one: Reservation, states: tuple[str, ...], act: str) -> None:
    if one.state not in states:
        raise WrongState(
            f"one cannot {act} a reservation that is {one.state}; only one that is {' or '.join(states)}", "reservation"
        )


def _next(one: Reservation, **changes: object) -> Reservation:
    return replace(one, version=one.version + 1, **changes)  # type: ignore[arg-type]  # names of its own fields
