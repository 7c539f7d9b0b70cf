"""Forecasting over real gRPC: observations in, a trained model on the ledger, forecasts with bands, and a computing process that dies."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from citykit.testing.polling import until
from services.testing import TestCity, embedded_city

SLOT = 1_800
WEEK = 336
START = 1_475_535_600
WEEKS = 5
HOUR_TWICE = 2
END = START + WEEKS * WEEK * SLOT


def occupied(lot: int, slot: int, noise: random.Random) -> int:
    """A car park's day by London's clock, which goes back in the fourth week: empty at night, full at noon, less at weekends."""
    local = datetime.fromtimestamp(START + slot * SLOT, ZoneInfo("Europe/London"))
    day, place = local.weekday(), 2 * local.hour + local.minute // 30
    shape = max(0.0, math.sin(math.pi * (place - 14) / 24)) if 14 <= place <= 38 else 0.0
    return round(min(500, 40 + (300 + 20 * lot) * shape * (0.5 if day > 4 else 1.0) + noise.gauss(0, 8)))


def observations(lot: int, weeks: int = WEEKS) -> list[pb.Observation]:
    noise = random.Random(lot)
    return [
        pb.Observation(
            time=Timestamp(seconds=START + slot * SLOT),
            value_milli=1_000 * max(0, occupied(lot, slot, noise)),
            capacity_milli=500_000,
        )
        for slot in range(weeks * WEEK)
    ]


@pytest_asyncio.fixture
async def city(tmp_path: Path) -> AsyncIterator[TestCity]:
    async with embedded_city(tmp_path, services=["forecasting", "notary"], start=END) as running:
        yield running


async def filled(city: TestCity, lots: int = 3) -> ForecastingServiceStub:
    stub = ForecastingServiceStub(city.dial("forecasting"))
    for lot in range(lots):
        request = pb.AddObservationsRequest(
            request_id=f"fill-{lot}", series=f"parking/lot-{lot}", observations=observations(lot)
        )
        assert (await stub.AddObservations(request)).added == WEEKS * WEEK
    return stub


async def forecasts(stub: ForecastingServiceStub, *series: str, horizon: int = 0) -> list[pb.ForecastResponse]:
    return [answer async for answer in stub.Forecast(pb.ForecastRequest(series=series, horizon=horizon))]


async def test_a_trained_model_is_on_the_ledger_and_its_bands_hold_what_comes(city: TestCity) -> None:
    stub = await filled(city)
    model = (await stub.Train(pb.TrainRequest(request_id="train-1", group="parking"))).model
    card = await city.ledger.evaluate("models", "get", {"model": model})
    assert card["series"] == 3 and card["mase_micro"]["choice"] < 1_000_000
    listed = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [one.id for one in listed] == [model]
    assert listed[0].parameters_hash.hex() == card["parameters"]
    found = await forecasts(stub, "parking/lot-0", "parking/lot-2")
    assert [one.series for one in found] == ["parking/lot-0", "parking/lot-2"]
    noise = random.Random(99)
    inside = 0
    for step, point in enumerate(found[0].points):
        truth = 1_000 * max(0, occupied(0, WEEKS * WEEK + step, noise))
        band = {one.level: one for one in point.bands}
        assert point.time.seconds == END + step * SLOT
        assert band[80].low_milli >= band[95].low_milli and band[80].high_milli <= band[95].high_milli
        inside += band[95].low_milli <= truth <= band[95].high_milli
    assert len(found[0].points) == 48 and inside >= 40
    assert found[0].model == model and sum(found[0].shares.values()) in range(97, 104)


async def test_without_a_model_the_simple_ones_answer_and_say_no_bands(city: TestCity) -> None:
    stub = await filled(city, lots=1)
    known, unknown = await forecasts(stub, "parking/lot-0", "parking/nowhere", horizon=4)
    assert len(known.points) == 4 and not known.points[0].bands and known.model == ""
    assert unknown.reason == "unknown-series" and not unknown.points


async def test_a_forecast_says_what_moved_it(city: TestCity) -> None:
    stub = await filled(city)
    await stub.Train(pb.TrainRequest(request_id="train-1", group="parking"))
    noon = Timestamp(seconds=END + 26 * SLOT)
    found = await stub.Explain(pb.ExplainRequest(series="parking/lot-1", time=noon))
    assert abs(found.profile_milli + sum(cause.effect_milli for cause in found.causes) - found.value_milli) < 50
    assert "Usually" in found.words and found.model


async def test_the_same_observations_again_change_nothing_and_impossible_ones_are_cleaned(city: TestCity) -> None:
    stub = await filled(city, lots=1)
    again = pb.AddObservationsRequest(request_id="fill-0", series="parking/lot-0", observations=observations(0))
    await stub.AddObservations(again)
    bad = [
        pb.Observation(time=Timestamp(seconds=END), value_milli=-1),
        pb.Observation(time=Timestamp(seconds=END), value_milli=600_000, capacity_milli=500_000),
        pb.Observation(time=Timestamp(seconds=END), value_milli=5_000, capacity_milli=500_000),
    ]
    answer = await stub.AddObservations(
        pb.AddObservationsRequest(request_id="bad", series="parking/lot-0", observations=bad)
    )
    assert (answer.added, answer.cleaned) == (1, 2)
    states = (await stub.ListSeries(pb.ListSeriesRequest())).series
    assert [(one.series, one.observations) for one in states] == [("parking/lot-0", WEEKS * WEEK - HOUR_TWICE + 1)]


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (pb.AddObservationsRequest(request_id="a", series="nothing", observations=[pb.Observation()]), "group"),
        (pb.AddObservationsRequest(request_id="a", series="parking/x"), "observations"),
        (pb.AddObservationsRequest(series="parking/x", observations=[pb.Observation()]), "request_id"),
    ],
)
async def test_bad_observations_are_refused(city: TestCity, request_: pb.AddObservationsRequest, word: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ForecastingServiceStub(city.dial("forecasting")).AddObservations(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and word in (caught.value.details() or "")


async def test_series_of_homes_are_for_metering_only(city: TestCity) -> None:
    stub = ForecastingServiceStub(city.dial("forecasting"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await forecasts(stub, "metering/mp-001")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_killed_computing_process_is_started_again(city: TestCity) -> None:
    stub = await filled(city, lots=1)
    assert (await forecasts(stub, "parking/lot-0", horizon=2))[0].points
    stop = city.process.services["forecasting"].stop
    engine = stop.__self__  # type: ignore[union-attr]
    before = engine.processes()
    for process in before:
        os.kill(process, signal.SIGKILL)
    assert (await forecasts(stub, "parking/lot-0", horizon=3))[0].points
    await until(lambda: _none_of(engine.processes(), before), "another process")


async def _none_of(now: list[int], before: list[int]) -> bool:
    return bool(now) and not set(now) & set(before)


async def test_what_was_observed_and_trained_is_there_after_a_restart(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["forecasting", "notary"], start=END) as first:
        stub = await filled(first, lots=2)
        model = (await stub.Train(pb.TrainRequest(request_id="train-1", group="parking"))).model
        before = await forecasts(stub, "parking/lot-1")
    async with embedded_city(tmp_path, services=["forecasting", "notary"], start=END) as second:
        after = await forecasts(ForecastingServiceStub(second.dial("forecasting")), "parking/lot-1")
        assert after == before and after[0].model == model
