"""Holds: a bay for a span of time, for some minutes, never one that is promised. The hot path; called by `api`.

The board proposes a bay or refuses at once; the unit promises it, and the database refuses what is promised. Between the two nothing is believed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from zoneinfo import ZoneInfo

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from citykit.ids import Randomness, new_id
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.parking.app.board import Board, Proposal
from services.parking.app.changes import Changes
from services.parking.app.endings import Endings
from services.parking.app.remembered import Remembered
from services.parking.app.tariffs import Permits, Tariffs
from services.parking.app.views import Views, message
from services.parking.domain.lots import Lot, OpenMinutes, is_open
from services.parking.domain.price import Line, quote_lines, total
from services.parking.domain.reservation import SLOT_S, SPAN_MAX_S, Reservation, require_span, slots_of
from services.parking.domain.tariff import Tariff
from services.parking.store import reservations
from services.parking.store.reservations import Promised

HOLDS_MAX = 5
"""Bays one person may keep at once without obligation."""
PLATE_MAX = 20
SLOTS_MAX = SPAN_MAX_S // SLOT_S
TRIES = 5
_NOT_PLATE = re.compile(r"[^0-9A-Z]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    lot: str
    from_time: int
    to_time: int
    plate: str


@dataclass(frozen=True)
class Holds:
    """Use case. `lot_of` finds a lot; `plate_key` makes pseudonyms of plates."""

    store: Store
    board: Board
    remembered: Remembered
    tariffs: Tariffs
    permits: Permits
    changes: Changes
    endings: Endings
    views: Views
    lot_of: Callable[[str], Lot | None]
    clock: Clock
    randomness: Randomness
    zone: str
    plate_key: bytes = field(repr=False)

    def refuse_full(self, request_id: str, wanted: Wanted) -> None:
        """Before anything else is done: where no bay is free and the request is new, that is the answer.

        Raises:
            FailedPrecondition (`lot-full`).
        """
        lot = self.lot_of(wanted.lot)
        slots = slots_of(wanted.from_time, wanted.to_time)
        if lot is None or not lot.bays or not 0 < len(slots) <= SLOTS_MAX or self.remembered.known(request_id):
            return
        if self.board.propose(lot, slots, unix(self.clock)) is None:
            raise full(lot)

    async def hold(self, once: Once[pb.HoldResponse], subject: str, wanted: Wanted) -> pb.HoldResponse:
        """A bay for some minutes.

        Raises:
            InvalidArgument, NotFound (lot), FailedPrecondition (`lot-full`, `lot-closed`, no lock, no tariff),
            ResourceExhausted (too many holds), Conflict (tried in vain; try again).
        """
        if self.remembered.known(once.request_id) and (before := await once.asked(self.store)):
            return await self._again(before, subject)
        now = unix(self.clock)
        require_span(wanted.from_time, wanted.to_time, now)
        lot = self.lot(wanted.lot)
        self.require_open(lot, wanted.from_time, wanted.to_time)
        slots = slots_of(wanted.from_time, wanted.to_time)
        for _ in range(TRIES):
            proposal = self.board.propose(lot, slots, now)
            if proposal is None:
                raise full(lot)
            one, lines = self._drafted(lot, subject, wanted, proposal, now)
            kept = await self._promised(once, one, lines, proposal.past, now)
            if kept is not None:
                return (
                    pb.HoldResponse(reservation=message(one, [], provable=False))
                    if kept == one.id
                    else await self._again(pb.HoldResponse(reservation=pb.Reservation(id=kept)), subject)
                )
        raise Conflict("others took the bays that were free; try again", reason="bay-taken", retry_after_s=1.0)

    def lot(self, id_: str) -> Lot:
        """A lot whose bays can be reserved.

        Raises:
            NotFound, FailedPrecondition.
        """
        lot = self.lot_of(id_)
        if lot is None:
            raise NotFound(f"no lot {id_!r}; ListLots names them", field="lot")
        if not lot.bays or not lot.lock:
            raise FailedPrecondition(
                "this lot has no bays that can be reserved; Advise names lots that have",
                reason="not-reservable",
                field="lot",
            )
        return lot

    def require_open(self, lot: Lot, from_time: int, to_time: int) -> None:
        """Raises: FailedPrecondition: the lot is closed at some time of the span."""
        closed = closed_at(lot.open_minutes, self.zone, from_time, to_time)
        if closed is not None:
            raise FailedPrecondition(
                f"the lot is closed on {closed:%A} at {closed:%H:%M}; choose a span within its open hours",
                reason="lot-closed",
                field="from_time",
            )

    async def _promised(
        self, once: Once[pb.HoldResponse], one: Reservation, lines: Sequence[Line], past: Sequence[str], now: int
    ) -> str | None:
        """The reservation that answers the request: this one, or an earlier one; None where the bay was not free after all."""
        self.remembered.add(once.request_id)
        self.board.mark(one.id, one.lot, one.bay, one.slots)
        try:
            kept, ended = await self.store.write(partial(self._unit, once, one, lines, past, now))
        except Promised as taken:
            self.board.drop(one.id)
            self.board.learn(taken.promise)
            return None
        except BaseException:
            self.board.drop(one.id)
            raise
        for other in ended:
            self.board.put(other)
        if kept == one.id:
            self.board.sure(one.id, one.hold_until)
        else:
            self.board.drop(one.id)
        return kept

    def _unit(
        self,
        once: Once[pb.HoldResponse],
        one: Reservation,
        lines: Sequence[Line],
        past: Sequence[str],
        now: int,
        unit: Unit,
    ) -> tuple[str, list[Reservation]]:
        if (before := once.before(unit)) is not None:
            return before.reservation.id, []
        if reservations.open_holds(unit.connection, one.subject, now) >= HOLDS_MAX:
            raise ResourceExhausted(
                f"you hold {HOLDS_MAX} bays already; confirm or cancel one, or wait until one expires",
                reason="too-many-holds",
            )
        ended = [let_go for id_ in past if (let_go := self.endings.let_go(unit, id_)) is not None]
        self.changes.begin(unit, one, lines, now)
        once.keep(unit, pb.HoldResponse(reservation=pb.Reservation(id=one.id)))
        return one.id, ended

    async def _again(self, before: pb.HoldResponse, subject: str) -> pb.HoldResponse:
        """A retry acts no more; it is told how the reservation stands."""
        return pb.HoldResponse(reservation=await self.views.get(before.reservation.id, subject))

    def _drafted(
        self, lot: Lot, subject: str, wanted: Wanted, proposal: Proposal, now: int
    ) -> tuple[Reservation, tuple[Line, ...]]:
        tariff = self.tariffs.in_force(lot.tariff, wanted.from_time)
        left = self.permits.basis_points(subject, lot.id, wanted.from_time)
        lines = priced(tariff, wanted.from_time, wanted.to_time, left)
        one = Reservation(
            id=new_id("reservation", self.randomness),
            subject=subject,
            lot=lot.id,
            bay=proposal.bay,
            from_time=wanted.from_time,
            to_time=wanted.to_time,
            hold_until=now + tariff.hold_minutes * 60,
            quote_minor=total(list(lines)),
            currency=tariff.currency,
            tariff=tariff.id,
            tariff_version=tariff.version,
            permit_basis_points=left,
            plate=self._pseudonym(wanted.plate),
        )
        return one, lines

    def _pseudonym(self, plate: str) -> str:
        """A keyed hash of the plate as it is read: capitals and digits only. Empty stays empty."""
        if len(plate) > PLATE_MAX:
            raise InvalidArgument(f"plate has at most {PLATE_MAX} characters", field="plate")
        text = _NOT_PLATE.sub("", plate.upper())
        return hmac.new(self.plate_key, text.encode(), "sha256").hexdigest() if text else ""


@lru_cache(maxsize=4_096)
def priced(tariff: Tariff, from_time: int, to_time: int, permit_basis_points: int) -> tuple[Line, ...]:
    """The lines of a quote; the same span is asked for often."""
    return tuple(quote_lines(tariff, from_time, to_time, permit_basis_points))


@lru_cache(maxsize=4_096)
def closed_at(open_minutes: OpenMinutes, zone: str, from_time: int, to_time: int) -> datetime | None:
    """The first local quarter of an hour in which a lot with these hours is closed."""
    for time in range(from_time, to_time, SLOT_S):
        local = datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(zone))
        if not is_open(open_minutes, local.weekday(), local.hour * 60 + local.minute):
            return local
    return None


def full(lot: Lot) -> FailedPrecondition:
    """No bay is free in the whole span."""
    return FailedPrecondition(
        f"every bay of {lot.id} that can be reserved is promised in this span; choose another time, or another lot (Advise ranks them)",
        reason="lot-full",
        field="lot",
    )
