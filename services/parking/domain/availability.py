"""How likely a bay is free at arrival: the forecast of the half hour, moved by what is counted now and by events nearby."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt

from services.parking.domain.geo import distance_m
from services.parking.domain.lots import Lot, LotState

HALF_HOUR_S = 1_800
LIVE_DECAY = 0.985
"""Of the difference between count and forecast, for each half hour ahead."""
Z80 = 1.2816
SIGMA_FLOOR_PERCENT = 1
BLIND_SIGMA_PERCENT = 4
"""Of the capacity, for each root of a half hour, where there is a count and no forecast."""
EVENT_REACH_M = 1_500
EVENT_EARLY_S, EVENT_LATE_S = 3_600, 1_800
MILLI = 1_000


@dataclass(frozen=True, slots=True)
class Expectation:
    """The forecast of one half hour: start (unix seconds), mean, half width of the 80 % band; 0 where there is none."""

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
        occupied: expected cars, events and promises included.
        moved_by_count: how far today's count moved it; event_cars: of the events in `events`.
    """

    probability_milli: int | None
    occupied: int
    moved_by_count: int = 0
    event_cars: int = 0
    events: tuple[str, ...] = ()


def outlook(
    lot: Lot,
    state: LotState,
    expectations: Sequence[Expectation],
    now: int,
    arrival: int,
    taken_besides: float,
    events: Sequence[tuple[CityEvent, float]] = (),
) -> Outlook:
    """The probability that at least one bay is free at `arrival`.

    Args:
        expectations: of the half hours from now on, in order.
        taken_besides: cars that no count and no forecast knows of: promised bays, and those just sent there.
        events: each with the share of its cars that this lot takes.
    """
    ahead = max(0, arrival - now) / HALF_HOUR_S
    expected = _at(expectations, arrival)
    if expected is None and state.occupied is None:
        return Outlook(None, 0)
    here = _at(expectations, now)
    if expected is None:
        mean, sigma, moved = float(state.occupied or 0), BLIND_SIGMA_PERCENT / 100 * lot.capacity * sqrt(1 + ahead), 0.0
    else:
        live = here is not None and state.occupied is not None and now - state.time <= 2 * HALF_HOUR_S
        moved = (
            (state.occupied - here.occupied) * LIVE_DECAY**ahead
            if live and here and state.occupied is not None
            else 0.0
        )
        mean, sigma = expected.occupied + moved, expected.half80 / Z80
    near = [(event, share) for event, share in events if _acts(event, arrival)]
    extra = sum(event.cars * share for event, share in near)
    mean += extra + taken_besides
    sigma = max(sigma, SIGMA_FLOOR_PERCENT / 100 * lot.capacity)
    probability = round(MILLI * _below(lot.capacity - 0.5, mean, sigma))
    return Outlook(probability, max(0, round(mean)), round(moved), round(extra), tuple(event.name for event, _ in near))


def event_shares(lots: Sequence[Lot], events: Sequence[CityEvent]) -> dict[str, list[tuple[CityEvent, float]]]:
    """Lot -> events within reach and the share of their cars it takes: by capacity, nearer lots more."""
    shares: dict[str, list[tuple[CityEvent, float]]] = {}
    for event in events:
        place = (event.latitude_e7, event.longitude_e7)
        metres = {lot.id: distance_m(place, (lot.latitude_e7, lot.longitude_e7)) for lot in lots}
        pull = {lot.id: lot.capacity / (200 + metres[lot.id]) for lot in lots if metres[lot.id] <= EVENT_REACH_M}
        for lot, weight in pull.items():
            shares.setdefault(lot, []).append((event, weight / sum(pull.values())))
    return shares


def _acts(event: CityEvent, time: int) -> bool:
    return event.from_time - EVENT_EARLY_S <= time < event.to_time + EVENT_LATE_S


def _at(expectations: Sequence[Expectation], time: int) -> Expectation | None:
    if not expectations:
        return None
    number = (time - expectations[0].time) // HALF_HOUR_S
    return expectations[number] if 0 <= number < len(expectations) else None


def _below(limit: float, mean: float, sigma: float) -> float:
    """Normal distribution function."""
    return 0.5 * (1 + erf((limit - mean) / (sigma * sqrt(2))))
