"""What each home is expected to use next: 95 % bands of the forecasts, in memory, for plausibility. Filled by a job, read by ingest.

Without forecasting, or before it has learnt enough for bands, nothing is expected and nothing is found unexpected.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc.aio

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from citykit.clock import Clock, unix
from citykit.errors import CityError
from citykit.store.port import Store
from services.metering.domain.plausibility import Band, BandOf
from services.metering.domain.slots import SLOT_S
from services.metering.store.devices import meter_points

EVERY_S = 6 * 3_600
"""City seconds between two refreshes."""
HORIZON = 48
LEVEL = 95
POINTS_MAX = 20_000
ASKED_MAX = 1_000
_TIMEOUT_S = 120.0
_MILLI = 1_000
_NONE = -1


@dataclass(frozen=True, slots=True)
class Bands:
    """From slot `first` (unix seconds) on, Wh; -1 where there is no band."""

    first: int
    lows: array[int]
    highs: array[int]

    def at(self, slot: int) -> Band | None:
        place = (slot - self.first) // SLOT_S
        if not 0 <= place < len(self.highs) or self.highs[place] == _NONE:
            return None
        return self.lows[place], self.highs[place]


class Expected:
    """The newest bands of each meter point, and those before them: readings come late."""

    def __init__(self, store: Store, dial: Callable[[str], grpc.aio.Channel], clock: Clock) -> None:
        self._store = store
        self._dial = dial
        self._clock = clock
        self._bands: dict[str, tuple[Bands, ...]] = {}
        self._refreshed = -EVERY_S

    def of(self, meter_point: str) -> BandOf:
        """What looks up the band of a slot; the oldest forecast that has one, for it knew least of what it is to judge."""
        known = self._bands.get(meter_point, ())
        return lambda slot: next((band for bands in known if (band := bands.at(slot)) is not None), None)

    async def refresh(self) -> None:
        """Asks for new bands when the last are some hours old; keeps what it has when forecasting is away. A job."""
        now = unix(self._clock)
        if now - self._refreshed < EVERY_S:
            return
        names = [row.id for row in await self._store.read(meter_points)][:POINTS_MAX]
        try:
            found = [
                answer
                for at in range(0, len(names), ASKED_MAX)
                for answer in await self._asked(names[at : at + ASKED_MAX])
            ]
        except (grpc.aio.AioRpcError, CityError):
            return
        self._refreshed = now
        self._bands = {point: (*self._bands.get(point, ())[-1:], bands) for point, bands in found}

    async def _asked(self, names: Sequence[str]) -> list[tuple[str, Bands]]:
        request = pb.ForecastRequest(series=[f"metering/{name}" for name in names], horizon=HORIZON)
        call = ForecastingServiceStub(self._dial("forecasting")).Forecast(request, timeout=_TIMEOUT_S)
        return [(answer.series.partition("/")[2], bands_of(answer)) async for answer in call if answer.points]


def bands_of(answer: pb.ForecastResponse) -> Bands:
    """The 95 % bands of one forecast."""
    first = answer.origin_time.seconds
    lows, highs = array("q", [_NONE]) * HORIZON, array("q", [_NONE]) * HORIZON
    for point in answer.points:
        place = (point.time.seconds - first) // SLOT_S
        for band in point.bands:
            if band.level == LEVEL and 0 <= place < HORIZON:
                lows[place], highs[place] = band.low_milli // _MILLI, -(-band.high_milli // _MILLI)
    return Bands(first, lows, highs)
