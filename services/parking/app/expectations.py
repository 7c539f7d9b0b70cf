"""What forecasting expects of the lots, in memory: asked for in one call each half hour. Called by advice and the list of lots.

Everything works without it: then nothing is expected, and advice says that the count speaks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import Logger, LoggerAdapter

import grpc.aio

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from citykit.clock import Clock, unix
from services.parking.app.lots import Lots
from services.parking.domain.availability import Expectation, at
from services.parking.domain.states import HALF_HOUR_S

HORIZON = 50
"""Half hours asked for: arrivals of a day, and an hour in which forecasting may be away."""
SHOWN_BACK = 8
TRUSTED_S = 3 * 3_600
"""Age after which forecasts that were not renewed are no longer used."""
TIMEOUT_S = 60.0
RETRY_S = 120
"""City seconds until lots without a forecast are asked for again."""
_LEVEL, _MILLI = 80, 1_000


@dataclass(frozen=True, slots=True)
class Known:
    """A lot's forecasts from the half hour they were made in."""

    made_at: int
    ahead: tuple[Expectation, ...]
    model: str


class Expectations:
    """The newest forecasts of each lot, and what was expected last of the half hours that went by."""

    def __init__(
        self, lots: Lots, dial: Callable[[str], grpc.aio.Channel], clock: Clock, log: LoggerAdapter[Logger]
    ) -> None:
        self._lots = lots
        self._dial = dial
        self._clock = clock
        self._log = log
        self._known: dict[str, Known] = {}
        self._past: dict[str, dict[int, Expectation]] = {}
        self._asked_at = 0
        self._asked_for: frozenset[str] = frozenset()
        self._away = False

    def ahead(self, lot: str, now: int) -> Sequence[Expectation]:
        """Forecasts from the half hour they were made in; none where they are too old."""
        known = self._known.get(lot)
        return known.ahead if known is not None and now - known.made_at <= TRUSTED_S else ()

    def model(self, lot: str) -> str:
        known = self._known.get(lot)
        return known.model if known is not None else ""

    def shown(self, lot: str, slot: int, now: int) -> Expectation | None:
        """What was or is expected of the half hour that begins at `slot`."""
        return self._past.get(lot, {}).get(slot) or at(self.ahead(lot, now), slot)

    async def refresh(self) -> None:
        """Job: asks where the half hour, or the list of lots, is a new one."""
        now = unix(self._clock)
        names = [lot.id for lot in self._lots.every()]
        if not names or not self._due(now, names):
            return
        try:
            answers = await self._ask([f"parking/{name}" for name in names])
        except grpc.aio.AioRpcError as error:
            if not self._away:
                self._log.warning("forecasting-away", extra={"fields": {"code": error.code().name}})
            self._away = True
            return
        self._away = False
        self._asked_at, self._asked_for = now, frozenset(names)
        for answer in answers:
            self._take(answer, now // HALF_HOUR_S * HALF_HOUR_S)

    def _due(self, now: int, names: Sequence[str]) -> bool:
        if now // HALF_HOUR_S != self._asked_at // HALF_HOUR_S or frozenset(names) != self._asked_for:
            return True
        return now - self._asked_at >= RETRY_S and any(name not in self._known for name in names)

    async def _ask(self, series: Sequence[str]) -> list[pb.ForecastResponse]:
        stub = ForecastingServiceStub(self._dial("forecasting"))
        call = stub.Forecast(pb.ForecastRequest(series=series, horizon=HORIZON), timeout=TIMEOUT_S)
        return [answer async for answer in call]

    def _take(self, answer: pb.ForecastResponse, slot: int) -> None:
        lot = answer.series.partition("/")[2]
        self._pass(lot, slot)
        if answer.points:
            self._known[lot] = Known(slot, tuple(map(_expectation, answer.points)), answer.model)
        else:
            self._known.pop(lot, None)

    def _pass(self, lot: str, slot: int) -> None:
        """Keeps what was expected of the half hours that are over now."""
        known = self._known.get(lot)
        if known is None:
            return
        past = self._past.get(lot, {}) | {one.time: one for one in known.ahead if one.time < slot}
        self._past[lot] = {time: one for time, one in past.items() if time >= slot - SHOWN_BACK * HALF_HOUR_S}


def _expectation(point: pb.Point) -> Expectation:
    halves = [(band.high_milli - point.value_milli) / _MILLI for band in point.bands if band.level == _LEVEL]
    return Expectation(point.time.seconds, point.value_milli / _MILLI, max(halves, default=0.0))
