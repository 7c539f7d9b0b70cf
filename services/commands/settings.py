"""`city settings`: every setting with its default and its reason."""

from __future__ import annotations

import argparse
import json
from typing import Any

from citykit.settings import describe_settings


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("settings", help="list every setting with its default and reason")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    rows = describe_settings()
    if arguments.json:
        print(json.dumps([{"name": name, "default": default, "why": why} for name, default, why in rows], indent=2))
        return 0
    for name, default, why in rows:
        print(f"{name}={default}\n    {why}")
    return 0
