"""Where a service's state lies, written beside its folder, so that a command can read it: `city log`, `city token`, `city db`, checks."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from citykit.errors import NotFound
from citykit.settings import PostgresSettings
from citykit.store.postgres.connections import Place

_FILE = "postgres.json"


def keep_place(state: Path, name: str, settings: PostgresSettings) -> None:
    """Says in `<state>/<name>/postgres.json` that the service's state is in PostgreSQL. Files are named in it, no secrets."""
    folder = state / name
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{_FILE}.new"
    part.write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
    part.replace(folder / _FILE)


def place_of(state: Path, name: str) -> Place | None:
    """The schema that holds the service's state; None where it is a SQLite file, or nothing yet."""
    path = state / name / _FILE
    if not path.exists():
        return None
    return Place(name, PostgresSettings(**json.loads(path.read_text(encoding="utf-8"))))


def sqlite_file(state: Path, name: str) -> Path:
    return state / name / f"{name}.db"


@contextlib.contextmanager
def reading(state: Path, name: str) -> Iterator[Connection]:
    """A connection that reads the service's state, beside the running city.

    Raises:
        NotFound: there is no state of the service.
    """
    place, path = place_of(state, name), sqlite_file(state, name)
    if place is None and not path.exists():
        raise NotFound(f"no state of {name} in {state}; name the city's state directory with --state")
    engine = place.engine("read", 1) if place else _read_only(path)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


def _read_only(path: Path) -> Engine:
    """Leaves every byte of the file and its log as they are."""
    return create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(f"file:{path}?mode=ro", uri=True),
        poolclass=NullPool,
    )
