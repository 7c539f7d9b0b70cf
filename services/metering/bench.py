"""Figures of metering (`city bench`): load signed beforehand, sent by another process over gRPC to a served, durable metering.

Each function returns {"name", "value", "unit", "floor", "aim", "how"}. Nothing here is a test: what it prints depends on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from city.metering.v1 import metering_service_pb2 as pb
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from citykit.clock import ReplayClock
from citykit.errors import NotFound
from citykit.ids import seeded_randomness
from citykit.loop import run_to_end
from citykit.package import NO_PREVIOUS, Ed25519Signer, Reading, package_hash, sign_package
from citykit.run import Build, Process, World, keep_out_of_collections, running
from citykit.service import Context, Service, Servicer
from citykit.settings import CitySettings
from citykit.state import socket_path
from citykit.store.sqlite import open_sqlite
from services.metering.contract import CONTRACTS
from services.metering.domain.slots import DAY_S, SLOT_S
from services.metering.main import build
from services.metering.store import usage
from services.metering.store.tables import METADATA, METER_POINTS, READINGS
from services.testing import placed
from services.world import embedded_world

START = 1_475_535_600
STREAMS = 4
_EMBEDDED = "stored (SQLite, synchronous=FULL) and in the outbox before each answer"
Figure = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """How much is sent: `packages` a device, `readings` a package, `batch` packages a request."""

    devices: int
    packages: int
    readings: int
    batch: int


BATCHED = Load(devices=100, packages=40, readings=100, batch=32)
SINGLE = Load(devices=100, packages=400, readings=1, batch=256)


def readings_batched() -> Figure:
    """Readings a second with 100 readings under each signature."""
    rate = run_to_end(ingest(BATCHED))
    return measured("readings-100-a-signature", rate, "readings/s", 20_000, 40_000, how(BATCHED, _EMBEDDED))


def readings_single() -> Figure:
    """Readings a second with one reading under each signature."""
    rate = run_to_end(ingest(SINGLE))
    return measured("readings-1-a-signature", rate, "readings/s", 5_000, 8_000, how(SINGLE, _EMBEDDED))


def aggregate_10000() -> Figure:
    """Daily sums over 10,000 readings of one meter."""
    return run_to_end(_aggregate(10_000, 100, 30))


def aggregate_100000() -> Figure:
    """Load of the city over 100,000 readings: 100 meters, 1,000 slots."""
    return run_to_end(_aggregate(100_000, 300, 100))


BENCHES = (readings_batched, readings_single, aggregate_10000, aggregate_100000)


@contextlib.asynccontextmanager
async def _embedded(world: World) -> AsyncIterator[World]:
    yield world


async def _nothing(process: Process) -> None:
    """Nothing is left to do once all is answered."""


async def ingest(
    load: Load,
    place: Callable[[World], contextlib.AbstractAsyncContextManager[World]] = _embedded,
    settle: Callable[[Process], Awaitable[None]] = _nothing,
) -> float:
    """Readings a second.

    Args:
        place: the world with other parts.
        settle: after the last answer, not counted.

    Raises:
        RuntimeError: a package was not accepted.
    """
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        signers = {f"meter-{n:04d}": Ed25519Signer.from_seed(n.to_bytes(32, "big")) for n in range(load.devices)}
        _write_load(state / "load", load, signers)
        async with _served(state, load, signers, place) as process:
            await _register(process, list(signers))
            keep_out_of_collections()  # as `city serve` does
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.metering.bench", f"unix:{socket_path(process.world.state)}", str(state / "load"), str(load.devices),
                str(load.batch), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await client.communicate()
            await settle(process)
        found = json.loads(output)
        if found["refused"]:
            raise RuntimeError(f"{found['refused']} packages were not accepted: {found['reasons']}")
        return float(found["packages"] * load.readings / found["seconds"])


@contextlib.asynccontextmanager
async def _served(
    state: Path,
    load: Load,
    signers: dict[str, Ed25519Signer],
    place: Callable[[World], contextlib.AbstractAsyncContextManager[World]],
) -> AsyncIterator[Process]:
    clock = ReplayClock(START + (load.packages * load.readings + 48) * SLOT_S)
    settings = CitySettings()
    builds: dict[str, Build] = {"metering": build, "identity": lambda ctx: _registry(ctx, signers)}
    async with (
        embedded_world(state / "city", settings, clock, seeded_randomness(5), CONTRACTS) as embedded,
        place(placed(embedded, builds)) as world,
        running(world, builds) as process,
    ):
        yield process


def _registry(ctx: Context, signers: dict[str, Ed25519Signer]) -> Service:
    """Stands in for identity: knows the devices of the load."""

    class Registry(IdentityServiceServicer):
        async def GetDevice(self, request: identity.GetDeviceRequest, context: Any) -> identity.GetDeviceResponse:
            signer = signers.get(request.device)
            if signer is None:
                raise NotFound("no such device")
            key = identity.DeviceKey(
                public_key=signer.public_key, algorithm="EdDSA", from_sequence=1, transaction="0" * 64
            )
            device = identity.Device(id=request.device, keys=[key])
            device.registered_at.seconds = START
            return identity.GetDeviceResponse(device=device)

    served = Registry()  # type: ignore[abstract]  # the other RPCs answer "unimplemented"
    servicer = Servicer(add_IdentityServiceServicer_to_server, served, "city.identity.v1.IdentityService")
    return Service(ctx.name, servicers=(servicer,))


async def _register(process: Process, devices: Sequence[str]) -> None:
    points = [pb.MeterPoint(id=f"mp-{d}", device=d, max_slot_wh=11_500, zone="Europe/London") for d in devices]
    request = pb.RegisterMeterPointsRequest(request_id="bench", meter_points=points)
    await MeteringServiceStub(process.dial("bench", "metering")).RegisterMeterPoints(request)


def _write_load(path: Path, load: Load, signers: dict[str, Ed25519Signer]) -> None:
    """Packages round by round, one of each device: length (4 bytes) and bytes."""
    dice = random.Random(1)  # noqa: S311 - a load, reproducible
    chains = {device: NO_PREVIOUS for device in signers}
    with path.open("wb") as file:
        for number in range(load.packages):
            for device, signer in signers.items():
                raw = sign_package(signer, device, number + 1, chains[device], _readings(load, number, dice))
                chains[device] = package_hash(raw)
                file.write(len(raw).to_bytes(4, "big") + raw)


def _readings(load: Load, number: int, dice: random.Random) -> list[Reading]:
    first = START + number * load.readings * SLOT_S
    return [Reading(first + n * SLOT_S, 80 + dice.randrange(400)) for n in range(load.readings)]


def _read_load(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : end]
        at = end


async def _client(socket: str, path: Path, devices: int, batch: int) -> None:
    """The other process: the first round warms up (devices are looked up), the rest is timed. Devices are split over streams."""
    packages = list(_read_load(path))
    channel = grpc.aio.insecure_channel(socket)
    stub = MeteringServiceStub(channel)
    outcomes: dict[str, int] = {}
    for at in range(0, devices, 50):
        await _stream(stub, [pb.IngestRequest(packages=packages[at : min(devices, at + 50)])], outcomes)
    rest = packages[devices:]
    shares = [[raw for n, raw in enumerate(rest) if n % devices % STREAMS == share] for share in range(STREAMS)]
    requests = [[pb.IngestRequest(packages=s[at : at + batch]) for at in range(0, len(s), batch)] for s in shares]
    begun = time.perf_counter()
    await asyncio.gather(*(_stream(stub, share, outcomes) for share in requests))
    seconds = time.perf_counter() - begun
    accepted = outcomes.pop("", 0)
    await channel.close(None)
    result = {"packages": len(rest), "seconds": seconds, "refused": len(packages) - accepted, "reasons": outcomes}
    print(json.dumps(result))


async def _stream(stub: Any, requests: Sequence[pb.IngestRequest], outcomes: dict[str, int]) -> None:
    """Sends one request ahead of the answers, as a concentrator would."""
    call = stub.Ingest()
    for number, request in enumerate(requests):
        await call.write(request)
        if number:
            _count(await call.read(), outcomes)
    _count(await call.read(), outcomes)
    await call.done_writing()


def _count(response: pb.IngestResponse, outcomes: dict[str, int]) -> None:
    for result in response.results:
        accepted = result.outcome == pb.PackageResult.OUTCOME_ACCEPTED
        word = "" if accepted else result.reason
        outcomes[word] = outcomes.get(word, 0) + 1


async def _aggregate(points: int, floor_ms: int, aim_ms: int) -> Figure:
    meters = 1 if points == 10_000 else 100  # noqa: PLR2004 - the two figures asked for
    slots = points // meters
    settings = CitySettings().store
    with tempfile.TemporaryDirectory() as folder:
        store = open_sqlite(Path(folder) / "metering.db", METADATA, Path(__file__).parent / "migrations", settings)
        names = [f"mp-{n:04d}" for n in range(meters)]
        rows = [(name, START + n * SLOT_S, 80 + n % 300, name, 1, "") for name in names for n in range(slots)]
        await store.write(lambda unit: _fill(unit, names, rows))
        seconds = [await _timed(store, meters, slots) for _ in range(11)]
        await store.close()
    what = "daily sums of one meter" if meters == 1 else "load of 100 meters by slot"
    how = f"{what} over {points:,} readings, one SQL statement, SQLite file, median of 11"
    return measured(f"aggregate-{points}", sorted(seconds)[5] * 1_000, "ms", floor_ms, aim_ms, how)


def _fill(unit: Any, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    unit.insert_many(
        METER_POINTS, ("id", "device", "max_slot_wh", "zone"), [(n, n, 11_500, "Europe/London") for n in names]
    )
    unit.insert_many(READINGS, ("meter_point", "slot", "energy_wh", "device", "sequence", "held"), rows)


async def _timed(store: Any, meters: int, slots: int) -> float:
    from services.metering.app.zones import zone_offsets  # noqa: PLC0415 - measured without its first call

    end = START + slots * SLOT_S
    offsets = zone_offsets("Europe/London").clipped(START, end)
    begun = time.perf_counter()
    if meters == 1:
        found = await store.read(lambda c: usage.sums(c, "mp-0000", START, end, DAY_S, offsets))
    else:
        found = await store.read(lambda c: usage.city_load(c, START, end, 10))
    if not found:
        raise RuntimeError("the aggregate gave nothing")
    return time.perf_counter() - begun


def how(load: Load, where: str) -> str:
    """What was sent and how, and what was done with it before each answer."""
    return (
        f"{load.devices} devices, {load.packages} packages each, {load.readings} readings a package, signed beforehand;"
        f" sent by another process over gRPC in {STREAMS} streams of {load.batch} packages a request, on the same cores;"
        f" verified, de-duplicated, judged, {where}"
    )


def measured(name: str, value: float, unit: str, floor: int, aim: int, how: str) -> Figure:
    return {"name": name, "value": round(value, 1), "unit": unit, "floor": floor, "aim": aim, "how": how}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_to_end(_client(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    else:
        for bench in BENCHES:
            print(json.dumps(bench()))
