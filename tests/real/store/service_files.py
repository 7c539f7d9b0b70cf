"""The services' own tests, as they are, with every service's state in PostgreSQL: one run of pytest a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from services.testing import SERVER
from tests.real.store.serving import Server

ROOT = Path(__file__).parents[3]
FILE_S = 480
OF_SQLITE = {"test_db_command"}
"""Commands on SQLite's files."""
OF_MONEY = ("test_parking", "test_payments", "test_verifier")


def files(*, of_money: bool) -> list[Path]:
    """Two halves of about the same length, so that two processes can run them."""
    found = sorted((ROOT / "tests" / "system").glob("test_*.py"))
    return [path for path in _opening_a_city(found) if path.stem.startswith(OF_MONEY) is of_money]


def passes(path: Path, server: Server) -> None:
    """Runs a file on the server.

    Raises:
        AssertionError: with what pytest said.
    """
    environment = {**os.environ, SERVER: f"{server.admin.port}:{server.admin.passwords}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=FILE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]


def _opening_a_city(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        text = path.read_text(encoding="utf-8")
        opens = "embedded_city" in text or "_city import" in text or "_lots import" in text
        if opens and path.stem not in OF_SQLITE:
            yield path
