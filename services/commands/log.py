"""`city log list | head LOG | prove LOG INDEX | check`: the Merkle logs of a state directory, from its files alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument, NotFound
from citykit.merkle import ProofError, inclusion_proof
from citykit.merkle_log import MerkleLog
from citykit.store.driver import rows
from citykit.store.places import reading
from services.notary.app import log_directory
from services.notary.check import check_logs


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("log", help="the logs: heads, proofs, self-check of everything stored")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    acts.add_parser("list", help="every log with its size and newest anchor").set_defaults(run=_list)
    head = acts.add_parser("head", help="the newest anchored checkpoint of a log")
    head.add_argument("log")
    head.set_defaults(run=_head)
    prove = acts.add_parser("prove", help="the inclusion proof of an entry in the newest anchored head")
    prove.add_argument("log")
    prove.add_argument("index", type=int)
    prove.set_defaults(run=_prove)
    acts.add_parser("check", help="re-verify everything stored; names the first damaged record").set_defaults(
        run=_check
    )
    for one in acts.choices.values():
        one.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
        one.add_argument("--json", action="store_true", help="one JSON document")


def _list(arguments: argparse.Namespace) -> int:
    rows = _logs(arguments.state)
    if arguments.json:
        return _print(rows)
    for row in rows:
        print(
            f"{row['log']:<20} {row['size']:>10} entries, {row['anchored_size']:>10} anchored by {row['transaction'][:16] or '-'}"
        )
    return 0


def _head(arguments: argparse.Namespace) -> int:
    row = _log(arguments)
    note = (log_directory(arguments.state / "notary", arguments.log) / "checkpoint").read_text(encoding="utf-8")
    if arguments.json:
        return _print({**row, "checkpoint": note})
    print(note, end="")
    return 0


def _prove(arguments: argparse.Namespace) -> int:
    row = _log(arguments)
    merkle_log = MerkleLog(log_directory(arguments.state / "notary", arguments.log), row["size"])
    try:
        path = inclusion_proof(merkle_log.hashes(), arguments.index, row["anchored_size"])
        entry = merkle_log.entries(arguments.index, arguments.index + 1)[0]
    except ProofError as error:
        raise InvalidArgument(str(error), field="index") from None
    finally:
        merkle_log.close()
    hashes = [item.hex() for item in path]
    document = {
        "log": arguments.log,
        "index": arguments.index,
        "size": row["anchored_size"],
        "entry": entry.hex(),
        "hashes": hashes,
    }
    return _print(document, indent=None if arguments.json else 2)


def _check(arguments: argparse.Namespace) -> int:
    result = check_logs(arguments.state)
    if arguments.json:
        found = [{"log": item.log, "where": item.where, "what": item.what} for item in result.findings]
        _print({"ok": not found, "entries": result.entries, "findings": found})
    else:
        for item in result.findings:
            print(f"DAMAGED {item}")
        print(f"{result.entries} entries re-verified, {len(result.findings)} findings")
    return 1 if result.findings else 0


def _log(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = {row["log"]: row for row in _logs(arguments.state)}
    if arguments.log not in rows:
        raise NotFound(f"no log {arguments.log!r}; there are {', '.join(rows) or 'none'}")
    if not rows[arguments.log]["anchored_size"]:
        raise NotFound(f"the log {arguments.log} has no anchored head yet")
    return rows[arguments.log]


def _logs(state: Path) -> list[dict[str, Any]]:
    with reading(state, "notary") as connection:
        found = rows(
            connection,
            "SELECT l.log, l.size, COALESCE(a.size, 0), COALESCE(a.ledger_transaction, '') FROM logs l LEFT JOIN anchors a"
            " ON a.log = l.log AND a.size = (SELECT MAX(size) FROM anchors WHERE log = l.log) ORDER BY l.log",
        )
    return [
        {"log": log, "size": size, "anchored_size": anchored, "transaction": tx} for log, size, anchored, tx in found
    ]


def _print(document: Any, indent: int | None = None) -> int:
    json.dump(document, sys.stdout, indent=indent)
    print()
    return 0
