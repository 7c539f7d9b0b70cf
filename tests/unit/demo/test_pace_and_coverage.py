"""What the demo measures and how fast its clock goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from city.parking.v1 import parking_service_pb2 as parking
from services.demo.forecasts import Coverage
from services.demo.pace import SLOW, speed_for

NOW = 1_478_563_200


def reservation(state: str, begins: int, minutes: int = 60, hold: int = 0) -> parking.Reservation:
    one = parking.Reservation(state=state)
    one.from_time.seconds = NOW + begins
    one.to_time.seconds = NOW + begins + minutes * 60
    one.hold_until.seconds = NOW + hold
    return one


@pytest.mark.parametrize(
    ("one", "speed"),
    [
        (reservation("held", 7_200, hold=600), SLOW),
        (reservation("held", -60, hold=-1), 900),
        (reservation("confirming", 7_200, hold=600), SLOW),
        (reservation("confirmed", 7_200), 900),
        (reservation("confirmed", 900), SLOW),
        (reservation("confirmed", -3_600), 900),
        (reservation("active", -1_800), SLOW),
        (reservation("active", -3_600 - 899), SLOW),
        (reservation("active", -3_600 - 900), 900),
        (reservation("ended", -1_800), 900),
    ],
)
def test_time_slows_down_only_while_the_visitor_has_something_to_do(one: Any, speed: float) -> None:
    assert speed_for([one], NOW, 900) == speed


def test_the_usual_speed_is_never_exceeded() -> None:
    assert speed_for([reservation("held", 0, hold=600)], NOW, 10) == 10
    assert speed_for([], NOW, 900) == 900


def lots(*expected: tuple[int, int, int, int]) -> list[Any]:
    """One lot's view from (time, low, high, came)."""
    rows = [
        SimpleNamespace(time=SimpleNamespace(seconds=time), low=low, high=high, came=came)
        for time, low, high, came in expected
    ]
    return [SimpleNamespace(lot=SimpleNamespace(id="bull-ring"), expected=rows)]


def test_coverage_holds_what_came_against_the_newest_band_served_before_it() -> None:
    coverage = Coverage()
    assert coverage.share is None
    coverage.look(lots((NOW + 1, 10, 20, -1), (NOW + 2, 10, 20, -1), (NOW + 3, 15, 15, -1)), NOW)
    coverage.look(lots((NOW + 1, 30, 40, -1)), NOW)
    coverage.look(
        lots((NOW + 1, 0, 99, 35), (NOW + 2, 0, 99, 25), (NOW + 3, 15, 15, 15), (NOW + 4, 0, 99, 50)), NOW + 5
    )
    assert (coverage.inside, coverage.came) == (1, 2)
    assert coverage.share == 0.5
    coverage.look(lots((NOW + 1, 0, 99, 35)), NOW + 5)
    assert coverage.came == 2
