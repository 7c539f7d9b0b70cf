"""What a store must do; adapters: `citykit.store.sqlite` (embedded) and `citykit.store.postgres`. `citykit.testing.store_suite` holds each to it.

A unit of work is a plain function over SQLAlchemy Core. Units that come at once share one commit; each is all or nothing by itself.
State, outbox, request ids and processed events change in the same transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Row, Table

from citykit.bus.port import Message, Record

T = TypeVar("T")


class Unit(Protocol):
    """One transaction, as a unit of work sees it. Used only inside the function handed to `write`."""

    connection: Connection

    def execute(self, statement: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        """Runs a statement; returns its rows (none for most writes)."""

    def insert_many(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """The bulk path: the driver's own, one call. Rows that break a constraint fail the unit."""

    def publish(self, message: Message) -> None:
        """Puts a message in the outbox; the relay publishes it after the commit, in order per key.

        Raises:
            ResourceExhausted: the outbox is full (the bus has been away for long).
        """

    def publish_many(self, messages: Sequence[Message]) -> None:
        """The bulk path of `publish`."""

    def first_time(self, record: Record, group: str) -> bool:
        """Marks the event in a bus record as processed by `group`; False if it was before, also where it was published twice."""

    def answered(self, request_id: str, rpc: str, fingerprint: bytes) -> bytes | None:
        """The answer given before to this request id, or None.

        Raises:
            RequestReused: the id came before with another RPC or content.
        """

    def answer(self, request_id: str, rpc: str, fingerprint: bytes, response: bytes) -> None:
        """Keeps the answer for retries."""


class Store(Protocol):
    """The port. One per service.

    Attributes:
        outbox_grew: set while messages may wait in the outbox; the relay waits for it and clears it before it looks whether any do.
    """

    outbox_grew: asyncio.Event

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Runs a query on a consistent snapshot, beside others and beside writes."""

    async def write(self, unit: Callable[[Unit], T]) -> T:
        """Runs a unit of work; returns once it is durable. The function may be run again after a serialisation failure,
        so it must have no effect but on the unit.

        Raises:
            ResourceExhausted: too many units wait (limit in the settings), or the outbox is full.
            Unavailable: the database is away or its disk is full; nothing was changed.
        """

    async def outbox(self, limit: int) -> Sequence[tuple[int, Message]]:
        """The oldest unpublished messages with their numbers, for the relay."""

    async def published(self, numbers: Sequence[int]) -> None:
        """The relay's receipt: removes them from the outbox."""

    async def outbox_size(self) -> int: ...

    async def prune(self) -> int:
        """Forgets request ids and processed events past their days, a bounded number a call; returns how many."""

    async def close(self) -> None: ...
