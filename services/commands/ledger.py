"""`city ledger blocks | tx ID | events [--follow] | export FILE | check`: the embedded ledger of a state directory, from its file alone.

`city ledger network ...` is a real Fabric network (`services.commands.ledger_network`), `city ledger contracts` brings contracts onto the channel of
one that others run too (`services.commands.ledger_contracts`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from citykit.canonical import encode
from citykit.errors import NotFound
from citykit.ledger.local import check_ledger
from citykit.ledger.local.blocks import read_blocks
from citykit.ledger.local.ledger import events_of
from services.commands import ledger_contracts, ledger_network

_POLL_S = 0.5


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("ledger", help="blocks, transactions, events, export, check")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    acts.add_parser("blocks", help="every block").set_defaults(run=_blocks)
    tx = acts.add_parser("tx", help="one transaction")
    tx.add_argument("id")
    tx.set_defaults(run=_tx)
    events = acts.add_parser("events", help="events of valid transactions")
    events.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    events.set_defaults(run=_events)
    export = acts.add_parser("export", help="write every block as a JSON line")
    export.add_argument("file", type=Path)
    export.set_defaults(run=_export)
    acts.add_parser("check", help="re-verify every block; names the first damaged one").set_defaults(run=_check)
    for one in acts.choices.values():
        one.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
        one.add_argument("--json", action="store_true", help="one JSON document (events: one per line)")
    ledger_network.add(acts)
    ledger_contracts.add(acts)


def _blocks(arguments: argparse.Namespace) -> int:
    headers = [block["header"] for block in _stored(arguments)]
    if arguments.json:
        return _print(headers)
    for header in headers:
        print(f"{header['number']:>8}  {header['time']}  {header['count']:>4} transactions  {header['data'][:16]}")
    return 0


def _tx(arguments: argparse.Namespace) -> int:
    for block in _stored(arguments):
        for envelope in block["envelopes"]:
            if envelope["transaction"]["id"] == arguments.id:
                document = {"block": block["header"]["number"], **envelope}
                return _print(document, indent=None if arguments.json else 2)
    raise NotFound(f"no transaction {arguments.id} in {arguments.state}")


def _events(arguments: argparse.Namespace) -> int:
    seen = 0
    while True:
        for block in _stored(arguments):
            if block["header"]["number"] >= seen:
                seen = block["header"]["number"] + 1
                _print_events(block)
        if not arguments.follow:
            return 0
        sys.stdout.flush()
        time.sleep(_POLL_S)


def _print_events(block: Any) -> None:
    for event in events_of(block):
        line = {"block": event.position.block, "contract": event.contract, "transaction": event.transaction}
        print(json.dumps({**line, "name": event.name, "payload": event.payload}))


def _export(arguments: argparse.Namespace) -> int:
    unfinished = arguments.file.with_name(arguments.file.name + ".part")
    count = 0
    with unfinished.open("wb") as file:
        for block in _stored(arguments):
            file.write(encode({key: block[key] for key in ("header", "signature", "envelopes")}) + b"\n")
            count += 1
    unfinished.replace(arguments.file)
    return (
        _print({"file": str(arguments.file), "blocks": count})
        if arguments.json
        else _say(f"{count} blocks written to {arguments.file}")
    )


def _check(arguments: argparse.Namespace) -> int:
    findings = check_ledger(_directory(arguments))
    if arguments.json:
        _print({"ok": not findings, "findings": [{"where": item.where, "what": item.what} for item in findings]})
    else:
        for item in findings:
            print(f"DAMAGED {item}")
        print(f"{sum(1 for _ in _stored(arguments))} blocks verified" if not findings else "the ledger does not verify")
    return 1 if findings else 0


def _stored(arguments: argparse.Namespace) -> Iterator[Any]:
    return read_blocks(_directory(arguments))


def _directory(arguments: argparse.Namespace) -> Path:
    directory = Path(arguments.state) / "ledger"
    if not (directory / "blocks").exists():
        raise NotFound(
            f"no ledger in {arguments.state}; name the city's state directory with --state, or start one with `make run`"
        )
    return directory


def _print(document: Any, indent: int | None = None) -> int:
    json.dump(document, sys.stdout, indent=indent)
    print()
    return 0


def _say(text: str) -> int:
    print(text)
    return 0
