"""Car parks with a known day, served forecasting filled with them, and a trained state made once for all tests that only read it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from services.testing import TestCity, embedded_city

SLOT = 1_800
DAY = 48
WEEK = 336
START = 1_475_535_600
WEEKS = 5
HOUR_TWICE = 2
END = START + WEEKS * WEEK * SLOT
LONDON = ZoneInfo("Europe/London")
SERVICES = ("forecasting", "notary")


def occupied(lot: int, slot: int, noise: random.Random) -> int:
    """A car park's day by London's clock, which goes back in the fourth week: empty at night, full at noon, less at weekends."""
    day, place = datetime.fromtimestamp(START + slot * SLOT, LONDON).weekday(), place_of(slot)
    shape = max(0.0, math.sin(math.pi * (place - 14) / 24)) if 14 <= place <= 38 else 0.0
    return max(0, round(min(500, 40 + (300 + 20 * lot) * shape * (0.5 if day > 4 else 1.0) + noise.gauss(0, 8))))


def place_of(slot: int) -> int:
    """Half hour of the day on London's clock."""
    local = datetime.fromtimestamp(START + slot * SLOT, LONDON)
    return 2 * local.hour + local.minute // 30


def one(slot: int, value: int, capacity: int = 500) -> pb.Observation:
    seconds = START + slot * SLOT
    return pb.Observation(time=Timestamp(seconds=seconds), value_milli=1_000 * value, capacity_milli=1_000 * capacity)


def observations(lot: int, weeks: int = WEEKS) -> list[pb.Observation]:
    noise = random.Random(lot)
    return [one(slot, occupied(lot, slot, noise)) for slot in range(weeks * WEEK)]


def stub_of(city: TestCity) -> Any:
    return ForecastingServiceStub(city.dial("forecasting"))


async def add(stub: Any, series: str, rows: Sequence[pb.Observation], request_id: str = "") -> Any:
    request = pb.AddObservationsRequest(request_id=request_id or f"fill-{series}", series=series, observations=rows)
    return await stub.AddObservations(request)


async def filled(city: TestCity, lots: int = 3) -> Any:
    stub = stub_of(city)
    for lot in range(lots):
        assert (await add(stub, f"parking/lot-{lot}", observations(lot))).added == WEEKS * WEEK
    return stub


async def forecasts(stub: Any, *series: str, horizon: int = 0) -> list[pb.ForecastResponse]:
    return [answer async for answer in stub.Forecast(pb.ForecastRequest(series=series, horizon=horizon))]


async def train_state(folder: Path) -> str:
    """Leaves a city's state with three lots and a model trained on them in `folder`; returns the model."""
    async with embedded_city(folder, services=SERVICES, start=END) as city:
        stub = await filled(city)
        answer = await stub.Train(pb.TrainRequest(request_id="train-1", group="parking"))
        await city.settle()
        return str(answer.model)
