"""Runs the demo: start, set up, ingest the past, bill it, check the bill offline, then replay live. Called by `city run`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc.aio

from city.metering.v1 import metering_service_pb2 as metering
from citykit import telemetry
from citykit.errors import OutcomeUnknown, Unavailable
from citykit.ids import system_randomness
from citykit.run import Process, keep_out_of_collections
from citykit.settings import CitySettings
from citykit.shared_clock import KeptClock
from services.commands.progress import Bars
from services.demo.artefacts import Artefacts
from services.demo.books import read_books
from services.demo.bootstrap import Bootstrap
from services.demo.forecasts import ForecastWatch
from services.demo.ground import EMBEDDED, Ground, RealParts, embedded, real
from services.demo.pace import Visitor
from services.demo.parking import PARKERS
from services.demo.periods import closed_periods, next_close
from services.demo.place import SET_UP, Place, read_place, write_place
from services.demo.provider import follow, sandbox
from services.demo.summary import Summary
from services.gateway.app.calls import LONG_DEADLINE_S, Calls
from services.gateway.main import DEMO_LOGINS as LOGINS
from services.serving import require_answer
from services.world import CLOCK
from simulation.barriers import Barriers
from simulation.car_parks import CarParks
from simulation.driver import Driver
from simulation.neighbourhood import RESIDENT, ZONE, Neighbourhood
from simulation.parkers import Parkers
from simulation.provider import SandboxProvider

T = TypeVar("T")
Channels = Callable[[str], grpc.aio.Channel]
CONTRACTS_FROM = datetime(2016, 10, 4, tzinfo=ZONE)
LIVE_FROM = datetime(2016, 11, 8, tzinfo=ZONE)
_SAVE_EVERY_S = 2.0
_TRIES, _RETRY_S = 60, 1.0


@dataclass(frozen=True)
class Options:
    """What `city run` was told.

    Attributes:
        for_s: seconds of live replay after which the city stops; None: until Ctrl-C.
        speed: city seconds per second.
        real: the real parts; None: everything in this process.
    """

    for_s: float | None
    speed: float
    seed: int
    port: int
    state: Path
    faults: tuple[str, ...]
    settings: CitySettings
    neighbourhood: Neighbourhood
    car_parks: CarParks
    real: RealParts | None = None


@dataclass(frozen=True)
class Parts:
    """What one run is made of."""

    process: Process
    driver: Driver
    barriers: Barriers
    artefacts: Artefacts
    forecasts: ForecastWatch
    visitor: Visitor
    provider: SandboxProvider


class DemoCity:
    """One run."""

    def __init__(self, options: Options, bars: Bars, summary: Summary) -> None:
        self._options = options
        self._bars = bars
        self._summary = summary
        summary.backbone = options.real.name if options.real else EMBEDDED
        self._place = read_place(options.state, Place(CONTRACTS_FROM.timestamp(), options.seed))
        self._clock = KeptClock(options.state / CLOCK, self._place.city_time)

    async def run(self, stopping: asyncio.Event) -> None:
        """Returns when `stopping` is set or the live replay's time is over; everything is drained then."""
        options = self._options
        driver = Driver(options.neighbourhood, options.car_parks, self._clock, faults=options.faults)
        async with (
            self._clock.keeping(),
            sandbox(options.state, options.seed, options.port, options.settings) as (provider, settings),
            self._ground(settings, driver) as ground,
        ):
            self._place = self._place.at(self._clock.now())
            parts = self._parts(ground.process, driver, provider)
            async with self._counting(parts):
                await self._until(stopping, self._start(parts, ground))
                await self._until(stopping, self._live(parts, ground))

    def _ground(self, settings: CitySettings, driver: Driver) -> contextlib.AbstractAsyncContextManager[Ground]:
        options, clock = self._options, self._clock
        if options.real is None:
            return embedded(options.state, settings, clock, driver, options.port, self._summary.dashboard_seen)
        return real(options.state, settings, clock, driver, options.port, options.real, self._bars.say)

    def _parts(self, process: Process, driver: Driver, provider: SandboxProvider) -> Parts:
        options = self._options
        artefacts = Artefacts(process, options.state, self._summary, self._bars.say)
        visitor = Visitor(artefacts.residents, RESIDENT, self._clock, options.speed)
        lifetime_s = options.settings.parking.lock_lifetime_s
        barriers = Barriers(
            options.car_parks, self._clock, driver.faults, options.state / "simulation", visitor.side, lifetime_s
        )
        return Parts(process, driver, barriers, artefacts, ForecastWatch(process, self._clock), visitor, provider)

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

    async def _start(self, parts: Parts, ground: Ground) -> None:
        def report(what: str, done: int, total: int) -> None:
            ground.say_progress(f"{what}: {done} of {total}")
            self._bars.report(what, done, total)

        await self._set_up(parts.process)
        past = max(self._place.city_time, LIVE_FROM.timestamp())
        await parts.driver.backfill(_devices(parts.process), CONTRACTS_FROM.timestamp(), past, report)
        self._clock.advance_to(past)
        parts.forecasts.begin()
        await self._bill(parts, report)
        keep_out_of_collections()
        ground.say_progress(None)
        address = await require_answer(self._options.port)
        self._summary.dashboard_seen()
        self._bars.say(f"The city's dashboard: {address}")

    async def _set_up(self, process: Process) -> None:
        if self._place.set_up < SET_UP:
            options = self._options
            dial = partial(process.dial, "demo")
            await Bootstrap(dial, options.neighbourhood, options.car_parks, options.state / LOGINS).run()
            self._place = replace(self._place, set_up=SET_UP)

    async def _bill(self, parts: Parts, report: Callable[[str, int, int], None]) -> None:
        """Closes every month that has ended, and checks ada's newest bill with the offline verifier."""
        calls = Calls(partial(parts.process.dial, "demo"))
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
        await parts.artefacts.bills()

    async def _live(self, parts: Parts, ground: Ground) -> None:
        """Lets time run and everybody act, until cancelled or for as long as was asked; the first failure ends it."""
        self._clock.run(self._options.speed)
        channels = _devices(parts.process)
        parkers = self._parkers(parts)
        works = (
            parts.driver.live(channels),
            parts.barriers.run(channels("parking")),
            parkers.run(),
            parts.visitor.run(),
            follow(parts.provider, parts.driver.faults),
            parts.forecasts.run(),
            self._bill_as_months_end(parts),
            ground.watch(),
        )
        finding = asyncio.create_task(parts.artefacts.parking(PARKERS, self._clock))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._options.for_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, finding):
                task.cancel()
            await asyncio.gather(*tasks, finding, return_exceptions=True)
            fields = {"visits": dict(parkers.did), "locks": dict(parts.barriers.did)}
            telemetry.logger("simulation").info("parked", extra={"fields": fields})

    def _parkers(self, parts: Parts) -> Parkers:
        locks = {lot.id: lot.lock for lot in self._options.car_parks.reservable}
        return Parkers(
            self._options.seed, PARKERS, parts.artefacts.residents, parts.barriers, locks, self._clock, system_randomness
        )  # fmt: skip

    async def _bill_as_months_end(self, parts: Parts) -> None:
        while True:
            await self._clock.sleep_until(next_close(self._clock.now()))
            await _patiently(lambda: self._bill(parts, lambda what, done, total: None))

    @contextlib.asynccontextmanager
    async def _counting(self, parts: Parts) -> AsyncIterator[None]:
        """Keeps the place of the replay on disk and, at the end, the run's counts."""
        calls = Calls(partial(parts.process.dial, "demo"))
        before = await read_books(calls)

        async def keep() -> None:
            while True:
                write_place(self._options.state, self._place.at(self._clock.now()))
                await asyncio.sleep(_SAVE_EVERY_S)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            await parts.forecasts.end()
            write_place(self._options.state, self._place.at(self._clock.now()))
            self._summary.count(parts.driver.counts, before, await _patiently(lambda: read_books(calls)))
            self._summary.forecast_mase = await parts.forecasts.mase()
            self._summary.coverage80 = await parts.forecasts.coverage80()


async def _patiently(act: Callable[[], Awaitable[T]]) -> T:
    """A service that was killed comes back; what is asked here is asked with the same request id."""
    for _ in range(_TRIES):
        try:
            return await act()
        except (Unavailable, OutcomeUnknown):
            await asyncio.sleep(_RETRY_S)
    return await act()


def _devices(process: Process) -> Channels:
    """Devices show no token. They come through the demo's connection where connections show a certificate."""
    return partial(process.anonymous, through="demo")
