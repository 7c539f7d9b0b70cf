"""Runs the demo: start, set up, ingest the past, bill it, check the bill offline, then replay live. Called by `city run`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import uvicorn

from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from citykit.clock import ReplayClock
from citykit.errors import EnvironmentFault, Unavailable
from citykit.ids import system_randomness
from citykit.ledger.port import Ledger
from citykit.run import Process, running
from citykit.settings import CitySettings
from services.commands.progress import Bars
from services.demo.bootstrap import CONTRACT_START, Bootstrap
from services.demo.place import Place, read_place, write_place
from services.demo.starting import StartingGate
from services.demo.summary import Summary
from services.gateway.app.calls import LONG_DEADLINE_S, Calls
from services.gateway.app.demo import DemoSessions
from services.gateway.main import DEMO_LOGINS as LOGINS
from services.registry import builders
from services.world import embedded_world
from simulation.driver import Driver
from simulation.neighbourhood import Neighbourhood

ZONE = ZoneInfo("Europe/London")
CONTRACTS_FROM = datetime(2016, 10, 4, tzinfo=ZONE)
LIVE_FROM = datetime(2016, 11, 8, tzinfo=ZONE)
RESIDENT = "resident:ada"
GRACE_S = 3 * 86_400
"""How long after a month's end its bills are made: late readings still count."""
_LOOPBACK = "127.0.0.1"
_SAVE_EVERY_S = 2.0
_ANCHOR_WAIT_S = 60.0
_POLL_S = 0.05
_VERIFY_S = 60.0
_ANSWER_S = 30.0


@dataclass(frozen=True)
class Options:
    """What `city run` was told.

    Attributes:
        for_s: seconds of live replay after which the city stops; None: until Ctrl-C.
        speed: city seconds per second.
    """

    for_s: float | None
    speed: float
    seed: int
    port: int
    state: Path
    faults: tuple[str, ...]
    settings: CitySettings
    neighbourhood: Neighbourhood


class DemoCity:
    """One run."""

    def __init__(self, options: Options, bars: Bars, summary: Summary) -> None:
        self._options = options
        self._bars = bars
        self._summary = summary
        self._place = read_place(options.state, Place(CONTRACTS_FROM.timestamp(), options.seed))
        self._clock = ReplayClock(self._place.city_time)

    async def run(self, stopping: asyncio.Event) -> None:
        """Returns when `stopping` is set or the live replay's time is over; everything is drained then."""
        options = self._options
        async with embedded_world(options.state, options.settings, self._clock, system_randomness) as world:
            await self._not_before_the_ledger(world.ledger)
            driver = Driver(options.neighbourhood, self._clock, faults=options.faults)
            builds = {**builders(), "simulation": driver.build}
            async with running(world, builds) as process:
                gateway = process.services["gateway"]
                gate = StartingGate(gateway.http, self._summary.dashboard_seen)
                async with serving(gate, options.port, gateway.stop), self._counting(process, driver):
                    await self._until(stopping, self._start(process, driver, gate))
                    await self._until(stopping, self._live(process, driver))

    async def _not_before_the_ledger(self, ledger: Ledger) -> None:
        """City time never goes back: a killed city goes on no earlier than its newest block says."""
        height = await ledger.height()
        if height:
            newest = (await ledger.block(height - 1))["header"]["time"]
            self._clock.advance_to(datetime.fromisoformat(newest).timestamp())
            self._place = self._place.at(self._clock.now())

    async def _until(self, stopping: asyncio.Event, work: Coroutine[None, None, None]) -> None:
        """Runs `work` unless and until stopped."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _start(self, process: Process, driver: Driver, gate: StartingGate) -> None:
        def report(what: str, done: int, total: int) -> None:
            gate.progress = f"{what}: {done} of {total}"
            self._bars.report(what, done, total)

        if not self._place.set_up:
            await Bootstrap(
                partial(process.dial, "demo"), self._options.neighbourhood, self._options.state / LOGINS
            ).run()
            self._place = replace(self._place, set_up=True)
        past = max(self._place.city_time, LIVE_FROM.timestamp())
        await driver.backfill(process.anonymous(), CONTRACTS_FROM.timestamp(), past, report)
        self._clock.advance_to(past)
        await self._bill(process, report)
        gate.ready = True
        await asyncio.to_thread(_require_answer, f"http://{_LOOPBACK}:{self._options.port}/")
        self._bars.say(f"The city's dashboard: http://127.0.0.1:{self._options.port}/")

    async def _bill(self, process: Process, report: Callable[[str, int, int], None]) -> None:
        """Closes every month that has ended, and checks ada's newest bill with the offline verifier."""
        calls = Calls(partial(process.dial, "demo"))
        for start, end in closed_periods(self._clock.now()):
            report(f"bills {start} to {end}", 0, 1)
            request = metering.RunBillingRequest(
                request_id=f"demo-billing-{start}", from_date=start.isoformat(), to_date=end.isoformat()
            )
            answer = await calls.ask("metering", "RunBilling", request, timeout_s=LONG_DEADLINE_S)
            if answer.run not in self._place.runs:
                self._place.runs.append(answer.run)
                self._summary.bills += answer.bills
            report(f"bills {start} to {end}", 1, 1)
        await self._artefacts(process)

    async def _artefacts(self, process: Process) -> None:
        """Writes trust.json and the bundles of ada's bills to out/, and checks each with the verifier."""
        out = self._options.state / "out"
        (out / "bundles").mkdir(parents=True, exist_ok=True)
        calls = Calls(partial(process.dial, "gateway"))
        trust = await calls.ask("notary", "GetTrust", notary.GetTrustRequest())
        (out / "trust.json").write_text(trust.json + "\n", encoding="utf-8")
        sessions = DemoSessions(self._options.state / LOGINS, calls, system_randomness)
        token = (await sessions.open(RESIDENT)).access_token
        for bill in (await calls.ask("metering", "ListBills", metering.ListBillsRequest(page_size=500), token)).bills:
            path = out / "bundles" / f"{bill.id}.json"
            if not path.exists():
                path.write_bytes(await self._bundle(calls, token, bill.id))
                await self._check(path, out / "trust.json")

    async def _bundle(self, calls: Calls, token: str, bill: str) -> bytes:
        """The bundle, once the bill is anchored."""
        for _ in range(int(_ANCHOR_WAIT_S / _POLL_S)):
            found = await calls.ask("metering", "GetBill", metering.GetBillRequest(bill=bill), token)
            if found.bill.provable:
                request = metering.GetBillBundleRequest(bill=bill)
                return bytes((await calls.ask("metering", "GetBillBundle", request, token)).bundle_json)
            await asyncio.sleep(_POLL_S)
        raise Unavailable(
            f"the bill {bill} was not anchored within {_ANCHOR_WAIT_S:.0f} s; `city log list` shows the anchors"
        )

    async def _check(self, bundle: Path, trust: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "verifier", str(bundle), "--trust", str(trust),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), _VERIFY_S)
        self._summary.proofs_checked += 1
        if process.returncode:
            self._summary.proofs_failed += 1
            self._bars.say(output.decode(errors="replace"))

    async def _live(self, process: Process, driver: Driver) -> None:
        self._clock.run(self._options.speed)
        replay = asyncio.create_task(driver.live(process.anonymous()))
        billing = asyncio.create_task(self._bill_as_months_end(process))
        try:
            done, _ = await asyncio.wait(
                {replay, billing}, timeout=self._options.for_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in (replay, billing):
                task.cancel()
            await asyncio.gather(replay, billing, return_exceptions=True)

    async def _bill_as_months_end(self, process: Process) -> None:
        while True:
            await self._clock.sleep_until(next_close(self._clock.now()))
            await self._bill(process, lambda what, done, total: None)

    @contextlib.asynccontextmanager
    async def _counting(self, process: Process, driver: Driver) -> AsyncIterator[None]:
        """Keeps the place of the replay on disk and, at the end, the run's counts."""
        calls = Calls(partial(process.dial, "demo"))
        before = await _anchored(calls)

        async def keep() -> None:
            while True:
                write_place(self._options.state, self._place.at(self._clock.now()))
                await asyncio.sleep(_SAVE_EVERY_S)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            write_place(self._options.state, self._place.at(self._clock.now()))
            counts = driver.counts
            self._summary.packages, self._summary.readings = counts.packages, counts.readings
            self._summary.rejected, self._summary.quarantined = counts.rejected, counts.quarantined
            self._summary.anchored_entries = await _anchored(calls) - before


def closed_periods(now: float) -> list[tuple[date, date]]:
    """The months of the demo's contracts (4th to 3rd) that have ended, with a few days for late readings."""
    periods: list[tuple[date, date]] = []
    start = date.fromisoformat(CONTRACT_START)
    while True:
        end = _next_month(start)
        if _close_of(end) > now:
            return periods
        periods.append((start, end))
        start = end


def next_close(now: float) -> float:
    """When the running month ends."""
    periods = closed_periods(now)
    end = _next_month(periods[-1][1] if periods else date.fromisoformat(CONTRACT_START))
    return _close_of(end)


def _close_of(end: date) -> float:
    return datetime(end.year, end.month, end.day, tzinfo=ZONE).timestamp() + GRACE_S


def _next_month(day: date) -> date:
    return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)


async def _anchored(calls: Calls) -> int:
    heads = await calls.ask("notary", "ListLogs", notary.ListLogsRequest())
    return sum(head.anchored_size for head in heads.heads)


@contextlib.asynccontextmanager
async def serving(
    application: Callable[..., Any], port: int, closing: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Serves HTTP on the loopback address.

    Args:
        closing: called before the server drains, to end streams that would never end.

    Raises:
        EnvironmentFault: the port is taken.
    """
    listening = _listen(port)
    config = uvicorn.Config(
        application,
        host=_LOOPBACK,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve(sockets=[listening]))
    try:
        yield
    finally:
        if closing is not None:
            await closing()
        server.should_exit = True
        await task
        listening.close()


def _require_answer(address: str) -> None:
    """The address is printed only once the dashboard has answered there.

    Raises:
        EnvironmentFault: it does not.
    """
    try:
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:  # noqa: S310 - our own address
            answer.read()
    except OSError as error:
        raise EnvironmentFault(f"the dashboard at {address} does not answer ({error}); look into the log") from error


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_LOOPBACK, port))
    except OSError as error:
        listening.close()
        raise EnvironmentFault(f"port {port} cannot be used ({error.strerror}); name another with --port") from None
    return listening
