"""`city serve SERVICE`: one service in a process of its own, on Kafka, PostgreSQL and a Fabric channel; or a ledger's own parts.

`city run --backbone real` starts one for each service; a cluster runs the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from citykit import telemetry
from citykit.clock import Clock, RealClock
from citykit.errors import SettingsError
from citykit.ids import system_randomness
from citykit.loop import run_to_end
from citykit.run import Process, keep_out_of_collections, running
from citykit.settings import CitySettings, read_settings, settings_file
from citykit.shared_clock import FollowedClock
from services.registry import SERVICES, builders
from services.serving import serving
from services.starting import Arrival, StartingGate
from services.world import CLOCK, real_world

DEFAULT_LISTEN = "127.0.0.1:8080"
_PARENT_S = 0.5


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="one service in a process of its own")
    parts = parser.add_subparsers(dest="service", metavar="SERVICE", required=True, parser_class=_LateParser)
    for name in SERVICES:
        one = parts.add_parser(name, help=f"the service {name}")
        one.add_argument("--state", type=Path, default=Path(".city/real/city"), help="for files that are not rows")
        one.add_argument(
            "--settings", type=Path, metavar="FILE", help="CITY_* variables, one a line, below the environment's"
        )
        one.add_argument("--with-parent", action="store_true", help="stop when the process that started it ends")
        one.set_defaults(run=run)
    parts.add_parser("chaincode", help="the contracts as chaincode, for an organisation's peers").fill = _chaincode
    parts.add_parser("ledger", help="the development peer: not Fabric, one operator, for trials").fill = _ledger


class _LateParser(argparse.ArgumentParser):
    """Filled when it is used: no service's process loads what only the ledger's parts need."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)


def _chaincode(parser: argparse.ArgumentParser) -> None:
    from services.commands import chaincode  # noqa: PLC0415 - see _LateParser

    chaincode.add_arguments(parser)
    parser.set_defaults(run=chaincode.run_chaincode)


def _ledger(parser: argparse.ArgumentParser) -> None:
    from services.commands import devpeer  # noqa: PLC0415 - see _LateParser

    devpeer.add_arguments(parser)
    parser.set_defaults(run=lambda arguments: devpeer.serve_ledger(arguments, read_settings(os.environ)))


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C, then drains: calls end, outboxes empty, batches in hand are finished.

    Raises:
        SettingsError, EnvironmentFault: what is missing or wrong, and what to do.
    """
    settings = settings_of(arguments.settings)
    telemetry.configure(settings.telemetry, arguments.service, ids=True)
    run_to_end(_run(arguments, settings))
    return 0


def settings_of(file: Path | None) -> CitySettings:
    """The environment's settings over those in the file."""
    kept = settings_file(file) if file else {}
    return read_settings({**kept, **os.environ})


async def _run(arguments: argparse.Namespace, settings: CitySettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    watching = asyncio.create_task(_watch_parent(stopping)) if arguments.with_parent else None
    clock = clock_of(settings, arguments.state)
    name = arguments.service
    async with (
        real_world(arguments.state, settings, clock, system_randomness, name) as world,
        running(world, builders([name])) as process,
        _edge(process, settings),
    ):
        keep_out_of_collections()
        telemetry.logger(name).info("serves")
        await stopping.wait()
    if watching is not None:
        watching.cancel()


def clock_of(settings: CitySettings, state: Path) -> Clock:
    """In a demo the clock that the demo keeps, else the machine's."""
    return FollowedClock(state / CLOCK) if settings.general.mode == "demo" else RealClock()


@contextlib.asynccontextmanager
async def _edge(process: Process, settings: CitySettings) -> AsyncIterator[None]:
    """The service's HTTP application, where it has one."""
    found = next((service for service in process.services.values() if service.http is not None), None)
    if found is None:
        yield
        return
    host, port = read_listen(settings.gateway.listen or DEFAULT_LISTEN)
    application = found.http
    if settings.general.mode == "demo":
        arrival = Arrival(lambda service: process.dial(found.name, service))
        application = StartingGate(application, arrival.progress)
    async with serving(application, port, found.stop, host=host):
        yield


def read_listen(text: str) -> tuple[str, int]:
    """`host:port`.

    Raises:
        SettingsError: of another form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"CITY_GATEWAY_LISTEN must be host:port, not {text!r}", field="CITY_GATEWAY_LISTEN")
    return host, int(port)


async def _watch_parent(stopping: asyncio.Event) -> None:
    """A service started by `city run` does not outlive it, however it ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_S)
    stopping.set()
