"""`python -m citykit.ledger.devpeer --state DIR --specification FILE`: the peer as a process of its own. `city serve ledger` is the same.

`--check` instead of `--specification` re-verifies what is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import CityError
from citykit.ledger.devpeer.check import check_peer
from citykit.ledger.devpeer.peer import serve
from citykit.ledger.devpeer.specification import read_specification


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM, or checks; exit code 2 for what it was told wrongly, 1 for damage, 0 else."""
    parser = argparse.ArgumentParser(prog="python -m citykit.ledger.devpeer", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of its ledger and certificates")
    act = parser.add_mutually_exclusive_group(required=True)
    act.add_argument("--specification", type=Path, help="JSON file: channel, chaincodes, clients")
    act.add_argument("--check", action="store_true", help="re-verify what is stored; the peer must not run")
    arguments = parser.parse_args(argv)
    try:
        if arguments.check:
            return _check(arguments.state)
        asyncio.run(serve(arguments.state, read_specification(arguments.specification)))
    except (CityError, OSError) as error:
        print(f"development peer: {error}", file=sys.stderr)
        return 2
    return 0


def _check(state: Path) -> int:
    findings = check_peer(state)
    for finding in findings:
        print(f"DAMAGED {finding}")
    if not findings:
        print("every block verifies, and state, history and index follow from the blocks")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
