"""Identity, metering, parking, payments, forecasting, notary and simulation with canned data, so that the gateway and its page can be tested alone.

Real gRPC on a Unix socket; the access rules of the protos are enforced as the city does. Used by the gateway's tests.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pool

from city.access.v1 import access_pb2
from city.forecasting.v1 import forecasting_service_pb2_grpc
from city.identity.v1 import identity_service_pb2_grpc
from city.metering.v1 import metering_service_pb2_grpc
from city.notary.v1 import notary_service_pb2_grpc
from city.parking.v1 import parking_service_pb2_grpc
from city.payments.v1 import payments_service_pb2_grpc
from city.simulation.v1 import simulation_service_pb2_grpc
from citykit.clock import ReplayClock
from citykit.edge import Edge
from citykit.errors import PermissionDenied
from citykit.ids import seeded_randomness
from citykit.service import Context, Service
from citykit.settings import CitySettings
from citykit.telemetry import logger
from services.gateway.app.check import Checker
from services.gateway.main import build
from tests.system.fake_calls import NOW, Asked, claims_of
from tests.system.fake_metering import Metering
from tests.system.fake_parking import Forecasting, Parking
from tests.system.fake_purse import Payments
from tests.system.fake_services import Identity, Notary, Simulation

VERIFIER = Path(__file__).with_name("fake_verifier.py")


def _descriptors() -> Any:
    return descriptor_pool.Default()  # type: ignore[no-untyped-call]


async def _access(method: str, metadata: Mapping[str, Any], context: Any) -> None:
    """The proto's access rule, over fake tokens."""
    service, _, rpc = method.lstrip("/").partition("/")
    rule = _descriptors().FindServiceByName(service).FindMethodByName(rpc).GetOptions().Extensions[access_pb2.access]
    if rule.public:
        return
    sent = metadata.get("authorization", "")
    roles = claims_of(sent.removeprefix("Bearer "))["roles"] if sent else ["service"]
    allowed = {access_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in rule.roles}
    if not allowed & set(roles):
        raise PermissionDenied(f"{rpc} is for {', '.join(sorted(allowed))}")


@dataclass(frozen=True)
class FakeCity:
    """The gateway over fakes."""

    service: Service
    calls: Asked
    directory: Path
    clock: ReplayClock

    @property
    def app(self) -> Any:
        return self.service.http


async def _server(socket: str, calls: Asked, simulation: bool) -> grpc.aio.Server:
    server = grpc.aio.server()
    edge: Any = Edge(server, (_access,))
    fakes: tuple[Any, ...] = (Identity, Metering, Notary, Simulation, Parking, Payments, Forecasting)
    identity, metering, notary, simulated, parking, payments, forecasting = (fake(calls) for fake in fakes)
    identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(identity, edge)
    metering_service_pb2_grpc.add_MeteringServiceServicer_to_server(metering, edge)
    notary_service_pb2_grpc.add_NotaryServiceServicer_to_server(notary, edge)
    parking_service_pb2_grpc.add_ParkingServiceServicer_to_server(parking, edge)
    payments_service_pb2_grpc.add_PaymentsServiceServicer_to_server(payments, edge)
    forecasting_service_pb2_grpc.add_ForecastingServiceServicer_to_server(forecasting, edge)
    if simulation:
        simulation_service_pb2_grpc.add_SimulationServiceServicer_to_server(simulated, edge)
    server.add_insecure_port(socket)
    await server.start()
    return server


def _context(directory: Path, settings: CitySettings, channel: grpc.aio.Channel, clock: ReplayClock) -> Context:
    folder = directory / "gateway"
    folder.mkdir(parents=True, exist_ok=True)
    absent: Any = None
    return Context(
        name="gateway",
        settings=settings,
        clock=clock,
        randomness=seeded_randomness(7),
        ledger=absent,
        bus=absent,
        open_store=absent,
        dial=lambda _: channel,
        log=logger("gateway"),
        directory=folder,
        key=lambda purpose: purpose.encode().ljust(32, b"."),
    )


def write_demo_logins(directory: Path) -> None:
    """As the composition root does in a demo."""
    names = ("resident:ada", "staff:operator", "staff:billing", "staff:registrar", "staff:auditor")
    logins = {name: {"login": name.partition(":")[2], "password": f"a password for {name}"} for name in names}
    path = directory / "demo-logins.json"
    path.write_text(json.dumps(logins), encoding="utf-8")
    path.chmod(0o600)


@contextlib.asynccontextmanager
async def fake_city(
    directory: Path, settings: CitySettings | None = None, *, simulation: bool = True
) -> AsyncIterator[FakeCity]:
    """The gateway, built as in the city, over fakes on a socket in `directory`."""
    settings = settings or CitySettings()
    calls = Asked()
    socket = f"unix:{directory / 's'}"
    server = await _server(socket, calls, simulation)
    write_demo_logins(directory)
    clock = ReplayClock(NOW)
    channel = grpc.aio.insecure_channel(socket)
    service = build(_context(directory, settings, channel, clock))
    parts = service.http.state.parts
    checker = Checker(directory / "gateway" / "check", (sys.executable, str(VERIFIER)))
    service.http.state.parts = replace(parts, checker=checker)
    try:
        if service.start:
            await service.start()
        yield FakeCity(service, calls, directory, clock)
    finally:
        if service.stop:
            await service.stop()
        await channel.close(None)
        await server.stop(None)
