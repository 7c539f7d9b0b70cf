"""`city serve SERVICE`: one service in a process of its own, the cluster form. Its parts (Kafka, Fabric, PostgreSQL) are not built yet."""

from __future__ import annotations

import argparse
from typing import Any

from citykit.errors import EnvironmentFault
from services.registry import SERVICES


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("serve", help="one service in a process of its own (cluster form)")
    parser.add_argument("service", choices=SERVICES)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    raise EnvironmentFault(
        f"`city serve {arguments.service}` needs the cluster's parts (Kafka, Fabric, PostgreSQL), whose adapters are not built yet:"
        " the embedded ledger, bus and store serve one process only. Use `city run`"
    )
