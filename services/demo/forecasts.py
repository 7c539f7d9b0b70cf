"""Has the parking models trained once the past is there, and measures what the city served: run by `city.py`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.parking.v1 import parking_service_pb2 as parking
from citykit.clock import Clock
from citykit.errors import CityError
from citykit.run import Process
from services.gateway.app.calls import Calls

GROUP = "parking"
CHOICE = "choice"
"""The combination that is served, in a model's card."""
ENOUGH = 100
"""Counts against bands that say something of a run."""
_TRAIN_S = 900.0
_TAKE_IN_S, _POLL_S = 60.0, 0.25
_NEAR_S = 6 * 3_600
"""Counts of the last hours are there, and no more come: the past is taken in."""
_PAGES_MAX = 20
_LOOK_S = 1.0
_MICRO = 1_000_000
_LEVEL = 80
_KEPT_MAX = 20_000


@dataclass
class Coverage:
    """How many counts came inside the band of 80 % that was served before them; each count once."""

    inside: int = 0
    came: int = 0
    _served: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def look(self, lots: Any, now: float) -> None:
        """At what ListLots says now: bands of slots ahead are kept, the newest for each; what came is held against them."""
        for view in lots:
            for one in view.expected:
                place = (view.lot.id, one.time.seconds)
                if one.time.seconds > now:
                    if one.low < one.high:
                        self._served[place] = (one.low, one.high)
                elif one.came >= 0 and place in self._served:
                    low, high = self._served.pop(place)
                    self.came += 1
                    self.inside += low <= one.came <= high
        while len(self._served) > _KEPT_MAX:
            self._served.pop(next(iter(self._served)))

    @property
    def share(self) -> float | None:
        return self.inside / self.came if self.came else None


class ForecastWatch:
    """One run's view of the parking forecasts."""

    def __init__(self, process: Process, clock: Clock) -> None:
        self._calls = Calls(partial(process.dial, "demo"))
        self._clock = clock
        self._past = 0.0
        self._training: asyncio.Task[None] | None = None
        self.coverage = Coverage()

    def begin(self) -> None:
        """The past is there: trains beside what comes next, where there is no model yet. It is another process's work."""
        self._past = self._clock.now()
        self._training = asyncio.create_task(self._train())

    async def end(self) -> None:
        """Waits no longer for a training that goes on; also where the run ended before it watched anything."""
        if self._training is not None:
            self._training.cancel()
            await asyncio.gather(self._training, return_exceptions=True)

    async def run(self) -> None:
        """Watches what is served and what comes, until cancelled."""
        while True:
            with contextlib.suppress(CityError):
                answer = await self._calls.ask("parking", "ListLots", parking.ListLotsRequest())
                self.coverage.look(answer.lots, self._clock.now())
            await asyncio.sleep(_LOOK_S)

    async def mase(self) -> float | None:
        """The newest parking model's own backtest: its mean absolute scaled error; None where there is no model."""
        model = await self._newest()
        micro = model.mase_micro.get(CHOICE) if model is not None else None
        return None if micro is None else float(micro / _MICRO)

    async def coverage80(self) -> float | None:
        """Share of the counts that came inside the band of 80 %: of this run, or of the model's backtest while too few have come."""
        if self.coverage.came >= ENOUGH:
            return self.coverage.share
        model = await self._newest()
        micro = model.coverage_micro.get(_LEVEL) if model is not None else None
        return None if micro is None else float(micro / _MICRO)

    async def _train(self) -> None:
        """In forecasting's computing process; a failure is left to its own weekly look."""
        if await self._newest() is None:
            await self._past_taken_in()
            request = forecasting.TrainRequest(request_id="demo-first-training", group=GROUP)
            with contextlib.suppress(CityError):
                await self._calls.ask("forecasting", "Train", request, timeout_s=_TRAIN_S)

    async def _past_taken_in(self) -> None:
        """Waits for forecasting's consumers, within reason: a model of a part is better than none."""
        before = (0, 0)
        for _ in range(round(_TAKE_IN_S / _POLL_S)):
            with contextlib.suppress(CityError):
                found = await self._observed()
                if found == before and found[0] >= self._past - _NEAR_S:
                    return
                before = found
            await asyncio.sleep(_POLL_S)

    async def _observed(self) -> tuple[int, int]:
        """The newest count that forecasting has taken in (unix seconds), and how many."""
        newest, many, token = 0, 0, ""
        for _ in range(_PAGES_MAX):
            request = forecasting.ListSeriesRequest(page_token=token)
            answer = await self._calls.ask("forecasting", "ListSeries", request)
            own = [one for one in answer.series if one.series.startswith(f"{GROUP}/")]
            newest = max([newest, *(one.last_time.seconds for one in own)])
            many += sum(one.observations for one in own)
            token = answer.next_page_token
            if not token:
                break
        return newest, many

    async def _newest(self) -> Any:
        with contextlib.suppress(CityError):
            models = (await self._calls.ask("forecasting", "ListModels", forecasting.ListModelsRequest())).models
            return next((model for model in models if model.group == GROUP), None)
        return None
