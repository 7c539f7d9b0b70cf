"""Forecast bands in metering: looked up by slot, refreshed every few hours of city time, kept while forecasting is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as pb
from citykit.clock import ReplayClock
from citykit.errors import Unavailable
from citykit.settings import CitySettings
from citykit.store.port import Store
from citykit.store.sqlite import open_sqlite
from services.metering import main
from services.metering.app import expected
from services.metering.app.expected import EVERY_S, Expected
from services.metering.domain.slots import SLOT_S
from services.metering.store.devices import MeterPointRow, put_meter_points
from services.metering.store.packages import Accepted
from services.metering.store.tables import METADATA
from tests.unit.metering.onramp import START, device, on_ramp


def answer(point: str, origin: int, high_wh: int) -> pb.ForecastResponse:
    """Bands for two half hours; the second has none of 95 %."""
    bands = [pb.Band(level=80, low_milli=5_000, high_milli=6_000), pb.Band(level=95, low_milli=1_999, high_milli=high_wh * 1_000 - 1)]  # fmt: skip
    points = [
        pb.Point(time=Timestamp(seconds=origin), value_milli=5, bands=bands),
        pb.Point(time=Timestamp(seconds=origin + SLOT_S), value_milli=5, bands=bands[:1]),
    ]
    return pb.ForecastResponse(series=f"metering/{point}", points=points, origin_time=Timestamp(seconds=origin))


class Forecasting:
    """Stands in for the service's stub."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.away = False
        self.high_wh, self.origin = 900, START

    def __call__(self, channel: Any) -> Any:
        return self

    async def Forecast(self, request: pb.ForecastRequest, **options: float) -> AsyncIterator[pb.ForecastResponse]:
        self.asked.append(list(request.series))
        if self.away:
            raise Unavailable("away")
        for name in request.series:
            point = name.removeprefix("metering/")
            yield answer(point, self.origin, self.high_wh) if point != "mp-new" else pb.ForecastResponse(series=name)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    migrations = Path(main.__file__).parent / "migrations"
    opened = open_sqlite(tmp_path / "m.db", METADATA, migrations, CitySettings().store)
    rows = [MeterPointRow(point, f"m-{point}", 11_500, "Europe/London") for point in ("mp-1", "mp-new")]
    await opened.write(lambda unit: put_meter_points(unit, rows))
    yield opened
    await opened.close()


async def test_bands_are_looked_up_by_slot_and_refreshed_with_city_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecasting, clock = Forecasting(), ReplayClock(START)
    monkeypatch.setattr(expected, "ForecastingServiceStub", forecasting)
    found = Expected(store, lambda service: service, clock)  # type: ignore[arg-type,return-value]  # the stub needs no channel
    assert found.of("mp-1")(START) is None, "nothing is expected before anything was asked"
    await found.refresh()
    await found.refresh()
    assert forecasting.asked == [["metering/mp-1", "metering/mp-new"]]
    slots = (START - SLOT_S, START, START + SLOT_S, START + 48 * SLOT_S)
    assert [found.of("mp-1")(slot) for slot in slots] == [None, (1, 900), None, None]
    assert found.of("mp-new")(START) is None
    clock.advance_to(START + EVERY_S)
    forecasting.high_wh = 5_000
    await found.refresh()
    assert found.of("mp-1")(START) == (1, 900), "a late reading is judged by the forecast that did not know it"
    clock.advance_to(START + 2 * EVERY_S)
    forecasting.away = True
    await found.refresh()
    assert found.of("mp-1")(START) == (1, 900), "what is known is kept while forecasting is away"
    forecasting.away = False
    await found.refresh()
    assert found.of("mp-1")(START) == (1, 5_000)


async def test_a_reading_far_outside_its_band_is_held_and_stays_held_when_the_meter_is_rebuilt(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        ramp.ingest._bands = lambda point: lambda slot: (50, 400)
        [taken] = await ramp.ingest.handle([meter.package([0, 1, 2], [300, 5_000, 310])])
        assert isinstance(taken, Accepted) and list(taken.held) == ["", "unexpected", ""]
        before = ramp.meters.draft(meter.name)
        ramp.meters.forget(meter.name)
        ramp.ingest._bands = lambda point: lambda slot: None
        await ramp.ingest.handle([meter.package([3], [320])])
        after = ramp.meters.draft(meter.name)
        assert (before.last_slot, before.peak) == (START + 2 * SLOT_S, 310)
        assert (after.last_slot, after.peak) == (START + 3 * SLOT_S, 320), "5,000 Wh was never learnt"
