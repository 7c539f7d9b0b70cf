"""Advice: where to park. Ranks the lots near by price, walk and the chance of a free bay at arrival; counts in those it has just sent there.
Called by `api`. Keeps nothing of who asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import FailedPrecondition, InvalidArgument
from services.parking.app.board import Board
from services.parking.app.calibration import Calibration
from services.parking.app.city_events import CityEvents
from services.parking.app.expectations import Expectations
from services.parking.app.lots import Lots
from services.parking.app.states import States
from services.parking.app.tariffs import Tariffs
from services.parking.domain.advice import Option, expected_cars, least_cost_minor, ranked, reasons, still_coming
from services.parking.domain.availability import NO_BURDEN, Burden, outlook
from services.parking.domain.geo import distance_m, is_near, reach_m, walk_minutes
from services.parking.domain.lots import DAY_MINUTES, Lot, is_open
from services.parking.domain.price import quote_minor
from services.parking.domain.reservation import SLOT_S, slots_of

MINUTE_S = 60
AHEAD_MAX_S = 86_400
PAST_MAX_S = 300
COUNT_MAX, COUNT = 10, 3
WALK_MAX, WALK = 60, 15
SENT_MAX_PERCENT = 10
"""Of the capacity: a flood of questions cannot make a lot look full."""
_E7 = 10_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: a place, when, how long, how far on foot at most, how many answers. Times are unix seconds."""

    place: tuple[int, int]
    arrival: int
    stay_minutes: int
    walk_max: int
    count: int


@dataclass(frozen=True, slots=True)
class Near:
    """A lot that can be advised."""

    lot: Lot
    walk_minutes: int
    price_minor: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What is the same for all lots: city time, arrival and its quarter of an hour, local weekday and minute of leaving, events."""

    now: int
    arrival: int
    quarter: range
    leave: tuple[int, int]
    burdens: dict[str, Burden]


class Sent:
    """Cars that advice is expected to bring, by lot and quarter of an hour of arrival: they fade, and end when they have arrived."""

    def __init__(self) -> None:
        self._cars: dict[str, dict[int, tuple[float, int]]] = {}

    def add(self, lot: Lot, cars: float, arrival: int, now: int) -> None:
        """One more piece of advice."""
        here = {slot: kept for slot, kept in self._cars.get(lot.id, {}).items() if slot * SLOT_S > now - SLOT_S}
        slot = arrival // SLOT_S
        before, at = here.get(slot, (0.0, now))
        most = lot.capacity * SENT_MAX_PERCENT / 100
        here[slot] = (min(most, still_coming(before, now - at) + cars), now)
        self._cars[lot.id] = here

    def until(self, lot: Lot, arrival: int, now: int) -> float:
        """Cars still to come that will be there before `arrival`."""
        here = self._cars.get(lot.id)
        if not here:
            return 0.0
        last = arrival // SLOT_S
        cars = sum(still_coming(kept, now - at) for slot, (kept, at) in here.items() if now // SLOT_S <= slot <= last)
        return min(cars, lot.capacity * SENT_MAX_PERCENT / 100)


@dataclass(frozen=True)
class Advising:
    """Use case."""

    lots: Lots
    states: States
    expectations: Expectations
    city_events: CityEvents
    tariffs: Tariffs
    board: Board
    calibration: Calibration
    clock: Clock
    zone: str
    sent: Sent = field(default_factory=Sent)

    def advise(self, request: pb.AdviseRequest) -> pb.AdviseResponse:
        """The best lots first; none where no lot near is open and has a fair chance.

        Raises:
            InvalidArgument: naming the field.
        """
        now = unix(self.clock)
        wanted = _wanted(request, now)
        near = sorted(self._near(wanted), key=lambda one: (one[0], one[1].lot.id))
        best = ranked(near, partial(self._look, self._moment(wanted, now)), wanted.count)
        for rank, option in enumerate(best):
            self.sent.add(option.lot, expected_cars(rank), wanted.arrival, now)
            self.calibration.note(option.lot.id, wanted.arrival, option.probability_milli)
        return pb.AdviseResponse(advice=[self._advice(option, wanted) for option in best])

    def _near(self, wanted: Wanted) -> Iterator[tuple[int, Near]]:
        """Lots within the walk that are open at arrival and have a price, each with the least it costs."""
        prices, begin, reach = _Prices(self.tariffs, wanted), self._local(wanted.arrival), reach_m(wanted.walk_max)
        for lot in self.lots.every():
            place = (lot.latitude_e7, lot.longitude_e7)
            if not is_near(wanted.place, place, reach) or not is_open(lot.open_minutes, *begin):
                continue
            walk, price = walk_minutes(distance_m(wanted.place, place)), prices.of(lot.tariff)
            if walk <= wanted.walk_max and price is not None:
                yield least_cost_minor(price, walk), Near(lot, walk, price)

    def _moment(self, wanted: Wanted, now: int) -> Moment:
        leave = self._local(wanted.arrival + wanted.stay_minutes * MINUTE_S - 1)
        quarter = slots_of(wanted.arrival, wanted.arrival + SLOT_S)
        return Moment(now, wanted.arrival, quarter, leave, self.city_events.burdens(wanted.arrival))

    def _look(self, moment: Moment, near: Near) -> Option:
        """The lot as it would be advised."""
        lot, now = near.lot, moment.now
        state = self.states.state(lot, now)
        sent = self.sent.until(lot, moment.arrival, now)
        promised = len(lot.bays) - self.board.free(lot, moment.quarter) if lot.bays else 0
        ahead, burden = self.expectations.ahead(lot.id, now), moment.burdens.get(lot.id, NO_BURDEN)
        found = outlook(lot, state, ahead, now, moment.arrival, sent + promised, burden)
        closes = not is_open(lot.open_minutes, *moment.leave)
        return Option(lot, state, found, near.walk_minutes, near.price_minor, sent, promised, closes, now)

    def _advice(self, option: Option, wanted: Wanted) -> pb.Advice:
        lot = option.lot
        first = wanted.arrival // SLOT_S * SLOT_S
        last = -(-(wanted.arrival + wanted.stay_minutes * MINUTE_S) // SLOT_S) * SLOT_S
        return pb.Advice(
            lot=lot.id,
            name=lot.name,
            probability_milli=option.probability_milli,
            walk_minutes=option.walk_minutes,
            price_minor=option.price_minor,
            currency=self.tariffs.in_force(lot.tariff, wanted.arrival).currency,
            cost_minor=option.cost_minor,
            reasons=reasons(option),
            reservable=bool(lot.bays and lot.lock) and self.board.free(lot, slots_of(first, last)) > 0,
            model=self.expectations.model(lot.id) if option.outlook.forecast else "",
        )

    def _local(self, time: int) -> tuple[int, int]:
        """Weekday and minute of the day."""
        local = datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(self.zone))
        return local.weekday(), local.hour * 60 + local.minute


class _Prices:
    """Prices of one stay by tariff; None where no version is in force."""

    def __init__(self, tariffs: Tariffs, wanted: Wanted) -> None:
        self._tariffs = tariffs
        self._wanted = wanted
        self._known: dict[str, int | None] = {}

    def of(self, tariff: str) -> int | None:
        if tariff not in self._known:
            self._known[tariff] = self._price(tariff)
        return self._known[tariff]

    def _price(self, tariff: str) -> int | None:
        arrival = self._wanted.arrival
        try:
            return quote_minor(
                self._tariffs.in_force(tariff, arrival), arrival, arrival + self._wanted.stay_minutes * MINUTE_S
            )
        except FailedPrecondition:
            return None


def _wanted(request: pb.AdviseRequest, now: int) -> Wanted:
    if abs(request.latitude_e7) > 90 * _E7 or abs(request.longitude_e7) > 180 * _E7:
        raise InvalidArgument(
            "latitude_e7 and longitude_e7 are ten-millionths of a degree, WGS 84", field="latitude_e7"
        )
    arrival = request.arrival_time.seconds if request.HasField("arrival_time") else now
    if not now - PAST_MAX_S <= arrival <= now + AHEAD_MAX_S:
        raise InvalidArgument("arrival_time must lie between now and a day ahead", field="arrival_time")
    if not 0 < request.stay_minutes <= DAY_MINUTES:
        raise InvalidArgument(f"stay_minutes must lie between 1 and {DAY_MINUTES}", field="stay_minutes")
    return Wanted(
        (request.latitude_e7, request.longitude_e7),
        max(arrival, now),
        request.stay_minutes,
        _bounded(request.walk_minutes_max, WALK, WALK_MAX, "walk_minutes_max"),
        _bounded(request.count, COUNT, COUNT_MAX, "count"),
    )


def _bounded(value: int, usual: int, most: int, name: str) -> int:
    if not 0 <= value <= most:
        raise InvalidArgument(f"{name} must lie between 1 and {most}; 0 is {usual}", field=name)
    return value or usual
