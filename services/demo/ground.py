"""What a demo stands on: everything in this process (`embedded`), or one process a service on the real parts (`real`). Used by `city.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from citykit.clock import ReplayClock
from citykit.ids import system_randomness
from citykit.run import Process, running
from citykit.settings import CitySettings, as_environment
from infra.native import Program
from infra.supervisor import Supervisor
from services.registry import SERVICES, builders
from services.serving import LOOPBACK, serving
from services.starting import StartingGate, Told
from services.world import embedded_world, real_world
from simulation.driver import Driver

EMBEDDED = "embedded: one process, one operator"
_READY_S = 180.0
_PROBE_S = 2.0
_LOOK_S = 0.5
_DRAIN_S = 30.0
_OK = 200


@dataclass(frozen=True)
class Ground:
    """A running city.

    Attributes:
        process: the way to its services; the demo's own process.
        say_progress: how far the start is, for whoever opens the dashboard; None: the city is there.
        watch: runs as long as the city does; raises EnvironmentFault where a process of it cannot be kept running.
    """

    process: Process
    say_progress: Callable[[str | None], None]
    watch: Callable[[], Coroutine[None, None, None]]


@dataclass(frozen=True)
class RealParts:
    """Where `make up` put things.

    Attributes:
        name: what the parts are, in a line.
        metrics: port of each process's /metrics and /readyz.
    """

    name: str
    metrics: dict[str, int]


@contextlib.asynccontextmanager
async def embedded(
    state: Path, settings: CitySettings, clock: ReplayClock, driver: Driver, port: int, seen: Callable[[], None]
) -> AsyncIterator[Ground]:
    """All services here; the dashboard on `port` of the loopback address."""
    async with (
        embedded_world(state, settings, clock, system_randomness) as world,
        running(world, {**builders(), "simulation": driver.build}) as process,
    ):
        gateway, told = process.services["gateway"], Told()
        async with serving(StartingGate(gateway.http, told.progress, seen), port, gateway.stop):
            yield Ground(process, told.say, _for_ever)


@contextlib.asynccontextmanager
async def real(
    state: Path, settings: CitySettings, clock: ReplayClock, driver: Driver, port: int, parts: RealParts,
    say: Callable[[str], None],
) -> AsyncIterator[Ground]:  # fmt: skip
    """A process for each service, started again when it dies; here runs the demo's control alone."""
    chosen = replace(settings, gateway=replace(settings.gateway, listen=f"{LOOPBACK}:{port}"))
    own = replace(chosen, observability=replace(chosen.observability, port=parts.metrics["simulation"]))
    file = _write_settings(state / "city.env", chosen)
    supervisor = Supervisor(state / "logs", say)
    async with (
        real_world(state, own, clock, system_randomness, "simulation") as world,
        running(world, {"simulation": driver.build}) as process,
    ):
        programs = [_program(name, state, file, parts.metrics[name]) for name in SERVICES]
        await asyncio.to_thread(supervisor.start, programs)
        try:
            yield Ground(process, partial(_tell, driver), partial(_watch, supervisor))
        finally:
            await asyncio.to_thread(supervisor.stop)


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _watch(supervisor: Supervisor) -> None:
    while supervisor.fault is None:
        await asyncio.sleep(_LOOK_S)
    raise supervisor.fault


def _tell(driver: Driver, progress: str | None) -> None:
    """The gateway's process asks the driver's phase."""
    if progress is None:
        driver.phase = "live"


def _program(name: str, state: Path, settings: Path, metrics: int) -> Program:
    argv = [
        sys.executable, "-m", "services", "serve", name,
        "--state", str(state), "--settings", str(settings), "--with-parent",
    ]  # fmt: skip
    environment = {"CITY_OBSERVABILITY_PORT": str(metrics)}
    return Program(name, argv, partial(_is_ready, metrics), env=environment, ready_s=_READY_S, stop_s=_DRAIN_S)


def _is_ready(port: int) -> bool:
    """What the process itself says: its parts answer, and it serves."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=_PROBE_S) as answer:
        return bool(answer.status == _OK)


def _write_settings(path: Path, settings: CitySettings) -> Path:
    """The demo's settings, for the services' processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in as_environment(settings).items())
    unfinished.replace(path)
    return path.resolve()
