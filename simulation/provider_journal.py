"""Keeps the sandbox provider's books on disk: a line for each operation, when asked and when decided. A killed provider forgets nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from simulation.provider_books import Operation, ProviderBooks


@contextlib.contextmanager
def kept_books(path: Path) -> Iterator[ProviderBooks]:
    """The books in a file, which is made at the first start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    books = ProviderBooks()
    for operation in _read(path):
        books.restore(operation)
    with path.open("a", encoding="utf-8") as file:

        def write(operation: Operation) -> None:
            file.write(json.dumps(asdict(operation)) + "\n")
            file.flush()

        books.wrote = write
        yield books


def _read(path: Path) -> Iterator[Operation]:
    """A line that a kill cut short was never answered for: it is left out, and cut off."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rpartition(b"\n")[0] + b"\n" if b"\n" in data else b""
    if whole != data:
        path.write_bytes(whole)
    for line in whole.splitlines():
        yield Operation(**json.loads(line))
