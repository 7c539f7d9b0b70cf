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
from itertools import pairwise
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
from citykit.access import mint, signing_key
from citykit.clock import ReplayClock
from citykit.ids import seeded_randomness
from citykit.keys import derive_key
from citykit.loop import run_to_end
from citykit.package import NO_PREVIOUS, OCCUPIED, Ed25519Signer, Es256Signer, Reading, sign_package
from citykit.run import Process, keep_out_of_collections, running
from citykit.service import Context, Service, Servicer
from citykit.settings import CitySettings
from citykit.state import socket_path
from services.parking.app.access import signed
from services.parking.contract import CONTRACTS
from services.parking.domain.reservation import SLOT_S
from services.parking.main import build
from services.world import embedded_world
from simulation.device import device_signer
from simulation.lock import Lock

NOW = 1_478_595_600
PEOPLE = 4_000
FULL, TOO_MANY = "lot-full", "too-many-holds"
_REASONS = {"every bay of": FULL, "you hold": TOO_MANY}
"""How the messages begin: cheaper to look at than their details, and the client shares the cores."""
DECISIONS = 1_000
ASKED, LOTS_ASKED, EVENTS = 2_000, 500, 20
CENTRE = (524_800_000, -19_000_000)
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
    found = run_to_end(rush(RUSH))
    how = (
        f"{RUSH.attempts:,} attempts on {RUSH.lots * RUSH.bays:,} bays in {RUSH.lots} lots, spans of 1 to 4 hours within 12, from"
        f" {RUSH.callers} closed-loop callers in another process over gRPC on the same cores; a hold is durable (SQLite,"
        f" synchronous=FULL) with document and outbox before its answer; held {found['held']:,}, refused as full {found['full']:,}, for holding five"
        f" already {found['too_many']:,},"
        f" given twice {found['double']}; p50 {found['p50_ms']} ms, {found['rate']:,} attempts/s"
    )
    return _figure("reservations-p99", found["p99_ms"], 150, 50, how)


def lock_decision() -> Figure:
    """The 99th percentile of a lock's offline decision on an access document: two signatures and its memory on disk."""
    signer, times = Es256Signer.from_seed(b"bench"), []
    with tempfile.TemporaryDirectory() as folder:
        lock = Lock("lock-0", device_signer(7, "lock-0"), {"bench": signer.public_key}, Path(folder) / "lock.json")
        for document in [_document(signer, number) for number in range(1, DECISIONS + 1)]:
            begun = time.perf_counter()
            if not lock.decide(document, NOW).opens:
                raise RuntimeError("the lock did not open")
            times.append(1_000 * (time.perf_counter() - begun))
            lock.sent(1)
    times.sort()
    how = (
        f"{DECISIONS} decisions, each on a document of its own: strict reading, ES256, times, replay; the number is kept in a file and the"
        f" record is signed before it opens; p50 {times[len(times) // 2]:.2f} ms"
    )
    return _figure("lock-decision-p99", round(times[len(times) * 99 // 100], 2), 50, 5, how)


def _document(signer: Es256Signer, number: int) -> str:
    claims = {
        "iss": "provable.city/demo", "aud": "lock-0", "sub": "reservation-0", "jti": str(number), "act": "entry", "lot": "lot-0",
        "bay": "bay-0", "iat": NOW, "nbf": NOW, "exp": NOW + 900,
    }  # fmt: skip
    return signed(signer, "bench", claims)


def advice_500_lots() -> Figure:
    """The 99th percentile of an answer to where to park, of 500 lots in reach of the walk."""
    found = run_to_end(questions(ASKED))
    how = (
        f"{ASKED:,} questions one after the other from another process over gRPC on the same cores; {LOTS_ASKED} lots within 15 minutes on"
        f" foot, each with a sensor that counted, a forecast, 20 reservable bays and {EVENTS} events in the calendar; city time runs, so"
        f" states are computed anew each second; three answers with reasons; p50 {found['p50_ms']} ms"
    )
    return _figure("advice-500-lots", found["p99_ms"], 50, 15, how)


BENCHES = (reservations, lock_decision, advice_500_lots)


async def rush(wanted: Rush) -> dict[str, Any]:
    """What the callers measured.

    Raises:
        RuntimeError: a bay was given twice, or an attempt ended with another refusal.
    """
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        async with _served(state) as process:
            await _prepare(process, wanted)
            keep_out_of_collections()
            _write_tokens(process, state / "tokens")
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.parking.bench", f"unix:{socket_path(process.world.state)}",
                str(state / "tokens"), str(wanted.attempts),
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
            attempt = stub.Hold(request, metadata=self.metadata[self.dice.randrange(len(self.metadata))])
            code = await attempt.code()
            self.seconds.append(time.perf_counter() - begun)
            if code is grpc.StatusCode.OK:
                self.take((await attempt).reservation)
            else:
                self.refuse(code, await attempt.details())

    def request(self, number: int) -> pb.HoldRequest:
        start = NOW + self.dice.randrange(32) * SLOT_S
        end = start + self.dice.randint(4, 16) * SLOT_S
        lot = f"lot-{self.dice.randrange(self.lots)}"
        return pb.HoldRequest(
            request_id=f"attempt-{number}", lot=lot, from_time=Timestamp(seconds=start), to_time=Timestamp(seconds=end)
        )

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        reason = next((reason for start, reason in _REASONS.items() if details.startswith(start)), code.name)
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def take(self, one: pb.Reservation) -> None:
        self.bays.setdefault((one.lot, one.bay), []).append((one.from_time.seconds, one.to_time.seconds))

    def double(self) -> int:
        """Spans of one bay that overlap, by what the callers were told."""
        found = 0
        for spans in self.bays.values():
            spans.sort()
            found += sum(1 for (_, end), (start, _) in pairwise(spans) if start < end)
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
    full, too_many = people.refused.pop(FULL, 0), people.refused.pop(TOO_MANY, 0)
    print(json.dumps({
        "held": sum(map(len, people.bays.values())), "full": full, "too_many": too_many, "other": people.refused, "double": people.double(),
        "p50_ms": round(1_000 * times[len(times) // 2], 1), "p99_ms": round(1_000 * times[len(times) * 99 // 100], 1),
        "rate": round(attempts / seconds),
    }))  # fmt: skip
    await asyncio.gather(*(channel.close(None) for channel in opened))


async def questions(asked: int) -> dict[str, Any]:
    """What the one who asks measured.

    Raises:
        RuntimeError: a question had no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        clock = ReplayClock(NOW)
        async with (
            embedded_world(Path(folder), CitySettings(), clock, seeded_randomness(5), CONTRACTS) as world,
            running(world, {"parking": build, "identity": _registry, "forecasting": _forecasts}) as process,
        ):
            await _prepare_lots(process)
            clock.run(1.0)
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.parking.bench", "advice", f"unix:{socket_path(process.world.state)}", str(asked),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await client.communicate()
    found: dict[str, Any] = json.loads(output)
    if found["answered"] != asked:
        raise RuntimeError(f"only {found['answered']} of {asked} questions had an answer")
    return found


def _sensor(name: str) -> Ed25519Signer:
    return Ed25519Signer.from_seed(name.encode().ljust(32, b"."))


def _registry(ctx: Context) -> Service:
    """Stands in for identity: knows every sensor."""

    class Registry(IdentityServiceServicer):
        async def GetDevice(self, request: identity.GetDeviceRequest, context: Any) -> identity.GetDeviceResponse:
            key = identity.DeviceKey(
                public_key=_sensor(request.device).public_key, algorithm="EdDSA", from_sequence=1, transaction="0" * 64
            )
            return identity.GetDeviceResponse(device=identity.Device(id=request.device, keys=[key]))

    served = Registry()  # type: ignore[abstract]  # the other RPCs answer "unimplemented"
    servicer = Servicer(add_IdentityServiceServicer_to_server, served, "city.identity.v1.IdentityService")
    return Service(ctx.name, servicers=(servicer,))


def _forecasts(ctx: Context) -> Service:
    """Stands in for forecasting: expects 150 cars in every lot, and 140 to 160 in four cases of five."""

    class Forecasts(ForecastingServiceServicer):
        async def Forecast(
            self, request: forecasting.ForecastRequest, context: Any
        ) -> AsyncIterator[forecasting.ForecastResponse]:
            bands = [forecasting.Band(level=80, low_milli=140_000, high_milli=160_000)]
            points = [
                forecasting.Point(time=Timestamp(seconds=NOW + n * 1_800), value_milli=150_000, bands=bands)
                for n in range(request.horizon)
            ]
            for series in request.series:
                yield forecasting.ForecastResponse(series=series, points=points, model="model")

    served = Forecasts()  # type: ignore[abstract]  # the other RPCs answer "unimplemented"
    servicer = Servicer(add_ForecastingServiceServicer_to_server, served, "city.forecasting.v1.ForecastingService")
    return Service(ctx.name, servicers=(servicer,))


async def _prepare_lots(process: Process) -> None:
    stub: Any = ParkingServiceStub(process.dial("bench", "parking"))
    text = canonical.encode(tariff()).decode()
    await stub.PublishTariff(pb.PublishTariffRequest(request_id="tariff", tariff_json=text))
    dice = random.Random(2)  # noqa: S311 - a load, reproducible
    places = [
        (CENTRE[0] + dice.randrange(-40_000, 40_000), CENTRE[1] + dice.randrange(-60_000, 60_000))
        for _ in range(LOTS_ASKED)
    ]
    lots = [
        pb.Lot(
            id=f"lot-{n}", name=f"Lot {n}", capacity=200, latitude_e7=north, longitude_e7=east, tariff="bays", sensors=[f"s-{n}"],
            bays=[f"bay-{b}" for b in range(20)], lock=f"lock-{n}",
        )
        for n, (north, east) in enumerate(places)
    ]  # fmt: skip
    await stub.RegisterLots(pb.RegisterLotsRequest(request_id="lots", lots=lots))
    await stub.AddCityEvents(pb.AddCityEventsRequest(request_id="events", events=[
        pb.CityEvent(
            id=f"event-{n}", name=f"Event {n}", latitude_e7=places[n][0], longitude_e7=places[n][1], cars=300,
            from_time=Timestamp(seconds=NOW), to_time=Timestamp(seconds=NOW + 7_200),
        )
        for n in range(EVENTS)
    ]))  # fmt: skip
    await _count(process, dice)
    while not (await stub.ListLots(pb.ListLotsRequest(page_size=1))).lots[0].expected:
        await asyncio.sleep(0.1)


async def _count(process: Process, dice: random.Random) -> None:
    """Every sensor counts once."""
    anyone: Any = ParkingServiceStub(process.anonymous())
    call = anyone.Ingest()
    for first in range(0, LOTS_ASKED, 50):
        packages = [
            sign_package(
                _sensor(f"s-{n}"), f"s-{n}", 1, NO_PREVIOUS, [Reading(NOW, dice.randrange(100, 195))], OCCUPIED
            )
            for n in range(first, first + 50)
        ]
        await call.write(pb.IngestRequest(packages=packages))
        results = (await call.read()).results
        if any(result.outcome != pb.PackageResult.OUTCOME_ACCEPTED for result in results):
            raise RuntimeError(f"a count was refused: {results}")
    await call.done_writing()


async def _ask(socket: str, asked: int) -> None:
    """The other process."""
    dice = random.Random(3)  # noqa: S311 - a load, reproducible
    channel = grpc.aio.insecure_channel(socket)
    stub: Any = ParkingServiceStub(channel)
    seconds, answered = [], 0
    for number in range(-100, asked):
        request = pb.AdviseRequest(
            latitude_e7=CENTRE[0] + dice.randrange(-5_000, 5_000), longitude_e7=CENTRE[1] + dice.randrange(-5_000, 5_000),
            arrival_time=Timestamp(seconds=NOW + dice.randrange(600, 36_000)), stay_minutes=dice.choice([30, 120, 480]),
        )  # fmt: skip
        begun = time.perf_counter()
        answer = await stub.Advise(request)
        if number >= 0:
            seconds.append(time.perf_counter() - begun)
            answered += len(answer.advice) > 0
    await channel.close(None)
    times = sorted(seconds)
    p50, p99 = (round(1_000 * times[len(times) * share // 100], 1) for share in (50, 99))
    print(json.dumps({"answered": answered, "p50_ms": p50, "p99_ms": p99}))


def _figure(name: str, value: float, floor: int, aim: int, how: str) -> Figure:
    return {"name": name, "value": value, "unit": "ms", "floor": floor, "aim": aim, "how": how}


if __name__ == "__main__":
    if sys.argv[1:2] == ["advice"]:
        run_to_end(_ask(sys.argv[2], int(sys.argv[3])))
    elif len(sys.argv) > 1:
        run_to_end(_client(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])))
    else:
        for bench in BENCHES:
            print(json.dumps(bench()))
