"""The embedded store: one SQLite file a service, `synchronous=FULL`, one writer whose concurrent units share a commit.

Used by `city run`; refuses cluster mode (the composition root picks the adapter).
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, MetaData, Row
from sqlalchemy.exc import OperationalError

from citykit.errors import EnvironmentFault
from citykit.settings import StoreSettings
from citykit.store.engine import sqlite_engine
from citykit.store.migrate import KIT_MIGRATIONS, migrate, require_tables
from citykit.store.sql_store import SqlStore, count_outbox, oldest_messages
from citykit.store.sqlite_groups import SqliteGroups
from citykit.store.writer import GroupWriter

T = TypeVar("T")
SqliteStore = SqlStore


class SqliteDatabase:
    """See `citykit.store.sql_store.Database`."""

    def __init__(self, path: Path, readers: int, writer_engine: Engine) -> None:
        self.name = path.stem
        self._path = path
        self._read_engine = sqlite_engine(path, readers=readers)
        self._write_engine = writer_engine

    def read(self, query: Callable[[Connection], T]) -> T:
        with self._read_engine.connect() as connection, connection.begin():
            return query(connection)

    def waiting(self, limit: int) -> Sequence[Row[Any]]:
        return self.read(lambda connection: oldest_messages(connection, limit))

    def remove(self, numbers: Sequence[int]) -> int | None:
        return None

    def tidy(self) -> None:
        """Empties the write-ahead log, so that erased rows do not linger in it."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=10.0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._read_engine.dispose()
        self._write_engine.dispose()


def open_sqlite(
    path: Path, metadata: MetaData, migrations: Path, settings: StoreSettings, now: Callable[[], float] = time.time
) -> SqlStore:
    """Opens (or creates) and migrates the database at `path`.

    Args:
        metadata: the service's tables; every one must exist after the migration.
        now: machine time, by which request ids and processed events are forgotten: retries live in it, not in city time.

    Raises:
        FailedPrecondition: a database of a newer version.
        EnvironmentFault: the file cannot be opened or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlite_engine(path)
    try:
        with engine.connect() as connection, connection.begin():
            migrate(connection, KIT_MIGRATIONS, version_table="kit_version", name=path.stem)
            migrate(connection, migrations, version_table="schema_version", name=path.stem)
            require_tables(connection, metadata, path.stem)
            outbox_size = count_outbox(connection)
    except OperationalError as error:
        raise EnvironmentFault(
            f"the database {path} cannot be opened or written ({error.orig}); free disk space or check the folder's rights"
        ) from error
    return serve_sqlite(path, settings, now, engine, outbox_size)


def serve_sqlite(
    path: Path, settings: StoreSettings, now: Callable[[], float], engine: Engine, outbox_size: int
) -> SqlStore:
    """The store over a file that is migrated already."""
    writer = GroupWriter(SqliteGroups(engine, path.stem), path.stem, settings.queue_max, settings.group_max)
    return SqlStore(SqliteDatabase(path, settings.readers, engine), writer, settings, now, outbox_size)
