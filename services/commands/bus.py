"""`city bus topics | dead-letters | replay TOPIC`: looks at a city's bus, puts dead letters back, and brings Kafka's topics to what is declared.

Without more words it is the embedded bus of a stopped city; in mode `cluster`, and with `--check` or `--apply`, the brokers of CITY_KAFKA_*.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from citykit.bus.events import event_type
from citykit.bus.local import open_local_bus
from citykit.bus.port import Bus
from citykit.bus.topics import TOPICS
from citykit.errors import NotFound
from citykit.settings import BusSettings, read_settings
from citykit.state import locked

Act = Callable[[Bus, argparse.Namespace], Awaitable[Any]]
_LETTERS_MAX = 1_000


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("bus", help="topics, dead letters and their replay")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    for name, act, text in (
        ("topics", _topics, "what each topic holds and who lags; on Kafka also whether all is as declared"),
        ("dead-letters", _dead_letters, "records that were given up, at most 1,000"),
        ("replay", _replay, "give dead letters back to the group that failed on them"),
    ):
        one = acts.add_parser(name, help=text)
        if name == "replay":
            one.add_argument("topic")
        if name == "topics":
            kafka = one.add_mutually_exclusive_group()
            kafka.add_argument("--check", action="store_true", help="Kafka: say what is not as declared; exit code 1")
            kafka.add_argument("--apply", action="store_true", help="Kafka: make topics and rights as declared")
        one.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
        one.add_argument("--json", action="store_true", help="one JSON document")
        one.set_defaults(run=run, act=act, check=False, apply=False)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    if arguments.check or arguments.apply or settings.general.mode == "cluster":
        # Its libraries are slow to import, and no other command needs them.
        from services.commands import bus_on_kafka as kafka  # noqa: PLC0415

        if arguments.check or arguments.apply:
            return kafka.as_declared(arguments.apply, settings.kafka)
        answer = kafka.ask(settings.kafka, lambda bus: arguments.act(bus, arguments))
    else:
        answer = _embedded(arguments)
    json.dump(answer, sys.stdout, indent=None if arguments.json else 2)
    print()
    return 0


def _embedded(arguments: argparse.Namespace) -> Any:
    path = arguments.state / "bus" / "bus.db"
    if not path.exists():
        raise NotFound(f"no bus at {path}; name the city's state directory with --state, or start one with `make run`")

    async def ask() -> Any:
        bus = open_local_bus(path, TOPICS, BusSettings())
        try:
            return await arguments.act(bus, arguments)
        finally:
            await bus.close()

    with locked(arguments.state):
        return asyncio.run(ask())


async def _topics(bus: Bus, _arguments: argparse.Namespace) -> Any:
    return [
        {"topic": state.topic, "partitions": state.partitions, "records": state.records, "lag": dict(state.lag)}
        for state in await bus.topics()
    ]


async def _dead_letters(bus: Bus, _arguments: argparse.Namespace) -> Any:
    letters = []
    async for record in bus.dead_letters():
        words = {
            name: record.headers.get(name, b"").decode() for name in ("dl_topic", "dl_group", "dl_error", "dl_tries")
        }
        letters.append({**words, "type": event_type(record), "key": record.key, "bytes": len(record.value)})
        if len(letters) == _LETTERS_MAX:
            break
    return letters


async def _replay(bus: Bus, arguments: argparse.Namespace) -> Any:
    return {"topic": arguments.topic, "replayed": await bus.replay(arguments.topic)}
