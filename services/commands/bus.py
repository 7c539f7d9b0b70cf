"""`city bus topics | dead-letters | replay TOPIC`: looks at the embedded bus of a stopped city, and puts dead letters back."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from citykit.bus.events import event_type
from citykit.bus.local import LocalBus, open_local_bus
from citykit.bus.topics import TOPICS
from citykit.errors import NotFound
from citykit.run import locked
from citykit.settings import BusSettings

Act = Callable[[LocalBus, argparse.Namespace], Awaitable[Any]]
_LETTERS_MAX = 1_000


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("bus", help="topics, dead letters and their replay")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    for name, act, text in (
        ("topics", _topics, "what each topic holds and who lags"),
        ("dead-letters", _dead_letters, "records that were given up, at most 1,000"),
        ("replay", _replay, "give dead letters back to the group that failed on them"),
    ):
        one = acts.add_parser(name, help=text)
        if name == "replay":
            one.add_argument("topic")
        one.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
        one.add_argument("--json", action="store_true", help="one JSON document")
        one.set_defaults(run=run, act=act)


def run(arguments: argparse.Namespace) -> int:
    path = arguments.state / "bus" / "bus.db"
    if not path.exists():
        raise NotFound(f"no bus at {path}; name the city's state directory with --state, or start one with `make run`")
    with locked(arguments.state):
        answer = asyncio.run(_with_bus(path, arguments))
    json.dump(answer, sys.stdout, indent=None if arguments.json else 2)
    print()
    return 0


async def _with_bus(path: Path, arguments: argparse.Namespace) -> Any:
    bus = open_local_bus(path, TOPICS, BusSettings())
    try:
        return await arguments.act(bus, arguments)
    finally:
        await bus.close()


async def _topics(bus: LocalBus, _arguments: argparse.Namespace) -> Any:
    return [
        {"topic": state.topic, "partitions": state.partitions, "records": state.records, "lag": dict(state.lag)}
        for state in await bus.topics()
    ]


async def _dead_letters(bus: LocalBus, _arguments: argparse.Namespace) -> Any:
    letters = []
    async for record in bus.dead_letters():
        words = {
            name: record.headers.get(name, b"").decode() for name in ("dl_topic", "dl_group", "dl_error", "dl_tries")
        }
        letters.append({**words, "type": event_type(record), "key": record.key, "bytes": len(record.value)})
        if len(letters) == _LETTERS_MAX:
            break
    return letters


async def _replay(bus: LocalBus, arguments: argparse.Namespace) -> Any:
    return {"topic": arguments.topic, "replayed": await bus.replay(arguments.topic)}
