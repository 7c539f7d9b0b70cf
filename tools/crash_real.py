"""`make crash N=25 BACKBONE=real`: kills any process of a city on the real parts, under load, and checks what it kept.

`python -m tools.crash_real N [--seed S] [--away SECONDS] [--state DIR]`. Kafka, PostgreSQL, a development peer, its chaincodes and a process for
each service run with mutual TLS; the devices, residents and the payee of `tools.crash` send to them. One process after the other is killed with
SIGKILL, sometimes two at once; their supervisors start them again. After each kill: the city acknowledges again within three minutes, and nothing
acknowledged is lost, another or doubled. Then the ledger is away for a minute, and facts go on. At the end everything stored comes into the logs
and anchors, the city stops clean, logs and ledger agree, and anchors follow each other.

Exit codes: 0 all held, 1 something did not, 3 the parts cannot be had here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.access import ServiceTokens, bearer_client_interceptors
from citykit.errors import CityError
from citykit.ids import system_randomness
from citykit.keys import read_root_key, service_token_seed
from citykit.ledger.channel import open_channel_ledger
from citykit.network import tls_network
from citykit.run import running
from citykit.settings import CitySettings, for_service, read_settings
from citykit.shared_clock import FollowedClock
from citykit.testing.polling import until
from infra.native import cache_folder, free_port
from infra.parts import Wanted, install
from infra.supervisor import Supervisor, processes
from infra.up import start
from services.registry import builders
from services.world import CLOCK, real_world
from tools.crash import SEED, Dial, Load, verdict
from tools.crash_checks import Acknowledged, kept_violations, unproven, violations

SPEED, HOMES, LOTS = 500, 20, 4
_LIVE_S, _BACK_S, _SETTLE_S, _STOP_S = 600.0, 180.0, 240.0, 120.0
_BETWEEN_S = (0.05, 3.0)
_AWAY_S = 60.0
_TWO = 0.25
"""Share of kills that hit two processes at once."""
_POLL_S = 0.1
_ENVIRONMENT = 3


@dataclass(frozen=True)
class City:
    """The city under test: its parts, and the demo that runs on them.

    Attributes:
        folder: everything of this run.
        settings: what leads to the parts.
    """

    folder: Path
    settings: CitySettings
    demo: subprocess.Popen[bytes]

    @property
    def state(self) -> Path:
        return self.folder / "real" / "city"

    def pids(self) -> dict[str, int]:
        """Every process that may be killed: services, brokers, database, peer, chaincodes. The demo plays the outside world."""
        return {**processes(self.folder / "real" / "logs"), **processes(self.state / "logs")}

    def dial(self) -> Dial:
        network = tls_network(self.settings.services)
        key = read_root_key(Path(self.settings.services.root_key_file))
        tokens = ServiceTokens(service_token_seed(key), "crash")

        def dial(service: str) -> grpc.aio.Channel:
            return network.channel("crash", service, bearer_client_interceptors(tokens, service))

        return dial


@contextlib.contextmanager
def city_on_parts(folder: Path) -> Iterator[City]:
    """Starts parts and city, and ends what is left of them."""
    wanted = Wanted((folder / "real").resolve(), cache_folder(), fast_start=True)
    install(wanted, _say)
    supervisor = Supervisor(wanted.state / "logs")
    settings = read_settings(start(wanted, supervisor, _say))
    command = [
        sys.executable, "-m", "services", "run", "--backbone", "real", "--up", str(wanted.state), "--synthetic",
        "--homes", str(HOMES), "--lots", str(LOTS),
        "--seed", str(SEED), "--speed", str(SPEED), "--port", str(free_port()),
    ]  # fmt: skip
    try:
        with (folder / "city.log").open("ab") as output:
            demo = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603 - our own
        try:
            yield City(folder, settings, demo)
        finally:
            if demo.poll() is None:
                demo.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    demo.wait(_STOP_S)
                demo.kill()
                demo.wait()
    finally:
        supervisor.stop()


def _say(line: str) -> None:
    print(line, flush=True)


async def crash(count: int, seed: int, city: City, away_s: float) -> list[str]:
    """Kills `count` times, takes the ledger away once, then lets the city settle and stop; returns what did not hold."""
    source = random.Random(seed)  # noqa: S311 - reproducible on purpose
    load = Load(city.folder, city.dial)
    works = [asyncio.create_task(load.run()), asyncio.create_task(load.park())]
    try:
        if not await _within(_LIVE_S, lambda: load.live.is_set() or city.demo.poll() is not None):
            return [f"the city did not go live within {_LIVE_S:.0f} s"]
        if city.demo.poll() is not None:
            return [f"the city ended by itself with {city.demo.returncode}; see {city.folder / 'city.log'}"]
        found = await _kills(count, source, load, city) or await _ledger_away(away_s, load, city)
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
    return found or await _settle(load, city)


async def _kills(count: int, source: random.Random, load: Load, city: City) -> list[str]:
    victims: Counter[str] = Counter()
    for number in range(count):
        await asyncio.sleep(source.uniform(*_BETWEEN_S))
        names = source.sample(sorted(city.pids()), 2 if source.random() < _TWO else 1)
        pids = city.pids()
        before = deepcopy(load.acknowledged())  # the load goes on while it is looked for
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pids[name], signal.SIGKILL)
        killed_at = time.monotonic()
        victims.update(names)
        found = await _back(load, city, names, pids)
        found += await asyncio.to_thread(_lost, city.state, before)
        packages = sum(len(client.acknowledged) for client in load.clients)
        _say(
            f"kill {number + 1:>3}/{count} {' and '.join(names)}: acknowledges again after {time.monotonic() - killed_at:.1f} s;"
            f" {packages} packages, {load.parking.promises} acknowledged, {len(found)} violations"
        )
        if found:
            return found
    _say(f"killed: {', '.join(f'{name} {times}' for name, times in sorted(victims.items()))}")
    return []


def _lost(state: Path, acknowledged: Acknowledged) -> list[str]:
    return list(kept_violations(state, acknowledged))


async def _back(load: Load, city: City, names: Sequence[str], before: dict[str, int]) -> list[str]:
    """Until what was killed runs again and everything is acknowledged again: packages, transfers, and each service answers."""

    def started_again() -> bool:
        now = city.pids()
        return all(now.get(name, before[name]) != before[name] for name in names)

    if not await _within(_BACK_S, started_again):
        return [f"{' and '.join(names)} was not started again within {_BACK_S:.0f} s"]
    since = _acknowledged(load)
    if not await _within(
        _BACK_S, lambda: all(now > then for now, then in zip(_acknowledged(load), since, strict=True))
    ):
        return [f"after {' and '.join(names)} was killed nothing was acknowledged for {_BACK_S:.0f} s"]
    if city.demo.poll() is not None:
        return [f"the demo ended by itself with {city.demo.returncode}; see {city.folder / 'city.log'}"]
    return []


async def _ledger_away(seconds: float, load: Load, city: City) -> list[str]:
    """The peer neither answers nor ends for so long: facts go on. That anchors catch up is seen when everything settles."""
    if not seconds:
        return []
    peer, before = city.pids()["ledger"], _acknowledged(load)
    os.kill(peer, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        during = _acknowledged(load)
    finally:
        os.kill(peer, signal.SIGCONT)
    _say(
        f"ledger away for {seconds:.0f} s: {during[0] - before[0]} packages and {during[1] - before[1]} transfers acknowledged"
    )
    if not all(now > then for now, then in zip(during, before, strict=True)):
        return [f"nothing was acknowledged in {seconds:.0f} s without a ledger"]
    return []


def _acknowledged(load: Load) -> tuple[int, int]:
    """Packages and transfers."""
    return sum(len(client.acknowledged) for client in load.clients), len(load.parking.promises.transfers)


async def _within(limit_s: float, condition: Any) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(_POLL_S)
    return True


# --- the end ------------------------------------------------------------------------------------------


async def _settle(load: Load, city: City) -> list[str]:
    """All that was acknowledged is proven while the city runs; then it stops clean, the notary takes in the rest, and all books agree."""
    if not any(load.acknowledged().packages.values()) or not load.parking.promises.transfers:
        return [
            f"too little was acknowledged ({load.refused}, {dict(load.parking.promises.refused)}); nothing was tested"
        ]
    end = time.monotonic() + _SETTLE_S
    while left := await asyncio.to_thread(lambda: list(unproven(city.state, load.acknowledged().packages))):
        if time.monotonic() > end:
            return [f"{left[0]}, {_SETTLE_S:.0f} s after the last kill"]
        await asyncio.sleep(1.0)
    city.demo.send_signal(signal.SIGINT)
    try:
        await asyncio.to_thread(city.demo.wait, _STOP_S)
    except subprocess.TimeoutExpired:
        return [f"the city did not stop within {_STOP_S:.0f} s of Ctrl-C"]
    if city.demo.returncode:
        return [f"the city ended with exit code {city.demo.returncode} after Ctrl-C; see {city.folder / 'city.log'}"]
    await _take_in_the_rest(city)
    blocks = await _blocks(city)
    found = list(violations(city.state, load.acknowledged(), proven=True, blocks=blocks))
    return found + list(anchor_violations(blocks))


async def _take_in_the_rest(city: City) -> None:
    """The notary alone, until it has read what the other services' stop left on the bus, and anchored it."""
    clock = FollowedClock(city.state / CLOCK)
    async with (
        real_world(city.state, city.settings, clock, system_randomness, "notary") as world,
        running(world, builders(["notary"])) as process,
    ):
        subscriptions = process.services["notary"].subscriptions

        async def everything_read() -> bool:
            return all([await world.bus.caught_up(one) for one in subscriptions])

        async def anchored() -> bool:
            stub = NotaryServiceStub(process.dial("notary", "notary"))
            heads = (await stub.ListLogs(notary.ListLogsRequest(), timeout=20)).heads
            return all(head.size == head.anchored_size for head in heads)

        await until(everything_read, "the notary has read everything", limit_s=_SETTLE_S)
        await until(anchored, "everything is anchored", limit_s=_SETTLE_S)


async def _blocks(city: City) -> list[Any]:
    settings = for_service(city.settings, "notary")
    ledger = await open_channel_ledger(settings.fabric)
    try:
        return [await ledger.block(number) for number in range(await ledger.height())]
    finally:
        await ledger.close()


def anchor_violations(blocks: Sequence[Any]) -> Iterator[str]:
    """Each log's anchors grow, and none stands twice."""
    newest: dict[str, int] = {}
    for block in blocks:
        for envelope in block["envelopes"]:
            transaction = envelope["transaction"]
            if envelope["code"] != "VALID" or transaction["contract"] != "anchors":
                continue
            for head in transaction["args"]["heads"]:
                if head["size"] <= newest.get(head["origin"], 0):
                    yield f"{head['origin']}: an anchor at {head['size']} follows one at {newest[head['origin']]}"
                newest[head["origin"]] = head["size"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make crash BACKBONE=real", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--away", type=float, default=_AWAY_S, help="seconds the ledger is away for, once; 0: never")
    parser.add_argument("--state", type=Path, help="where everything lives; a temporary directory otherwise")
    arguments = parser.parse_args(argv)
    folder = arguments.state or Path(tempfile.mkdtemp(prefix="city-crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"crash on the real parts: {arguments.count} kills, seed {arguments.seed}, in {folder}")
    began = time.monotonic()
    try:
        with city_on_parts(folder) as city:
            found = asyncio.run(crash(arguments.count, arguments.seed, city, arguments.away))
    except CityError as error:
        print(f"crash: {error.message}", file=sys.stderr)
        return _ENVIRONMENT
    return verdict(found, arguments, folder, began)


if __name__ == "__main__":
    sys.exit(main())
