"""Every lot with its newest state, what is expected and what came. Called by `api`."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument
from services.parking.app.board import Board
from services.parking.app.expectations import SHOWN_BACK, Expectations
from services.parking.app.lots import LOTS_MAX, Lots
from services.parking.app.states import States
from services.parking.domain.availability import Expectation
from services.parking.domain.lots import Lot
from services.parking.domain.reservation import SLOT_S, slots_of
from services.parking.domain.states import HALF_HOUR_S, LotState

SHOWN_AHEAD = 16
UNKNOWN_CAME = -1


@dataclass(frozen=True)
class Listing:
    """Reads; all from memory."""

    lots: Lots
    states: States
    expectations: Expectations
    board: Board
    clock: Clock

    def page(self, page_size: int, page_token: str) -> pb.ListLotsResponse:
        """Lots by id.

        Raises:
            InvalidArgument: a page size out of range.
        """
        limit = page_size or LOTS_MAX
        if not 0 < limit <= LOTS_MAX:
            raise InvalidArgument(f"page_size must lie between 1 and {LOTS_MAX}", field="page_size")
        now = unix(self.clock)
        later = [lot for lot in self.lots.every() if lot.id > page_token]
        token = later[limit - 1].id if len(later) > limit else ""
        return pb.ListLotsResponse(lots=[self._view(lot, now) for lot in later[:limit]], next_page_token=token)

    def _view(self, lot: Lot, now: int) -> pb.LotView:
        slot = now // HALF_HOUR_S * HALF_HOUR_S
        shown = range(slot - SHOWN_BACK * HALF_HOUR_S, slot + SHOWN_AHEAD * HALF_HOUR_S, HALF_HOUR_S)
        known = [(self.expectations.shown(lot.id, time, now), time) for time in shown]
        return pb.LotView(
            lot=lot_message(lot),
            state=state_message(self.states.state(lot, now)),
            reservable_free=self.board.free(lot, slots_of(now, now + SLOT_S)) if lot.bays else 0,
            expected=[self._expected(lot, one, time, slot) for one, time in known if one is not None],
            model=self.expectations.model(lot.id),
        )

    def _expected(self, lot: Lot, one: Expectation, time: int, slot: int) -> pb.Expected:
        came = self.states.counted(lot.id, time) if time < slot else None
        return pb.Expected(
            time=Timestamp(seconds=time),
            occupied=_cars(lot, one.occupied),
            low=_cars(lot, one.occupied - one.half80),
            high=_cars(lot, one.occupied + one.half80),
            came=UNKNOWN_CAME if came is None else came,
        )


def lot_message(lot: Lot) -> pb.Lot:
    """The lot as the API shows it."""
    return pb.Lot(
        id=lot.id,
        name=lot.name,
        operator=lot.operator,
        capacity=lot.capacity,
        latitude_e7=lot.latitude_e7,
        longitude_e7=lot.longitude_e7,
        open_hours=[pb.OpenHours(weekday=day, from_minute=a, to_minute=b) for day, a, b in lot.open_minutes],
        tariff=lot.tariff,
        bays=lot.bays,
        sensors=lot.sensors,
        lock=lot.lock,
        bay_sensors=[pb.BaySensor(device=device, bay=bay) for device, bay in lot.bay_sensors],
    )


def state_message(state: LotState) -> pb.LotState:
    """The state as the API shows it: a disputed or unknown count is no number."""
    time = Timestamp(seconds=state.time) if state.time else None
    return pb.LotState(time=time, occupied=state.shown or 0, quality=state.quality, confidence_pct=state.confidence_pct)


def _cars(lot: Lot, value: float) -> int:
    return min(lot.capacity, max(0, round(value)))
