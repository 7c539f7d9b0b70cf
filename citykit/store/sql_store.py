"""What every SQL store does alike: reads in threads, units to the one writer, the outbox's count, forgetting. Opened by the adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, Table, delete, func, select

from citykit.bus.headers import decode_headers
from citykit.bus.port import Message
from citykit.settings import StoreSettings
from citykit.store.driver import change
from citykit.store.tables import OUTBOX, PROCESSED_EVENTS, REQUEST_IDS
from citykit.store.unit import SqlUnit
from citykit.store.writer import GroupWriter

T = TypeVar("T")
_DAY_S = 86_400
_PRUNE_MAX = 5_000


class Database(Protocol):
    """What an adapter does its own way. Called from threads, except where it says otherwise."""

    name: str

    def read(self, query: Callable[[Connection], T]) -> T:
        """Runs a query on a consistent snapshot."""

    def waiting(self, limit: int) -> Sequence[Row[Any]]:
        """The oldest rows of the outbox."""

    def remove(self, numbers: Sequence[int]) -> int | None:
        """Takes rows out of the outbox; None where the writer shall do it."""

    def tidy(self) -> None:
        """Housekeeping after rows were forgotten."""

    def close(self) -> None: ...


class SqlStore:
    """The adapter over a database; see `citykit.store.port.Store`."""

    def __init__(
        self,
        database: Database,
        writer: GroupWriter,
        settings: StoreSettings,
        now: Callable[[], float],
        outbox_size: int,
    ) -> None:
        self._database = database
        self._writer = writer
        self._settings = settings
        self._now = now
        self._readers = ThreadPoolExecutor(settings.readers, thread_name_prefix=f"read-{database.name}")
        self._relay = ThreadPoolExecutor(1, thread_name_prefix=f"relay-{database.name}")
        self._outbox_size = outbox_size
        self.outbox_grew = asyncio.Event()
        if outbox_size:
            self.outbox_grew.set()

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._database.read, query)

    async def write(self, unit: Callable[[SqlUnit], T]) -> T:
        room = self._settings.outbox_max - self._outbox_size

        def run(connection: Connection) -> tuple[T, int]:
            work = SqlUnit(connection, int(self._now()), room)
            return unit(work), work.published

        result, _ = await self._writer.submit(run, self._grown)
        return result

    def _grown(self, done: tuple[Any, int]) -> None:
        """Wakes the relay. Whoever asked for the unit may have gone away by now; its messages are there."""
        if done[1]:
            self._outbox_size += done[1]
            self.outbox_grew.set()

    async def outbox(self, limit: int) -> Sequence[tuple[int, Message]]:
        rows = await asyncio.get_running_loop().run_in_executor(self._relay, self._database.waiting, limit)
        return [(row.number, Message(row.topic, row.key, row.value, decode_headers(row.headers))) for row in rows]

    async def published(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        removed = await asyncio.get_running_loop().run_in_executor(self._relay, self._database.remove, numbers)
        if removed is None:
            await self._writer.submit(lambda connection: remove_between(connection, numbers), self._shrunk)
        else:
            self._shrunk(removed)

    def _shrunk(self, removed: int) -> None:
        self._outbox_size -= removed

    async def outbox_size(self) -> int:
        return self._outbox_size

    async def prune(self) -> int:
        """Forgets request ids and processed events past their days, at most 5,000 rows of each a call."""
        oldest = int(self._now()) - self._settings.request_days * _DAY_S

        def remove(connection: Connection) -> int:
            return sum(_remove_older(connection, table, oldest) for table in (REQUEST_IDS, PROCESSED_EVENTS))

        removed = await self._writer.submit(remove)
        await asyncio.get_running_loop().run_in_executor(self._readers, self._database.tidy)
        return removed

    async def close(self) -> None:
        await self._writer.close()
        self._relay.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._database.close()


def oldest_messages(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """The oldest rows of the outbox, in order."""
    return connection.execute(select(OUTBOX).order_by(OUTBOX.c.number).limit(limit)).all()


def remove_between(connection: Connection, numbers: Sequence[int]) -> int:
    """Takes what the relay published out of the outbox: everything between the first and the last number of its batch."""
    return change(connection, "DELETE FROM outbox WHERE number BETWEEN ? AND ?", (min(numbers), max(numbers)))


def count_outbox(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one()


def _remove_older(connection: Connection, table: Table, oldest: int) -> int:
    key = next(iter(table.primary_key.columns)) if table is REQUEST_IDS else table.c.at
    some = select(key).where(table.c.at < oldest).limit(_PRUNE_MAX)
    return connection.execute(delete(table).where(key.in_(some), table.c.at < oldest)).rowcount
