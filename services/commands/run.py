"""`city run`: the whole city in one process, on open data, with its dashboard."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from citykit import telemetry
from citykit.errors import EnvironmentFault
from citykit.loop import run_to_end
from citykit.settings import CitySettings, read_settings, settings_file
from citykit.state import locked
from infra.supervisor import processes
from services.commands.progress import Bars, progress
from services.demo.city import DemoCity, Options
from services.demo.ground import RealParts
from services.demo.summary import Summary, memory_watch, write_summary
from services.registry import SERVICES
from simulation.car_parks import LOTS, load_car_parks
from simulation.faults import FAULTS
from simulation.neighbourhood import METERS, Neighbourhood, load_neighbourhood

UP = Path(".city/real")
"""Where `make up` puts things unless told otherwise."""
_SPEED_MAX = 100_000
_PORT_MAX = 65_535
_COUNT_MAX = 1_000
_LOCK_MACHINE_S, _LOCK_LIFETIME_MAX_S = 4.0, 3_600
"""An instruction to a lock lives this long on the machine's clock, within what the setting allows."""
_TRAINING_LOOK_S = 120.0
"""The first training is asked for once the past is there; looking sooner would train in the middle of it."""


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("run", help="the whole city in one process, on open data")
    parser.add_argument("--for", dest="for_s", type=seconds, metavar="90s", help="stop after this much live replay")
    parser.add_argument("--speed", type=speed, default=900.0, help="city seconds per second (default 900)")
    parser.add_argument("--seed", type=int, default=7, help="what the simulated homes are made from (default 7)")
    parser.add_argument("--port", type=port, default=8080, help="the dashboard's port on 127.0.0.1 (default 8080)")
    parser.add_argument(
        "--state", type=Path, help="where the city lives (default .city; on the real parts .city/real/city)"
    )
    parser.add_argument("--faults", type=faults, default=(), help=f"comma-separated: {', '.join(FAULTS)}")
    parser.add_argument("--summary", type=Path, metavar="FILE.json", help="write the run's counts at the end")
    parser.add_argument("--homes", type=count, default=METERS, help=f"metered homes (default {METERS})")
    parser.add_argument("--lots", type=count, default=LOTS, help=f"car parks, at most (default {LOTS})")
    parser.add_argument("--synthetic", action="store_true", help="no open data: a seeded synthetic city")
    parser.add_argument(
        "--backbone", choices=("embedded", "real"), default="embedded",
        help="real: Kafka, PostgreSQL and a ledger as `make up` started them, and a process for each service",
    )  # fmt: skip
    parser.add_argument("--up", type=Path, default=UP, metavar="DIR", help=f"where `make up` put them (default {UP})")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    real = None
    if arguments.backbone == "real":
        arguments.state = arguments.state or arguments.up / "city"
        real, settings = read_parts(arguments.up)
    else:
        arguments.state = arguments.state or Path(".city")
        settings = read_settings(os.environ)
    summary = Summary()
    with locked(arguments.state), progress() as bars:
        log_settings = settings.telemetry
        if "CITY_TELEMETRY_LOG_LEVEL" not in os.environ:
            log_settings = replace(log_settings, log_level="WARNING")
        telemetry.configure(log_settings, "city")
        try:
            run_to_end(_run(arguments, settings, real, bars, summary))
        finally:
            if arguments.summary:
                write_summary(summary, arguments.summary)
    return 0


def read_parts(up: Path) -> tuple[RealParts, CitySettings]:
    """The real parts that `make up` started in this folder, and the settings that lead there; the environment's go above.

    Raises:
        SettingsError: nothing was ever started there.
        EnvironmentFault: the parts do not run now.
    """
    from infra.parts import described, metrics_port  # noqa: PLC0415 - an embedded city needs none of its libraries

    settings = settings_file(up / "settings.env")
    if not processes(up / "logs"):
        raise EnvironmentFault(f"the real parts in {up} do not run; start them with `make up`, then the city")
    metrics = {name: metrics_port(up, name) for name in (*SERVICES, "simulation")}
    return RealParts(described(up / "settings.env"), metrics), read_settings({**settings, **os.environ})


async def _run(
    arguments: argparse.Namespace, settings: CitySettings, real: RealParts | None, bars: Bars, summary: Summary
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    async with memory_watch(summary):
        neighbourhood = await asyncio.to_thread(
            load_neighbourhood,
            arguments.seed,
            synthetic=arguments.synthetic,
            report=bars.report,
            say=bars.say,
            meters=arguments.homes,
        )
        car_parks = await asyncio.to_thread(
            load_car_parks,
            arguments.seed,
            synthetic=neighbourhood.synthetic,
            report=bars.report,
            say=bars.say,
            lots=arguments.lots,
        )
        options = Options(
            for_s=arguments.for_s,
            speed=arguments.speed,
            seed=arguments.seed,
            port=arguments.port,
            state=arguments.state,
            faults=arguments.faults,
            settings=demo_settings(settings, neighbourhood, arguments.port, arguments.speed),
            neighbourhood=neighbourhood,
            car_parks=car_parks,
            real=real,
        )
        if not stopping.is_set():
            await DemoCity(options, bars, summary).run(stopping)
    bars.say(stopped(summary))


def stopped(summary: Summary) -> str:
    """The run in one line."""
    parts = [
        f"{summary.readings} readings accepted",
        f"{summary.bills} bills",
        f"{summary.reservations} reservations ({summary.double_bookings} bays promised twice)",
        f"{summary.payments} payments",
        f"{summary.anchored_entries} entries anchored",
    ]
    return f"Stopped. {', '.join(parts)}."


def demo_settings(settings: CitySettings, neighbourhood: Neighbourhood, port: int, speed: float) -> CitySettings:
    """The settings, with the simulation's manufacturer trusted, the demo's own address, and what lives for moments only made to fit the speed."""
    keys = ",".join(f"{name}={key.hex()}" for name, key in neighbourhood.manufacturers.items())
    general = replace(settings.general, public_url=settings.general.public_url or f"http://127.0.0.1:{port}")
    lifetime_s = min(_LOCK_LIFETIME_MAX_S, max(settings.parking.lock_lifetime_s, int(speed * _LOCK_MACHINE_S)))
    return replace(
        settings,
        general=general,
        identity=replace(settings.identity, manufacturers=keys),
        parking=replace(settings.parking, lock_lifetime_s=lifetime_s),
        forecasting=replace(settings.forecasting, look_s=_TRAINING_LOOK_S),
    )


def seconds(text: str) -> float:
    """`90s`, `5m` or plain seconds."""
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    try:
        value = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 5m or 1h")
    return value


def speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _SPEED_MAX:
        raise argparse.ArgumentTypeError(f"the speed lies above 0 and at most at {_SPEED_MAX} city seconds per second")
    return value


def port(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if not 1 <= value <= _PORT_MAX:
        raise argparse.ArgumentTypeError(f"a port lies between 1 and {_PORT_MAX}")
    return value


def count(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if not 1 <= value <= _COUNT_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_COUNT_MAX}")
    return value


def faults(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown fault {unknown[0]!r}; the faults are {', '.join(FAULTS)}")
    return names
