"""A served city of metering and notary with a stand-in for identity, homes that sign, and callers of each role."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from city.identity.v1 import events_pb2 as identity_events
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from city.metering.v1 import metering_service_pb2 as pb
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from citykit import canonical
from citykit.access import signing_key
from citykit.bus.events import cloud_event
from citykit.edge import city_error
from citykit.errors import CityError, NotFound, Unavailable
from citykit.service import Context, Service, Servicer
from citykit.settings import CitySettings
from services.testing import TestCity, embedded_city
from tests.unit.metering.homes import tariff
from tests.unit.metering.onramp import SLOT_S, START, Device, device

NOVEMBER = START + 31 * 86_400 + 3_600
"""2016-11-04T00:00 in London: the end of the first billing period."""


class Registry(IdentityServiceServicer):
    """Knows the devices it is given; notes who looked at what."""

    def __init__(self) -> None:
        self.devices: dict[str, identity.Device] = {}
        self.accesses: list[identity.RecordAccessRequest] = []
        self.away = False
        self.jwks = ""

    async def GetJwks(self, request: identity.GetJwksRequest, context: Any) -> identity.GetJwksResponse:
        return identity.GetJwksResponse(json=self.jwks)

    def add(self, item: Device, transaction: str, *, registered: int = START) -> None:
        key = identity.DeviceKey(
            public_key=item.signer.public_key, algorithm="EdDSA", from_sequence=1, transaction=transaction
        )
        found = identity.Device(id=item.name, keys=[key])
        found.registered_at.seconds = registered
        self.devices[item.name] = found

    async def GetDevice(self, request: identity.GetDeviceRequest, context: Any) -> identity.GetDeviceResponse:
        if request.device not in self.devices:
            raise NotFound("no such device")
        return identity.GetDeviceResponse(device=self.devices[request.device])

    async def RecordAccess(self, request: identity.RecordAccessRequest, context: Any) -> identity.RecordAccessResponse:
        if self.away:
            raise Unavailable("identity is away")
        self.accesses.append(request)
        return identity.RecordAccessResponse()


@dataclass
class MeteringCity:
    city: TestCity
    registry: Registry
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    numbers: int = 0

    def stub(self, role: str = "service", subject: str = "") -> Any:
        """A client with a role; `service` is the kit's own token, `nobody` has none."""
        if role == "service":
            return MeteringServiceStub(self.city.dial("metering"))
        if role == "nobody":
            return MeteringServiceStub(self.city.process.anonymous())
        token = self.city.token(role=role, subject=subject or f"{role}-1", audience="metering")
        channel = self.city.dial("metering", token)
        self.channels.append(channel)
        return MeteringServiceStub(channel)

    def request_id(self) -> str:
        self.numbers += 1
        return f"request-{self.numbers}"

    async def publish(self, **changes: Any) -> str:
        text = canonical.encode(tariff(**changes)).decode()
        answer = await self.stub().PublishTariff(
            pb.PublishTariffRequest(request_id=self.request_id(), tariff_json=text)
        )
        return str(answer.transaction)

    async def register(self, *homes: Device, transaction: str = "00" * 32) -> None:
        for home in homes:
            self.registry.add(home, transaction)
        points = [pb.MeterPoint(id=point_of(h), device=h.name, max_slot_wh=11_500, zone="Europe/London") for h in homes]
        await self.stub().RegisterMeterPoints(
            pb.RegisterMeterPointsRequest(request_id=self.request_id(), meter_points=points)
        )

    async def contract(self, home: Device, subject: str, from_date: str = "2016-10-04", to_date: str = "") -> str:
        wanted = pb.Contract(
            meter_point=point_of(home), subject=subject, tariff="homes-2016", from_date=from_date, to_date=to_date
        )
        answer = await self.stub().CreateContract(
            pb.CreateContractRequest(request_id=self.request_id(), contract=wanted)
        )
        return str(answer.contract.id)

    async def send(self, *packages: bytes) -> list[pb.PackageResult]:
        call = self.stub("nobody").Ingest()
        await call.write(pb.IngestRequest(packages=packages))
        answer = await call.read()
        await call.done_writing()
        return list(answer.results)

    async def month(self, home: Device, without: Sequence[int] = (), days: int = 31) -> None:
        """A package a day from START on, without the slots numbered."""
        for day in range(days):
            last = day == 30
            slots = [n for n in range(day * 48, day * 48 + (50 if last else 48)) if n not in without]
            results = await self.send(home.package(slots, [usual(n) for n in slots]))
            assert results[0].outcome == pb.PackageResult.OUTCOME_ACCEPTED, results[0]

    async def bill(self) -> pb.RunBillingResponse:
        request = pb.RunBillingRequest(request_id=self.request_id(), from_date="2016-10-04", to_date="2016-11-04")
        answer: pb.RunBillingResponse = await self.stub().RunBilling(request)
        return answer

    async def erase(self, subject: str) -> None:
        event = identity_events.SubjectErased(audience="metering", subject=subject)
        message = cloud_event(
            topic="city.identity.events.v1", key=subject, event=event, source="identity", id=f"erased-{subject}", time=NOVEMBER,
            commitment=bytes(32),
        )  # fmt: skip
        await self.city.bus.publish([message])
        await self.city.settle(anchored=False)


def usual(slot: int) -> int:
    return 150 + 11 * (slot % 48) + slot % 7


def point_of(home: Device) -> str:
    return home.name.replace("meter", "mp")


async def refusal(call: Any) -> CityError:
    """The error a call ends with.

    Raises:
        AssertionError: it ends well.
    """
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return city_error(error)
    raise AssertionError("the call was not refused")


@contextlib.asynccontextmanager
async def metering_city(
    state: Path,
    *,
    now: float = NOVEMBER,
    services: Sequence[str] = ("metering", "notary"),
    settings: CitySettings | None = None,
) -> AsyncIterator[MeteringCity]:
    """City time stands at `now`."""
    registry = Registry()  # type: ignore[abstract]  # the other RPCs are not called here

    def build(ctx: Context) -> Service:
        registry.jwks = json.dumps({"keys": [signing_key(ctx.key("token-signing")).as_dict(private=False)]})
        servicer = Servicer(add_IdentityServiceServicer_to_server, registry, "city.identity.v1.IdentityService")
        return Service(ctx.name, servicers=(servicer,))

    async with embedded_city(state, services=services, start=now, settings=settings, more={"identity": build}) as city:
        found = MeteringCity(city, registry)
        try:
            yield found
        finally:
            for channel in found.channels:
                await channel.close(None)


__all__ = ["NOVEMBER", "SLOT_S", "START", "MeteringCity", "device", "metering_city", "point_of", "refusal", "usual"]
