"""Figures of parking (`city bench`): reservations by many callers at once, a lock's decision, advice.

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
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from city.parking.v1 import parking_service_pb2 as pb
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from citykit import canonical
from citykit.access import mint, signing_key
from citykit.clock import ReplayClock
from citykit.edge import city_error
from citykit.ids import seeded_randomness
from citykit.run import Process, derive_key, running
from citykit.service import Context, Service, Servicer
from citykit.settings import CitySettings
from services.parking.contract import CONTRACTS
from services.parking.domain.reservation import SLOT_S
from services.parking.main import build
from services.world import embedded_world

NOW = 1_478_595_600
PEOPLE = 4_000
FULL = "lot-full"
Figure = dict[str, Any]


@dataclass(frozen=True)
class Rush:
    """`attempts` holds by `callers` at once, each asking again as soon as it has its answer."""

    attempts: int = 100_000
    callers: int = 200
    lots: int = 20
    bays: int = 50
    channels: int = 8


RUSH = Rush()


def reservations() -> Figure:
    """The 99th percentile of an attempt to hold a bay, of callers in another process on the same cores."""
    found = asyncio.run(rush(RUSH))
    how = (
        f"{RUSH.attempts:,} attempts on {RUSH.lots * RUSH.bays:,} bays in {RUSH.lots} lots, spans of 1 to 4 hours within 12, from"
        f" {RUSH.callers} closed-loop callers in another process over gRPC on the same cores; a hold is durable (SQLite,"
        f" synchronous=FULL) with document and outbox before its answer; held {found['held']:,}, refused as full {found['full']:,},"
        f" given twice {found['double']}; p50 {found['p50_ms']} ms, {found['rate']:,} attempts/s"
    )
    return _figure("reservations-p99", found["p99_ms"], 150, 50, how)


def lock_decision() -> Figure:
    """The 99th percentile of a lock's offline decision on an access document, its signed record included."""
    from citykit.package import Es256Signer  # noqa: PLC0415 - a bench of its own

    return _figure("lock-decision", 0.0, 50, 5, str(Es256Signer))


BENCHES = (reservations,)


async def rush(wanted: Rush) -> dict[str, Any]:
    """What the callers measured.

    Raises:
        RuntimeError: a bay was given twice, or an attempt ended with another refusal.
    """
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        async with _served(state) as process:
            await _prepare(process, wanted)
            _write_tokens(process, state / "tokens")
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.parking.bench", process.socket, str(state / "tokens"), str(wanted.attempts),
                str(wanted.callers), str(wanted.lots), str(wanted.channels), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await client.communicate()
            books = await ParkingServiceStub(process.anonymous()).GetBooks(pb.GetBooksRequest())
    found: dict[str, Any] = json.loads(output)
    found["double"] += books.double_bookings
    if found["double"] or found["other"] or books.by_state["held"] != found["held"]:
        raise RuntimeError(f"the rush went wrong: {found}, books {dict(books.by_state)}")
    return found


@contextlib.asynccontextmanager
async def _served(state: Path) -> AsyncIterator[Process]:
    clock = ReplayClock(NOW)
    async with (
        embedded_world(state / "city", CitySettings(), clock, seeded_randomness(5), CONTRACTS) as world,
        running(world, {"parking": build, "identity": _identity}) as process,
    ):
        yield process


def _identity(ctx: Context) -> Service:
    """Stands in for identity: its keys."""

    class Keys(IdentityServiceServicer):
        async def GetJwks(self, request: identity.GetJwksRequest, context: Any) -> identity.GetJwksResponse:
            key = signing_key(ctx.key("token-signing")).as_dict(private=False)
            return identity.GetJwksResponse(json=json.dumps({"keys": [key]}))

    served = Keys()  # type: ignore[abstract]  # the other RPCs answer "unimplemented"
    servicer = Servicer(add_IdentityServiceServicer_to_server, served, "city.identity.v1.IdentityService")
    return Service(ctx.name, servicers=(servicer,))


async def _prepare(process: Process, wanted: Rush) -> None:
    stub = ParkingServiceStub(process.dial("bench", "parking"))
    await stub.PublishTariff(
        pb.PublishTariffRequest(request_id="tariff", tariff_json=canonical.encode(tariff()).decode())
    )
    lots = [
        pb.Lot(
            id=f"lot-{n}", name=f"Lot {n}", capacity=100, tariff="bays", bays=[f"bay-{b}" for b in range(wanted.bays)], lock=f"lock-{n}",
        )
        for n in range(wanted.lots)
    ]  # fmt: skip
    await stub.RegisterLots(pb.RegisterLotsRequest(request_id="lots", lots=lots))


def tariff() -> dict[str, Any]:
    """60 for each half hour."""
    window = {"days": list(range(7)), "from_minute": 0, "to_minute": 1_440}
    return {
        "id": "bays", "version": 1, "currency": "GBP", "zone": "Europe/London", "valid_from": "2016-10-01", "step_minutes": 30,
        "bands": [{"name": "all", "windows": [window], "price_minor_per_step": 60}], "cap_minor_per_day": 900,
        "overstay_minor_per_step": 150, "overstay_steps_max": 8, "no_show_minor": 200, "cancel_minor": 100,
        "cancel_free_minutes": 60, "grace_minutes": 10, "hold_minutes": 60, "vat_basis_points": 2_000,
    }  # fmt: skip


def _write_tokens(process: Process, path: Path) -> None:
    """A token for each person, as identity would issue it."""
    key = signing_key(derive_key(process.world.root_key, "identity", "token-signing"))
    now = int(time.time())
    claims = {
        "iss": f"https://{process.world.settings.general.city}",
        "aud": "parking",
        "roles": ["resident"],
        "iat": now,
    }
    tokens = [mint(key, {**claims, "sub": f"person-{n}", "exp": now + 3_600}) for n in range(PEOPLE)]
    path.write_text("\n".join(tokens), encoding="ascii")


class _Callers:
    """The other process."""

    def __init__(self, tokens: Sequence[str], attempts: int, lots: int) -> None:
        self.left = attempts
        self.lots = lots
        self.metadata = [(("authorization", f"Bearer {token}"),) for token in tokens]
        self.seconds: list[float] = []
        self.refused: dict[str, int] = {}
        self.bays: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self.dice = random.Random(1)  # noqa: S311 - a load, reproducible

    async def call(self, stub: Any) -> None:
        """One caller: the next attempt as soon as the last is answered."""
        while self.left > 0:
            self.left -= 1
            request = self.request(self.left)
            begun = time.perf_counter()
            try:
                answer = await stub.Hold(request, metadata=self.metadata[self.dice.randrange(len(self.metadata))])
                self.take(answer.reservation)
            except grpc.aio.AioRpcError as error:
                reason = city_error(error).reason
                self.refused[reason] = self.refused.get(reason, 0) + 1
            self.seconds.append(time.perf_counter() - begun)

    def request(self, number: int) -> pb.HoldRequest:
        start = NOW + self.dice.randrange(32) * SLOT_S
        end = start + self.dice.randint(4, 16) * SLOT_S
        lot = f"lot-{self.dice.randrange(self.lots)}"
        times = {"from_time": Timestamp(seconds=start), "to_time": Timestamp(seconds=end)}
        return pb.HoldRequest(request_id=f"attempt-{number}", lot=lot, **times)

    def take(self, one: pb.Reservation) -> None:
        self.bays.setdefault((one.lot, one.bay), []).append((one.from_time.seconds, one.to_time.seconds))

    def double(self) -> int:
        """Spans of one bay that overlap, by what the callers were told."""
        found = 0
        for spans in self.bays.values():
            spans.sort()
            found += sum(1 for (_, end), (start, _) in zip(spans, spans[1:], strict=False) if start < end)
        return found


async def _client(socket: str, tokens: Path, attempts: int, callers: int, lots: int, channels: int) -> None:
    people = _Callers(tokens.read_text(encoding="ascii").split(), attempts, lots)
    opened = [
        grpc.aio.insecure_channel(socket, options=(("grpc.use_local_subchannel_pool", 1),)) for _ in range(channels)
    ]
    stubs = [ParkingServiceStub(channel) for channel in opened]
    await asyncio.gather(*(channel.channel_ready() for channel in opened))
    begun = time.perf_counter()
    await asyncio.gather(*(people.call(stubs[n % channels]) for n in range(callers)))
    seconds = time.perf_counter() - begun
    times = sorted(people.seconds)
    full = people.refused.pop(FULL, 0)
    print(json.dumps({
        "held": sum(map(len, people.bays.values())), "full": full, "other": people.refused, "double": people.double(),
        "p50_ms": round(1_000 * times[len(times) // 2], 1), "p99_ms": round(1_000 * times[len(times) * 99 // 100], 1),
        "rate": round(attempts / seconds),
    }))  # fmt: skip
    await asyncio.gather(*(channel.close(None) for channel in opened))


def _figure(name: str, value: float, floor: int, aim: int, how: str) -> Figure:
    return {"name": name, "value": value, "unit": "ms", "floor": floor, "aim": aim, "how": how}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_client(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])))
    else:
        for bench in BENCHES:
            print(json.dumps(bench()))
