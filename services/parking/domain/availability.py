"""How likely a bay is free at arrival: the forecast of the half hour, moved by what is counted now, by events nearby, by promised bays
and by those just sent there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, hypot, sqrt

from services.parking.domain.geo import distance_m
from services.parking.domain.lots import Lot
from services.parking.domain.states import HALF_HOUR_S, LotState

LIVE_DECAY = 0.985
"""What is left of the difference between count and forecast after each half hour."""
Z80 = 1.2816
"""Half width of the 80 % band of a normal distribution, in standard deviations."""
SIGMA_FLOOR_PERCENT = 1
BLIND_SIGMA_PERCENT = 4
"""Of the capacity, for each root of a half hour, where a count or a forecast has no band of its own."""
EVENT_REACH_M = 1_500
EVENT_NEAR_M = 200
EVENT_EARLY_S, EVENT_LATE_S = 3_600, 1_800
EVENT_SIGMA = 0.3
"""How uncertain the cars are that an event is said to bring, as a share of them."""
MILLI = 1_000
LEAST_MILLI, MOST_MILLI = 5, 995
"""Nothing is certain."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The forecast of one half hour: start (unix seconds), mean, half width of the 80 % band; 0 where there is no band."""

    time: int
    occupied: float
    half80: float


@dataclass(frozen=True, slots=True)
class CityEvent:
    """Something that brings cars. Times are unix seconds."""

    id: str
    name: str
    latitude_e7: int
    longitude_e7: int
    from_time: int
    to_time: int
    cars: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of a lot at arrival.

    Attributes:
        probability_milli: of a free bay, thousandths; None where nothing is known.
        occupied: expected cars, events, promises and those sent there included.
        forecast: there is a forecast for the arrival; counted: there is a count that is believed.
        moved_by_count: how far today's count moved it; event_cars: of the events in `events`.
    """

    probability_milli: int | None
    occupied: int = 0
    forecast: bool = False
    counted: bool = False
    moved_by_count: int = 0
    event_cars: int = 0
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Burden:
    """What events bring to one lot at a moment."""

    cars: float
    events: tuple[str, ...]


NOTHING_KNOWN = Outlook(None)
NO_BURDEN = Burden(0.0, ())
_ROOT_2 = sqrt(2)


def outlook(
    lot: Lot,
    state: LotState,
    ahead: Sequence[Expectation],
    now: int,
    arrival: int,
    besides: float,
    burden: Burden = NO_BURDEN,
) -> Outlook:
    """The probability that at least one bay is free at `arrival`.

    Args:
        ahead: forecasts of the half hours from the newest one on, in order; what was counted before it is in them already.
        besides: cars that no count and no forecast knows of: promised bays, and those just sent there.
    """
    expected, cars = at(ahead, arrival), state.shown
    if expected is not None:
        moved = _moved(state, ahead, arrival)
        mean, sigma = expected.occupied + moved, _sigma(lot, expected, now, arrival)
    elif cars is not None:
        moved, mean, sigma = 0.0, float(cars), _blind_sigma(lot, now, arrival)
    else:
        return NOTHING_KNOWN
    mean += burden.cars + besides
    sigma = max(hypot(sigma, EVENT_SIGMA * burden.cars), SIGMA_FLOOR_PERCENT / 100 * lot.capacity)
    free = round(MILLI * _below(lot.capacity - 0.5, mean, sigma))
    return Outlook(
        min(MOST_MILLI, max(LEAST_MILLI, free)),
        min(lot.capacity, max(0, round(mean))),
        expected is not None,
        cars is not None,
        round(moved),
        round(burden.cars),
        burden.events,
    )


def at(ahead: Sequence[Expectation], time: int) -> Expectation | None:
    """The forecast of the half hour that holds `time`."""
    if not ahead:
        return None
    number = (time - ahead[0].time) // HALF_HOUR_S
    return ahead[number] if 0 <= number < len(ahead) else None


def burdens(lots: Sequence[Lot], events: Sequence[CityEvent]) -> dict[str, Burden]:
    """Lot -> what these events bring to it: each event's cars go to the lots in reach by capacity, to nearer ones more."""
    found: dict[str, Burden] = {}
    for event in events:
        place = (event.latitude_e7, event.longitude_e7)
        metres = {lot.id: distance_m(place, (lot.latitude_e7, lot.longitude_e7)) for lot in lots}
        pull = {
            lot.id: lot.capacity / (EVENT_NEAR_M + metres[lot.id]) for lot in lots if metres[lot.id] <= EVENT_REACH_M
        }
        whole = sum(pull.values())
        for lot, weight in pull.items():
            before = found.get(lot, NO_BURDEN)
            found[lot] = Burden(before.cars + event.cars * weight / whole, (*before.events, event.name))
    return found


def is_on(event: CityEvent, time: int) -> bool:
    """Whether the event's cars are there: from an hour before it begins to half an hour after it ends."""
    return event.from_time - EVENT_EARLY_S <= time < event.to_time + EVENT_LATE_S


def _moved(state: LotState, ahead: Sequence[Expectation], arrival: int) -> float:
    """How far the count moves the forecast: only a count that came after the forecast was made is news."""
    then = at(ahead, state.time)
    if state.shown is None or then is None:
        return 0.0
    return float((state.shown - then.occupied) * LIVE_DECAY ** (max(0, arrival - state.time) / HALF_HOUR_S))


def _sigma(lot: Lot, expected: Expectation, now: int, arrival: int) -> float:
    return expected.half80 / Z80 if expected.half80 > 0 else _blind_sigma(lot, now, arrival)


def _blind_sigma(lot: Lot, now: int, arrival: int) -> float:
    return BLIND_SIGMA_PERCENT / 100 * lot.capacity * sqrt(1 + max(0, arrival - now) / HALF_HOUR_S)


def _below(limit: float, mean: float, sigma: float) -> float:
    """Normal distribution function."""
    return 0.5 * (1 + erf((limit - mean) / (sigma * _ROOT_2)))
