"""`city verify`: starts the verifier, which shares no code with the servers, as a program of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any


def add(subparsers: Any) -> None:
    # no prefix of its own: every option, in any order, is the verifier's
    parser = subparsers.add_parser("verify", help="check proof bundles offline", add_help=False, prefix_chars="\0")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    return subprocess.run([sys.executable, "-m", "verifier", *arguments.rest], check=False).returncode  # noqa: S603 - our own program
