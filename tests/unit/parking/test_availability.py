"""The chance of a free bay at arrival: what moves it, and which way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.parking.domain.availability import (
    LEAST_MILLI,
    MOST_MILLI,
    Burden,
    CityEvent,
    Expectation,
    Outlook,
    at,
    burdens,
    is_on,
    outlook,
)
from services.parking.domain.states import COUNTED, DISPUTED, UNKNOWN, LotState
from tests.unit.parking.sensing import HOUR, MINUTE, NINE, a_lot

HALF = 1_800
LOT = a_lot()
NOTHING = LotState("high-street", 0, None, 200, UNKNOWN, 0)
GAME = CityEvent("game", "The game", LOT.latitude_e7, LOT.longitude_e7, NINE + HOUR, NINE + 3 * HOUR, 100)


def counted(cars: int, age: int = 0, quality: str = COUNTED) -> LotState:
    return LotState("high-street", NINE - age, cars, 200, quality, 90)


def expected(cars: float, half80: float = 13.0, slots: int = 8) -> tuple[Expectation, ...]:
    return tuple(Expectation(NINE + n * HALF, cars, half80) for n in range(slots))


def look(
    state: LotState = NOTHING, ahead: Any = (), arrival: int = NINE + HOUR, besides: float = 0.0, **more: Any
) -> Outlook:
    return outlook(LOT, state, ahead, NINE, arrival, besides, **more)


def chance(*args: Any, **more: Any) -> int:
    found = look(*args, **more).probability_milli
    assert found is not None
    return found


def test_nothing_known_is_no_probability() -> None:
    assert look() == Outlook(None)
    assert look(counted(100, quality=DISPUTED)).probability_milli is None
    assert look(ahead=expected(100), arrival=NINE + 24 * HOUR).probability_milli is None


def test_a_forecast_s_band_is_its_probability() -> None:
    """The 80 % band of 187 to 213 ends where one in ten comes higher: 90 % at a mean of one half band below full."""
    assert chance(ahead=expected(199.5)) == 500
    assert chance(ahead=expected(199.5 - 13.0)) == pytest.approx(900, abs=1)
    assert chance(ahead=expected(199.5 + 13.0)) == pytest.approx(100, abs=1)
    assert look(ahead=expected(150)).forecast
    assert not look(ahead=expected(150)).counted


def test_nothing_is_certain() -> None:
    assert (chance(ahead=expected(0)), chance(ahead=expected(900))) == (MOST_MILLI, LEAST_MILLI)


def test_a_count_alone_is_less_sure_the_later_the_arrival() -> None:
    soon, later = chance(counted(190), arrival=NINE), chance(counted(190), arrival=NINE + 5 * HOUR)
    assert soon > later > 500
    assert not look(counted(190)).forecast


def test_a_forecast_without_a_band_is_as_unsure_as_a_count_alone() -> None:
    assert chance(ahead=expected(190, half80=0)) == chance(counted(190))


def test_the_live_count_moves_the_forecast_and_the_move_fades() -> None:
    found = look(counted(180), expected(150))
    assert (found.moved_by_count, found.occupied) == (29, 179)
    assert look(counted(180), expected(150), arrival=NINE + 3 * HOUR).moved_by_count == 27
    assert chance(counted(198), expected(150)) < chance(ahead=expected(150))


def test_a_count_from_before_the_forecast_is_in_it_already() -> None:
    assert look(counted(180, age=10 * MINUTE), expected(150)).moved_by_count == 0


def test_a_disputed_count_moves_nothing() -> None:
    found = look(counted(199, quality=DISPUTED), expected(150))
    assert (found.moved_by_count, found.counted) == (0, False)
    assert found.probability_milli == chance(ahead=expected(150))


def test_promised_bays_and_those_just_sent_there_are_counted_in() -> None:
    assert chance(ahead=expected(180), besides=15) < chance(ahead=expected(180))
    assert look(ahead=expected(180), besides=15).occupied == 195


def test_an_event_brings_cars_and_doubt() -> None:
    burden = burdens([LOT], [GAME])["high-street"]
    assert burden == Burden(100.0, ("The game",))
    found = look(ahead=expected(90), arrival=NINE + 2 * HOUR, burden=burden)
    assert (found.event_cars, found.events, found.occupied) == (100, ("The game",), 190)
    assert chance(ahead=expected(90), arrival=NINE + 2 * HOUR, burden=burden) < chance(ahead=expected(190))


def test_an_event_acts_from_before_it_begins_until_after_its_end() -> None:
    times = (NINE - 1, NINE, NINE + 3 * HOUR + HALF - 1, NINE + 3 * HOUR + HALF)
    assert [is_on(GAME, time) for time in times] == [False, True, True, False]


def test_an_event_s_cars_are_shared_by_the_lots_in_reach() -> None:
    near, far = a_lot("near"), a_lot("far", latitude_e7=LOT.latitude_e7 + 80_000)
    away = a_lot("away", latitude_e7=LOT.latitude_e7 + 200_000)
    found = burdens([near, far, away], [GAME, replace(GAME, id="none", latitude_e7=0)])
    assert sorted(found) == ["far", "near"]
    assert found["near"].cars > found["far"].cars
    assert found["near"].cars + found["far"].cars == pytest.approx(100)
    both = burdens([near], [GAME, replace(GAME, name="A fair", cars=7)])["near"]
    assert both == Burden(107.0, ("The game", "A fair"))


def test_the_forecast_of_a_moment_is_its_half_hour_s() -> None:
    ahead = expected(1, slots=2)
    assert at(ahead, NINE + HALF - 1) is ahead[0]
    assert at(ahead, NINE + HALF) is ahead[1]
    assert at(ahead, NINE - 1) is None
    assert at(ahead, NINE + 2 * HALF) is None
    assert at((), NINE) is None
