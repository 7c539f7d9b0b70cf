"""`city bench [NAME] [--json]`: measures the figures the city must reach, and says how each was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from citykit.errors import NotFound

BENCHED = ("metering", "parking", "notary", "payments", "forecasting")
MODULES = {
    **{service: f"services.{service}.bench" for service in BENCHED},
    "metering-real": "services.commands.bench_on_real",
    "ledger": "infra.fabric.bench",
    "bus": "infra.kafka.bench",
}
Figure = dict[str, Any]


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("bench", help="measure the figures the city must reach")
    parser.add_argument("name", nargs="?", help="one bench or one service; all without a name")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    chosen = benches(arguments.name)
    figures = []
    for bench in chosen:
        figure = bench()
        figures.append(figure)
        if not arguments.json:
            _say(figure)
    if arguments.json:
        json.dump({"machine": machine(), "figures": figures}, sys.stdout)
        print()
    else:
        print(f"measured on {machine()}")
    return 0 if all(holds(figure) for figure in figures) else 1


def benches(name: str | None) -> list[Callable[[], Figure]]:
    """The benches of a name: a service's, one bench's (`proof-of-ten-million`), or all.

    Raises:
        NotFound: no such bench.
    """
    found = {name: import_module(module).BENCHES for name, module in MODULES.items()}
    every = [bench for group in found.values() for bench in group]
    if name is None:
        return every
    named = [bench for bench in every if name in (_name(bench), *(s for s, group in found.items() if bench in group))]
    if not named:
        raise NotFound(f"no bench {name!r}; there are {', '.join([*MODULES, *map(_name, every)])}")
    return named


def holds(figure: Figure) -> bool:
    """True if the value reaches its floor, has none, or could not be measured here; for times the floor is a ceiling."""
    if figure["value"] is None or figure["floor"] is None:
        return True
    if str(figure["unit"]).endswith("/s"):
        return bool(figure["value"] >= figure["floor"])
    return bool(figure["value"] <= figure["floor"])


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _name(bench: Callable[[], Figure]) -> str:
    return bench.__name__.strip("_").replace("_", "-")


def _say(figure: Figure) -> None:
    mark = "reaches" if holds(figure) else "MISSES"
    if figure["value"] is None:
        print(f"{figure['name']:<28} {figure['how']}", flush=True)
        return
    against = "reported" if figure["floor"] is None else f"{mark} the floor {figure['floor']:,}, aim {figure['aim']:,}"
    print(f"{figure['name']:<28} {figure['value']:>12,} {figure['unit']:<12} {against}")
    print(f"    {figure['how']}", flush=True)
