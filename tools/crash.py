"""`make crash N=25`: kills the city with SIGKILL at random moments under load and checks what it kept.

`python -m tools.crash N [--seed S] [--state DIR]`. Devices, residents and a payee of its own send packages, reserve, park and transfer at the
running city and remember every answer. After each kill: every acknowledged package, reservation and transfer is stored once and as it was
told, no bay was promised twice, all accounts sum to zero, every stored fact is in its log or on the way there, no entry
stands twice in a log, no bill or run twice, and ledger and logs verify. At the end the running city brings all that was acknowledged into
the logs and anchors it, and stops clean. Exit codes: 0 all held, 1 something did not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import grpc.aio

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.simulation.v1 import simulation_service_pb2 as simulation
from city.simulation.v1.simulation_service_pb2_grpc import SimulationServiceStub
from citykit.access import ServiceTokens, bearer_client_interceptors
from citykit.keys import ROOT_BYTES, service_token_seed
from citykit.package import Ed25519Signer, Reading, package_hash, sign_package
from citykit.state import socket_path
from simulation.calendar import SLOT_S
from simulation.neighbourhood import Neighbourhood
from tools.crash_checks import Acknowledged, settled, violations
from tools.crash_parking import ParkingLoad

SEED = 7
SPEEDS = (50_000, 500, 500)
"""City seconds a second: months pass in some runs; in the others a hold lives long enough to be confirmed."""
DEVICES = 20
_EARLY = 0.3
"""Share of kills counted from the start of the process, to hit recovery; the others are counted from the first live replay."""
_EARLY_AFTER_S, _LIVE_AFTER_S, _LIVE_WAIT_S = (0.3, 5.0), (0.05, 3.0), 60.0
_CALL_S = 20.0
_SETTLE_S = 180.0
_PACKAGE_MAX = 48


@dataclass
class Client:
    """A device of ours: its chain, the package that waits for its ACK, and what was acknowledged."""

    name: str
    signer: Ed25519Signer
    next_slot: int = 0
    sequence: int = 0
    previous: bytes = bytes(32)
    waiting: bytes = b""
    acknowledged: dict[int, bytes] = field(default_factory=dict)

    def package(self, now: int) -> bytes:
        """The package that waits, or the next one if a slot has ended; empty otherwise."""
        if not self.waiting and self.next_slot and self.next_slot + SLOT_S <= now:
            end = min(now - SLOT_S, self.next_slot + (_PACKAGE_MAX - 1) * SLOT_S)
            readings = [
                Reading(slot, 100 + slot // SLOT_S * 37 % 400) for slot in range(self.next_slot, end + 1, SLOT_S)
            ]
            self.waiting = sign_package(self.signer, self.name, self.sequence + 1, self.previous, readings)
            self.next_slot = readings[-1].time + SLOT_S
        return self.waiting

    def acknowledge(self) -> None:
        self.sequence += 1
        self.previous = package_hash(self.waiting)
        self.acknowledged[self.sequence] = self.previous
        self.waiting = b""


Dial = Callable[[str], grpc.aio.Channel]


class Load:
    """Sends packages of our devices to whatever city runs.

    Args:
        folder: of the tool itself.
        dial: reaches the city's services as `crash`; gives None before that is possible.
    """

    def __init__(self, folder: Path, dial: Callable[[], Dial | None]) -> None:
        self._dial = dial
        self._neighbourhood = Neighbourhood(SEED, None, meters=1)
        self.parking = ParkingLoad(folder, SEED, self._neighbourhood)
        seeds = [sha256(f"city.crash.{number}".encode()).digest() for number in range(DEVICES)]
        self.clients = [
            Client(f"crash-{number:03d}", Ed25519Signer.from_seed(seed)) for number, seed in enumerate(seeds)
        ]
        self.refused: dict[str, int] = {}
        self.live = asyncio.Event()

    def acknowledged(self) -> Acknowledged:
        return Acknowledged({client.name: client.acknowledged for client in self.clients}, self.parking.promises)

    async def run(self) -> None:
        """Goes on until cancelled; every failure of a call is a city that is away."""
        self.live.clear()
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, OSError):
                await self._session()
            await asyncio.sleep(0.1)

    async def park(self) -> None:
        """Residents and transfers, from the first start on until cancelled."""
        while (dial := self._dial()) is None:
            await asyncio.sleep(0.1)
        await self.parking.run(dial)

    async def _session(self) -> None:
        dial = self._dial()
        if dial is None:
            return
        async with dial("identity") as people, dial("metering") as meters, dial("simulation") as replay:
            if not all(client.next_slot for client in self.clients):
                await self._register(people, meters)
            while True:
                answer = await SimulationServiceStub(replay).GetReplay(simulation.GetReplayRequest(), timeout=_CALL_S)
                if answer.phase == "live":
                    self.live.set()
                if not await self._send(meters, answer.city_time.seconds):
                    await asyncio.sleep(0.01)

    async def _register(self, people: grpc.aio.Channel, meters: grpc.aio.Channel) -> None:
        vouchers = [self._neighbourhood.vouch(client.name, client.signer) for client in self.clients]
        request = identity.RegisterDevicesRequest(
            request_id="crash-devices",
            vouchers=[
                identity.Voucher(document=v.document, signature=v.signature, manufacturer=v.manufacturer)
                for v in vouchers
            ],
        )
        registered = await IdentityServiceStub(people).RegisterDevices(request, timeout=_CALL_S)
        points = [
            metering.MeterPoint(id=f"mp-{c.name}", device=c.name, max_slot_wh=11_500, zone="Europe/London")
            for c in self.clients
        ]
        await MeteringServiceStub(meters).RegisterMeterPoints(
            metering.RegisterMeterPointsRequest(request_id="crash-meter-points", meter_points=points), timeout=_CALL_S
        )
        for client, device in zip(self.clients, registered.devices, strict=True):
            client.next_slot = -(-device.registered_at.seconds // SLOT_S) * SLOT_S

    async def _send(self, meters: grpc.aio.Channel, now: int) -> bool:
        ready = [client for client in self.clients if client.package(now)]
        if not ready:
            return False

        async def requests() -> object:
            yield metering.IngestRequest(packages=[client.waiting for client in ready])

        async for answer in MeteringServiceStub(meters).Ingest(requests(), timeout=_CALL_S):  # type: ignore[arg-type]
            for client, result in zip(ready, answer.results, strict=True):
                if result.outcome in (
                    metering.PackageResult.OUTCOME_ACCEPTED,
                    metering.PackageResult.OUTCOME_DUPLICATE,
                ):
                    client.acknowledge()
                else:
                    self.refused[result.reason] = self.refused.get(result.reason, 0) + 1
        return True


def embedded_dial(state: Path) -> Dial | None:
    """To the city that runs on a state directory; None before it has made its root key."""
    key = state / "keys" / "root"
    if not key.exists() or len(key.read_bytes()) != ROOT_BYTES:
        return None
    tokens = ServiceTokens(service_token_seed(key.read_bytes()), "crash")
    return partial(_channel, f"unix:{socket_path(state)}", tokens)


def _channel(address: str, tokens: ServiceTokens, service: str) -> grpc.aio.Channel:
    options = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50))
    return grpc.aio.insecure_channel(address, options=options, interceptors=bearer_client_interceptors(tokens, service))


# --- the city under test ------------------------------------------------------------------------------


def start(state: Path, log: Path, speed: int, faults: str = "replayed,reordered,missing") -> subprocess.Popen[bytes]:
    """A city in a process group of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "services", "run", "--synthetic", "--state", str(state), "--seed", str(SEED),
        "--speed", str(speed), "--port", str(port), *(("--faults", faults) if faults else ()),
    ]  # fmt: skip
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603 - our own program


def kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- the run ------------------------------------------------------------------------------------------


async def crash(count: int, seed: int, state: Path) -> list[str]:
    """Kills `count` times, then lets the city settle; returns what did not hold."""
    source = random.Random(seed)  # noqa: S311 - reproducible on purpose
    load = Load(state.parent, partial(embedded_dial, state))
    log = state.parent / "city.log"
    parking = asyncio.create_task(load.park())
    try:
        return await _kills(count, source, load, state, log) or await _settle(state, load, log, parking)
    finally:
        await _end(parking)


async def _kills(count: int, source: random.Random, load: Load, state: Path, log: Path) -> list[str]:
    for number in range(count):
        process = start(state, log, source.choice(SPEEDS))
        sending = asyncio.create_task(load.run())
        when = await _moment(process, load, source)
        early = process.poll()
        kill(process)
        await _end(sending)
        found = [f"the city ended by itself with {early}"] if early is not None else []
        found += violations(state, load.acknowledged(), proven=False)
        acknowledged = sum(len(client.acknowledged) for client in load.clients)
        print(
            f"kill {number + 1:>3}/{count} {when}: {acknowledged} packages, {load.parking.promises} acknowledged, {len(found)} violations",
            flush=True,
        )
        if found:
            return found
    return []


async def _settle(state: Path, load: Load, log: Path, parking: asyncio.Task[None]) -> list[str]:
    """A last run without faults until everything stored is in the logs and anchored, then a clean stop."""
    process = start(state, log, SPEEDS[-1], faults="")
    sending = asyncio.create_task(load.run())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LIVE_WAIT_S):
            await load.live.wait()
    await _watch(process, 3.0)
    await _end(sending)
    await _end(parking)
    if not await settled(state, _SETTLE_S):
        kill(process)
        return [
            f"what was acknowledged did not come into the logs and anchors within {_SETTLE_S:.0f} s of a running city"
        ]
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.to_thread(process.wait, _SETTLE_S)
    except subprocess.TimeoutExpired:
        kill(process)
        return [f"the city did not stop within {_SETTLE_S:.0f} s of Ctrl-C"]
    if process.returncode != 0:
        return [f"the city ended with exit code {process.returncode} after Ctrl-C"]
    if not any(client.acknowledged for client in load.clients):
        return [f"no package was ever acknowledged ({load.refused}); nothing was tested"]
    promises = load.parking.promises
    if not promises.transfers or not {"confirmed", "active", "ended"} & set(promises.reached.values()):
        return [f"too little was acknowledged of {promises} ({dict(promises.refused)}); nothing was tested"]
    return list(violations(state, load.acknowledged(), proven=True))


async def _moment(process: subprocess.Popen[bytes], load: Load, source: random.Random) -> str:
    """Waits for the moment of a kill and says which it was."""
    if source.random() < _EARLY:
        after_s = source.uniform(*_EARLY_AFTER_S)
        await _watch(process, after_s)
        return f"{after_s:4.1f} s after start"
    after_s = source.uniform(*_LIVE_AFTER_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LIVE_WAIT_S):
            await load.live.wait()
    await _watch(process, after_s)
    return f"{after_s:4.1f} s after live "


async def _watch(process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        await asyncio.sleep(0.02)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--state", type=Path, help="where the city lives; a temporary directory otherwise")
    arguments = parser.parse_args(argv)
    folder = arguments.state or Path(tempfile.mkdtemp(prefix="city-crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"crash: {arguments.count} kills, seed {arguments.seed}, in {folder}", flush=True)
    began = time.monotonic()
    found = asyncio.run(crash(arguments.count, arguments.seed, folder / "state"))
    return verdict(found, arguments, folder, began)


def verdict(found: Sequence[str], arguments: argparse.Namespace, folder: Path, began: float) -> int:
    """Prints what a run ended with and returns its exit code; a folder of our own goes where nothing was found."""
    for violation in found:
        print(f"VIOLATION {violation}")
    if found:
        print(f"seed {arguments.seed}; the city's files and logs are kept in {folder}")
        return 1
    if arguments.state is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{arguments.count} kills in {time.monotonic() - began:.0f} s, seed {arguments.seed}: nothing acknowledged lost, nothing twice, all verifies"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
