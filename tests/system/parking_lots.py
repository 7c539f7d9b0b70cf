"""Parking in an embedded city, with sensors that sign and a forecasting service that says what it is told. For tests of sensing and advice."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.forecasting.v1.forecasting_service_pb2_grpc import (
    ForecastingServiceServicer,
    add_ForecastingServiceServicer_to_server,
)
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from city.parking.v1 import parking_service_pb2 as pb
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from citykit import canonical
from citykit.access import signing_key
from citykit.errors import NotFound, Unavailable
from citykit.service import Context, Service, Servicer
from services.testing import TestCity, embedded_city
from tests.unit.parking.sensing import NINE, Sensor
from tests.unit.parking.tariffs import tariff

HALF = 1_800


class Registry(IdentityServiceServicer):
    """Identity that knows the sensors it is given."""

    def __init__(self) -> None:
        self.sensors: dict[str, Sensor] = {}
        self.jwks = ""

    async def GetJwks(self, request: identity.GetJwksRequest, context: Any) -> identity.GetJwksResponse:
        return identity.GetJwksResponse(json=self.jwks)

    async def GetDevice(self, request: identity.GetDeviceRequest, context: Any) -> identity.GetDeviceResponse:
        sensor = self.sensors.get(request.device)
        if sensor is None:
            raise NotFound("no such device")
        key = identity.DeviceKey(
            public_key=sensor.signer.public_key, algorithm="EdDSA", from_sequence=1, transaction="00" * 32
        )
        found = identity.Device(id=sensor.name, keys=[key])
        found.registered_at.seconds = NINE - 86_400
        return identity.GetDeviceResponse(device=found)


class Forecasts(ForecastingServiceServicer):
    """Expects the same cars of a lot in every half hour; `cars`: lot -> (mean, half width of the 80 % band)."""

    def __init__(self, clock: Any = None) -> None:
        self.cars: dict[str, tuple[int, int]] = {}
        self.away = False
        self.asked: list[list[str]] = []
        self.clock = clock

    async def Forecast(
        self, request: forecasting.ForecastRequest, context: Any
    ) -> AsyncIterator[forecasting.ForecastResponse]:
        if self.away:
            raise Unavailable("forecasting is away")
        self.asked.append(list(request.series))
        slot = int(self.clock.now()) // HALF * HALF
        for series in request.series:
            yield self._one(series, slot, request.horizon)

    def _one(self, series: str, slot: int, horizon: int) -> forecasting.ForecastResponse:
        known = self.cars.get(series.removeprefix("parking/"))
        if known is None:
            return forecasting.ForecastResponse(series=series, reason="unknown-series")
        mean, half = (1_000 * value for value in known)
        points = [
            forecasting.Point(
                time=Timestamp(seconds=slot + n * HALF),
                value_milli=mean,
                bands=[
                    forecasting.Band(level=level, low_milli=mean - half * times, high_milli=mean + half * times)
                    for level, times in ((80, 1), (90, 2))
                ],
            )
            for n in range(horizon)
        ]
        return forecasting.ForecastResponse(series=series, points=points, model="model-1")


@dataclass
class LotsCity:
    city: TestCity
    registry: Registry
    forecasts: Forecasts
    numbers: int = 0

    @property
    def sensors(self) -> dict[str, Sensor]:
        return self.registry.sensors

    def stub(self) -> Any:
        return ParkingServiceStub(self.city.dial("parking"))

    def anyone(self) -> Any:
        """A caller without a token."""
        return ParkingServiceStub(self.city.process.anonymous())

    def request_id(self) -> str:
        self.numbers += 1
        return f"request-{self.numbers}"

    def now(self) -> int:
        return int(self.city.clock.now())

    def advance(self, seconds: int) -> None:
        self.city.clock.advance_to(self.city.clock.now() + seconds)

    async def register(self, *lots: pb.Lot) -> None:
        await self.stub().RegisterLots(pb.RegisterLotsRequest(request_id=self.request_id(), lots=lots))
        for lot in lots:
            for device in (*lot.sensors, *(item.device for item in lot.bay_sensors)):
                self.registry.sensors[device] = Sensor(device)

    async def publish_tariff(self, **changes: Any) -> None:
        text = canonical.encode(tariff(**changes)).decode()
        await self.stub().PublishTariff(pb.PublishTariffRequest(request_id=self.request_id(), tariff_json=text))

    async def send(self, *packages: bytes) -> list[pb.PackageResult]:
        call: Any = self.anyone().Ingest()
        await call.write(pb.IngestRequest(packages=packages))
        answer = await call.read()
        await call.done_writing()
        return list(answer.results)

    async def count(self, device: str, cars: int, time: int = 0) -> pb.PackageResult:
        """A sensor counts now."""
        return (await self.send(self.sensors[device].package((time or self.now(), cars))))[0]

    async def view(self, lot: str) -> pb.LotView:
        answer: pb.ListLotsResponse = await self.anyone().ListLots(pb.ListLotsRequest())
        return next(view for view in answer.lots if view.lot.id == lot)

    async def advise(self, **wanted: Any) -> list[pb.Advice]:
        usual = {"latitude_e7": 524_800_000, "longitude_e7": -19_000_000, "stay_minutes": 120}
        arrival = wanted.pop("arrival", self.now() + 600)
        request = pb.AdviseRequest(arrival_time=Timestamp(seconds=arrival), **(usual | wanted))
        return list((await self.anyone().Advise(request)).advice)


def lot_message(id_: str = "high-street", **changes: Any) -> pb.Lot:
    """A lot of 200 bays with one sensor."""
    usual: dict[str, Any] = {
        "name": "High Street", "operator": "city", "capacity": 200, "latitude_e7": 524_800_000, "longitude_e7": -19_000_000,
        "tariff": "bays", "sensors": [f"s-{id_}"],
    }  # fmt: skip
    return pb.Lot(id=id_, **(usual | changes))


@contextlib.asynccontextmanager
async def lots_city(state: Path, *, now: float = NINE, with_forecasts: bool = True) -> AsyncIterator[LotsCity]:
    """City time stands at `now`."""
    registry = Registry()  # type: ignore[abstract]  # the other RPCs are not called here
    forecasts = Forecasts()  # type: ignore[abstract]  # only Forecast is called

    def identity_(ctx: Context) -> Service:
        registry.jwks = json.dumps({"keys": [signing_key(ctx.key("token-signing")).as_dict(private=False)]})
        servicer = Servicer(add_IdentityServiceServicer_to_server, registry, "city.identity.v1.IdentityService")
        return Service(ctx.name, servicers=(servicer,))

    def forecasting_(ctx: Context) -> Service:
        forecasts.clock = ctx.clock
        name = "city.forecasting.v1.ForecastingService"
        return Service(ctx.name, servicers=(Servicer(add_ForecastingServiceServicer_to_server, forecasts, name),))

    more = {"identity": identity_, **({"forecasting": forecasting_} if with_forecasts else {})}
    async with embedded_city(state, services=("parking", "notary"), start=now, more=more) as city:
        yield LotsCity(city, registry, forecasts)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was not refused")
