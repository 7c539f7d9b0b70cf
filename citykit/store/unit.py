"""One unit of work over SQL, the same on SQLite and PostgreSQL. Made by `citykit.store.sql_store` for each `write`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Row, Table

from citykit.bus.events import event_identity
from citykit.bus.headers import encode_headers
from citykit.bus.port import Message, Record
from citykit.errors import RequestReused, ResourceExhausted
from citykit.store.driver import change, insert_many, insert_new, rows
from citykit.store.tables import OUTBOX, PROCESSED_EVENTS

_ANSWERED = "SELECT rpc, fingerprint, response FROM request_ids WHERE request_id = ?"
_ANSWER = "INSERT INTO request_ids (request_id, rpc, fingerprint, response, at) VALUES (?, ?, ?, ?, ?)"


class SqlUnit:
    """See `citykit.store.port.Unit`."""

    def __init__(self, connection: Connection, now: int, outbox_room: int) -> None:
        self.connection = connection
        self._now = now
        self._outbox_room = outbox_room
        self.published = 0

    def execute(self, statement: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        result = self.connection.execute(statement, parameters)
        return result.all() if result.returns_rows else ()

    def insert_many(self, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        insert_many(self.connection, table, columns, rows)

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
        values = [(m.topic, m.key, m.value, encode_headers(m.headers)) for m in messages]
        insert_many(self.connection, OUTBOX, ("topic", "key", "value", "headers"), values)

    def first_time(self, record: Record, group: str) -> bool:
        row = {"consumer_group": group, "event": event_identity(record), "at": self._now}
        return insert_new(self.connection, PROCESSED_EVENTS, row)

    def answered(self, request_id: str, rpc: str, fingerprint: bytes) -> bytes | None:
        found = rows(self.connection, _ANSWERED, (request_id,))
        if not found:
            return None
        if found[0][:2] != (rpc, fingerprint):
            raise RequestReused(
                f"request id {request_id!r} was used before with other content; take a new id for a new act",
                field="request_id",
            )
        return bytes(found[0][2])

    def answer(self, request_id: str, rpc: str, fingerprint: bytes, response: bytes) -> None:
        change(self.connection, _ANSWER, (request_id, rpc, fingerprint, response, self._now))
