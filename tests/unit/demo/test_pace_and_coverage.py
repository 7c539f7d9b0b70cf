"""What the demo measures and how fast its clock goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.parking.v1 import parking_service_pb2 as parking
from citykit.clock import ReplayClock
from citykit.errors import Unavailable
from citykit.testing.polling import until
from services.demo.forecasts import ENOUGH, Coverage, ForecastWatch
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


class Asked:
    """In place of the calls to services: `models` there are, and what was asked for.

    Attributes:
        behind: looks after which forecasting has taken in everything.
    """

    def __init__(self, *models: forecasting.Model, behind: float = 0) -> None:
        self.models = models
        self.behind = behind
        self.rpcs: list[str] = []

    async def ask(self, service: str, rpc: str, request: Any, **_: Any) -> Any:
        self.rpcs.append(rpc)
        if rpc == "Train":
            raise Unavailable("away")
        if rpc == "ListSeries":
            self.behind -= 1
            series = forecasting.SeriesState(series="parking/p01", observations=int(100 - max(0, self.behind)))
            series.last_time.seconds = NOW if self.behind <= 0 else NOW - 86_400
            return forecasting.ListSeriesResponse(series=[series])
        return forecasting.ListModelsResponse(models=self.models)


def watch(asked: Asked) -> ForecastWatch:
    process = SimpleNamespace(dial=lambda caller, service: None)
    found = ForecastWatch(cast(Any, process), ReplayClock(NOW))
    found._calls = cast(Any, asked)
    return found


MODEL = forecasting.Model(group="parking", coverage_micro={80: 790_000, 95: 940_000}, mase_micro={"choice": 720_000})


async def test_coverage_is_the_backtests_until_enough_has_come() -> None:
    found = watch(Asked(forecasting.Model(group="metering"), MODEL))
    assert (await found.coverage80(), await found.mase()) == (0.79, 0.72)
    found.coverage.came, found.coverage.inside = ENOUGH, ENOUGH // 4
    assert await found.coverage80() == 0.25
    assert await watch(Asked()).coverage80() is None


async def test_training_is_asked_for_once_the_past_is_taken_in_and_only_without_a_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.demo.forecasts._POLL_S", 0.001)
    asked = Asked(behind=3)
    found = watch(asked)
    found.begin()
    await until(lambda: "Train" in asked.rpcs, "the training was asked for")
    assert asked.rpcs == ["ListModels", *["ListSeries"] * 4, "Train"]
    await found.end()
    asked = Asked(MODEL)
    await watch(asked)._train()
    assert asked.rpcs == ["ListModels"]


async def test_a_run_that_ends_early_leaves_no_training_behind() -> None:
    asked = Asked(behind=1e9)
    found = watch(asked)
    found.begin()
    await until(lambda: bool(asked.rpcs), "the training has begun to wait")
    await found.end()
    assert found._training is not None and found._training.cancelled()
    assert "Train" not in asked.rpcs
    await watch(Asked()).end()
