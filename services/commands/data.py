"""`city data list | pull | show | export`: the catalogue of open data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from services.commands.progress import progress
from simulation import catalogue


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("data", help="open data: list, pull, show, export")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    acts.add_parser("list", help="every set with origin and licence").set_defaults(run=_list)
    pull = acts.add_parser("pull", help="fetch and check sets (all without names)")
    pull.add_argument("name", nargs="*")
    pull.set_defaults(run=_pull)
    show = acts.add_parser("show", help="everything known of a set")
    show.add_argument("name")
    show.set_defaults(run=_show)
    export = acts.add_parser("export", help="write series,time,value[,capacity]")
    export.add_argument("name")
    export.add_argument("file", type=Path)
    export.set_defaults(run=_export)
    for one in (*acts.choices.values(),):
        one.add_argument("--json", action="store_true", help="one JSON document")


def _list(arguments: argparse.Namespace) -> int:
    rows = catalogue.list_sets()
    if arguments.json:
        json.dump(rows, sys.stdout)
        print()
        return 0
    for row in rows:
        print(f"{row['name']:<24} {row['licence']:<28} {row['what']}")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    with progress(quiet=arguments.json) as bars:
        done = catalogue.pull(arguments.name, bars.report)
    if arguments.json:
        json.dump(done, sys.stdout)
        print()
    return 0


def _show(arguments: argparse.Namespace) -> int:
    json.dump(catalogue.show(arguments.name), sys.stdout, indent=None if arguments.json else 2)
    print()
    return 0


def _export(arguments: argparse.Namespace) -> int:
    rows = catalogue.export(arguments.name, arguments.file)
    if arguments.json:
        json.dump({"file": str(arguments.file), "rows": rows}, sys.stdout)
        print()
    else:
        print(f"{rows} rows written to {arguments.file}")
    return 0
