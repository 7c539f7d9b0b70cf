"""The embedded store: one SQLite file a service, `synchronous=FULL`, one writer whose concurrent units share a commit.

Used by `city run`; refuses cluster mode (the composition root picks the adapter).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, MetaData, Row, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import OperationalError

from citykit.bus.events import event_identity
from citykit.bus.headers import decode_headers, encode_headers
from citykit.bus.port import Message, Record
from citykit.errors import EnvironmentFault, RequestReused, ResourceExhausted
from citykit.settings import StoreSettings
from citykit.store.engine import sqlite_engine
from citykit.store.migrate import KIT_MIGRATIONS, migrate
from citykit.store.tables import OUTBOX, PROCESSED_EVENTS, REQUEST_IDS
from citykit.store.writer import GroupWriter

T = TypeVar("T")
_DAY_S = 86_400
_PRUNE_MAX = 5_000
_ANSWERED = "SELECT rpc, fingerprint, response FROM request_ids WHERE request_id = ?"
_ANSWER = "INSERT INTO request_ids (request_id, rpc, fingerprint, response, at) VALUES (?, ?, ?, ?, ?)"


class SqliteUnit:
    """One unit of work; see `citykit.store.port.Unit`."""

    def __init__(self, connection: Connection, now: int, outbox_room: int) -> None:
        self.connection = connection
        self._now = now
        self._outbox_room = outbox_room
        self.published = 0

    def execute(self, statement: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        result = self.connection.execute(statement, parameters)
        return result.all() if result.returns_rows else ()

    def insert_many(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._driver().executemany(_insert_sql(table.name, tuple(columns)), rows)

    def publish(self, message: Message) -> None:
        self.publish_many((message,))

    def publish_many(self, messages: Sequence[Message]) -> None:
        self.published += len(messages)
        if self.published > self._outbox_room:
            raise ResourceExhausted(
                "the outbox is full because the bus has been away for long; nothing was stored. Try again later",
                reason="outbox-full",
                retry_after_s=5.0,
            )
        rows = [(m.topic, m.key, m.value, encode_headers(m.headers)) for m in messages]
        self.insert_many(OUTBOX, ("topic", "key", "value", "headers"), rows)

    def first_time(self, record: Record, group: str) -> bool:
        row = {"consumer_group": group, "event": event_identity(record), "at": self._now}
        result = self.connection.execute(sqlite_insert(PROCESSED_EVENTS).values(row).on_conflict_do_nothing())
        return result.rowcount == 1

    def answered(self, request_id: str, rpc: str, fingerprint: bytes) -> bytes | None:
        found = self._driver().execute(_ANSWERED, (request_id,)).fetchone()
        if found is None:
            return None
        if found[:2] != (rpc, fingerprint):
            raise RequestReused(
                f"request id {request_id!r} was used before with other content; take a new id for a new act",
                field="request_id",
            )
        return bytes(found[2])

    def answer(self, request_id: str, rpc: str, fingerprint: bytes, response: bytes) -> None:
        self._driver().execute(_ANSWER, (request_id, rpc, fingerprint, response, self._now))

    def _driver(self) -> Any:
        """The driver's own connection: what every mutation of every service does must cost microseconds."""
        return self.connection.connection.driver_connection


class SqliteStore:
    """The adapter; see `citykit.store.port.Store`. Made by `open_sqlite`."""

    def __init__(
        self, path: Path, settings: StoreSettings, now: Callable[[], float], writer_engine: Engine, outbox_size: int
    ) -> None:
        self._path = path
        self._settings = settings
        self._now = now
        self._read_engine = sqlite_engine(path, readers=settings.readers)
        self._readers = ThreadPoolExecutor(settings.readers, thread_name_prefix=f"read-{path.stem}")
        self._write_engine = writer_engine
        self._writer = GroupWriter(writer_engine, path.stem, settings.queue_max, settings.group_max)
        self._outbox_size = outbox_size
        self.outbox_grew = asyncio.Event()
        if outbox_size:
            self.outbox_grew.set()

    async def read(self, query: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._read_engine.connect() as connection, connection.begin():
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def write(self, unit: Callable[[SqliteUnit], T]) -> T:
        room = self._settings.outbox_max - self._outbox_size

        def run(connection: Connection) -> tuple[T, int]:
            work = SqliteUnit(connection, int(self._now()), room)
            return unit(work), work.published

        result, _ = await self._writer.submit(run, self._grown)
        return result

    def _grown(self, done: tuple[Any, int]) -> None:
        """Wakes the relay. Whoever asked for the unit may have gone away by now; its messages are there."""
        if done[1]:
            self._outbox_size += done[1]
            self.outbox_grew.set()

    async def outbox(self, limit: int) -> Sequence[tuple[int, Message]]:
        rows = await self.read(lambda c: c.execute(select(OUTBOX).order_by(OUTBOX.c.number).limit(limit)).all())
        return [(row.number, Message(row.topic, row.key, row.value, decode_headers(row.headers))) for row in rows]

    async def published(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        low, high = min(numbers), max(numbers)
        await self._writer.submit(
            lambda c: c.execute(delete(OUTBOX).where(OUTBOX.c.number.between(low, high))).rowcount, self._shrunk
        )

    def _shrunk(self, removed: int) -> None:
        self._outbox_size -= removed

    async def outbox_size(self) -> int:
        return self._outbox_size

    async def prune(self) -> int:
        """Forgets request ids and processed events past their days, at most 5,000 rows of each a call; empties the write-ahead log."""
        oldest = int(self._now()) - self._settings.request_days * _DAY_S

        def remove(connection: Connection) -> int:
            return sum(_remove_older(connection, table, oldest) for table in (REQUEST_IDS, PROCESSED_EVENTS))

        removed = await self._writer.submit(remove)
        await asyncio.get_running_loop().run_in_executor(self._readers, self._truncate_log)
        return removed

    def _truncate_log(self) -> None:
        """Empties the write-ahead log, so that erased rows do not linger in it."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=10.0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        await self._writer.close()
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


def open_sqlite(
    path: Path, metadata: MetaData, migrations: Path, settings: StoreSettings, now: Callable[[], float] = time.time
) -> SqliteStore:
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
            _require_tables(connection, metadata, path.stem)
            outbox_size = _count_outbox(connection)
    except OperationalError as error:
        raise EnvironmentFault(
            f"the database {path} cannot be opened or written ({error.orig}); free disk space or check the folder's rights"
        ) from error
    return SqliteStore(path, settings, now, engine, outbox_size)


def _require_tables(connection: Connection, metadata: MetaData, name: str) -> None:
    names = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='table'")}
    missing = sorted(set(metadata.tables) - names)
    if missing:
        raise EnvironmentFault(f"the migrations of {name} leave out the tables {', '.join(missing)}; add a revision")


def _count_outbox(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one()


def _remove_older(connection: Connection, table: Table, oldest: int) -> int:
    key = next(iter(table.primary_key.columns)) if table is REQUEST_IDS else table.c.at
    some = select(key).where(table.c.at < oldest).limit(_PRUNE_MAX)
    return connection.execute(delete(table).where(key.in_(some), table.c.at < oldest)).rowcount


@lru_cache(maxsize=256)
def _insert_sql(table: str, columns: tuple[str, ...]) -> str:
    marks = ",".join("?" * len(columns))
    names = ",".join(f'"{column}"' for column in columns)
    return f'INSERT INTO "{table}" ({names}) VALUES ({marks})'  # noqa: S608 - names come from table definitions
