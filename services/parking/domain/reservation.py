"""A reservation's life: hold, confirm, extend, use, end; or cancel, expire, not come. Pure: every change returns the next value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.parking.domain.errors import AmountInvalid, SpanInvalid, WrongState
from services.parking.domain.price import FULL_PRICE

SLOT_S = 900
"""Bays are promised in quarters of an hour."""
SPAN_MAX_S = 86_400
AHEAD_MAX_S = 30 * 86_400
CONFIRM_WAIT_S = 1_800
"""How long a bay is kept at least while the provider's answer is unknown; nobody else needs it before it begins."""
ENTRY, EXIT = "entry", "exit"

HELD, CONFIRMING, CONFIRMED, ACTIVE = "held", "confirming", "confirmed", "active"
ENDED, CANCELLED, NO_SHOW, EXPIRED, DECLINED = "ended", "cancelled", "no-show", "expired", "declined"
OPEN = frozenset({HELD, CONFIRMING, CONFIRMED, ACTIVE})
"""States in which the bay is promised."""
OVER = frozenset({ENDED, CANCELLED, NO_SHOW, EXPIRED, DECLINED})
STATES = OPEN | OVER
PRICED = frozenset({ENDED, CANCELLED, NO_SHOW})
"""States in which something can have been paid."""


@dataclass(frozen=True, slots=True)
class Use:
    """The access document a lock opened for, and the package in which the lock said so."""

    number: int
    device: str
    sequence: int


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
    access: Use | None = None
    price_minor: int | None = None

    @property
    def slots(self) -> range:
        """The quarters of an hour it takes."""
        return slots_of(self.from_time, self.to_time)

    @property
    def promised(self) -> bool:
        """Whether its bay is kept for it."""
        return self.state in OPEN


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
        raise WrongState("the hold has ended; hold a bay again", "reservation")
    until = max(one.hold_until, now + CONFIRM_WAIT_S, one.from_time)
    return _next(one, state=CONFIRMING, mandate=mandate, hold_until=until)


def settled(one: Reservation, authorised: bool) -> Reservation:
    """The provider's answer to a confirmation; nothing is owed for one that was declined."""
    _require(one, (CONFIRMING,), "settle")
    return _next(one, state=CONFIRMED) if authorised else _next(one, state=DECLINED, price_minor=0)


def extended(one: Reservation, to_time: int, quote_minor: int) -> Reservation:
    """A later end at a new quote."""
    require_extension(one, to_time)
    return _next(one, to_time=to_time, quote_minor=quote_minor)


def require_extension(one: Reservation, to_time: int) -> None:
    """Raises: WrongState, SpanInvalid: it cannot last until `to_time`."""
    _require(one, (CONFIRMED, ACTIVE), "extend")
    if to_time <= one.to_time or to_time - one.from_time > SPAN_MAX_S or to_time % SLOT_S:
        raise SpanInvalid(
            "a reservation is extended to a later whole quarter of an hour, within a day of its start", "to_time"
        )


def entered(one: Reservation, time: int, use: Use) -> Reservation:
    """The lock let the car in."""
    _require(one, (CONFIRMED,), "enter with")
    return _next(one, state=ACTIVE, entry_time=time, access=use)


def left(one: Reservation, time: int, use: Use, price_minor: int) -> Reservation:
    """The lock let the car out; a clock that runs behind ends a session no earlier than it began."""
    _require(one, (ACTIVE,), "leave with")
    return _next(one, state=ENDED, exit_time=exit_of(one, time), access=use, price_minor=price_minor)


def exit_of(one: Reservation, time: int) -> int:
    """When it counts as left, where the lock says `time`."""
    return max(time, one.entry_time)


def cancelled(one: Reservation, price_minor: int) -> Reservation:
    """Given up by the resident."""
    _require(one, (HELD, CONFIRMED), "cancel")
    return _next(one, state=CANCELLED, price_minor=price_minor)


def not_come(one: Reservation, price_minor: int) -> Reservation:
    """Nobody came until the end."""
    _require(one, (CONFIRMED,), "miss")
    return _next(one, state=NO_SHOW, price_minor=price_minor)


def expired(one: Reservation) -> Reservation:
    """A hold nobody confirmed, or a confirmation the provider never answered."""
    _require(one, (HELD, CONFIRMING), "let go")
    return _next(one, state=EXPIRED, price_minor=0)


def refunded(one: Reservation, amount_minor: int) -> Reservation:
    """Part of the price is given back.

    Raises:
        WrongState: nothing was paid. AmountInvalid: not above zero, or more than what is left of the price.
    """
    _require(one, tuple(sorted(PRICED)), "refund")
    left_minor = one.price_minor or 0
    if not 0 < amount_minor <= left_minor:
        raise AmountInvalid(
            f"a refund is 1 to {left_minor}, what is left of the price; not {amount_minor}", "amount_minor"
        )
    return _next(one, price_minor=left_minor - amount_minor)


def expected_act(one: Reservation, wanted: str, had_entry: bool) -> str:
    """What the next access document is for.

    Args:
        wanted: `entry`, `exit` or empty: what the state calls for.
        had_entry: an entry document was issued before; the lock may not have told of its use yet.

    Raises:
        WrongState, SpanInvalid.
    """
    _require(one, (CONFIRMED, ACTIVE), "open the lock with")
    if wanted not in (ENTRY, EXIT, ""):
        raise SpanInvalid("act is entry, exit or empty", "act")
    act = wanted or (EXIT if one.state == ACTIVE else ENTRY)
    if act == ENTRY and one.state == ACTIVE:
        raise WrongState("the car is in; ask for exit", "act")
    if act == EXIT and one.state == CONFIRMED and not had_entry:
        raise WrongState("nobody has been let in yet; ask for entry", "act")
    return act


def used_until(one: Reservation) -> int:
    """The end of the quarter of an hour until which the bay was kept: an early exit lets the rest go."""
    if one.state != ENDED:
        return one.to_time
    return min(one.to_time, -(-one.exit_time // SLOT_S) * SLOT_S)


def _require(one: Reservation, states: tuple[str, ...], act: str) -> None:
    if one.state not in states:
        raise WrongState(
            f"one cannot {act} a reservation that is {one.state}; only one that is {' or '.join(states)}", "reservation"
        )


def _next(one: Reservation, **changes: object) -> Reservation:
    return replace(one, version=one.version + 1, **changes)  # type: ignore[arg-type]  # names of its own fields
