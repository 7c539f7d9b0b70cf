"""Reads, and the relay's claims on the outbox. See `citykit.store.sql_store.Database`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, Row, delete, select
from sqlalchemy.exc import DBAPIError

from citykit.store.postgres.connections import Place, is_broken_connection, unavailable
from citykit.store.tables import OUTBOX

T = TypeVar("T")
_FAULTS = (DBAPIError, psycopg.Error)


class PostgresDatabase:
    """The reading side of a schema.

    The relay's batch stays locked from `waiting` to `remove`. Another relay never waits for it (SKIP LOCKED), and takes nothing while
    something older is locked: so order per key holds with any number of relays.
    """

    def __init__(self, place: Place, readers: int) -> None:
        self.name = place.schema
        self._readers = readers
        self._read_engine = place.engine("read", readers)
        self._relay_engine = place.engine("relay", 1)
        self._claim: Connection | None = None

    def read(self, query: Callable[[Connection], T]) -> T:
        """After a restart of the server every pooled connection is stale: a query is asked again until it had a fresh one."""
        stale = self._readers
        while True:
            connection = self._connection(self._read_engine)
            try:
                with connection.begin():
                    return query(connection)
            except _FAULTS as error:
                if not is_broken_connection(connection) or not stale:
                    raise (unavailable(self.name, error) or error) from error
                connection.invalidate()
                stale -= 1
            finally:
                connection.close()

    def _connection(self, engine: Engine) -> Connection:
        try:
            return engine.connect()
        except _FAULTS as error:
            raise (unavailable(self.name, error) or error) from error

    def waiting(self, limit: int) -> Sequence[Row[Any]]:
        self._release()
        try:
            return self._claimed(limit)
        except _FAULTS as error:
            self._lose()
            raise (unavailable(self.name, error) or error) from error

    def _claimed(self, limit: int) -> Sequence[Row[Any]]:
        self._claim = self._relay_engine.connect()
        oldest = select(OUTBOX).order_by(OUTBOX.c.number).limit(limit).with_for_update(skip_locked=True)
        rows = self._claim.execute(oldest).all()
        first = self._claim.execute(select(OUTBOX.c.number).order_by(OUTBOX.c.number).limit(1)).scalar_one_or_none()
        if not rows or rows[0].number != first:
            self._release()
            return ()
        return rows

    def remove(self, numbers: Sequence[int]) -> int | None:
        try:
            claim = self._claim or self._relay_engine.connect()
            self._claim = claim
            gone = delete(OUTBOX).where(OUTBOX.c.number.between(min(numbers), max(numbers)))
            removed = claim.execute(gone).rowcount
            claim.commit()
        except _FAULTS as error:
            self._lose()
            raise (unavailable(self.name, error) or error) from error
        self._release()
        return removed

    def tidy(self) -> None:
        """Autovacuum does it."""

    def close(self) -> None:
        self._release()
        self._relay_engine.dispose()
        self._read_engine.dispose()

    def _release(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            with contextlib.suppress(*_FAULTS):
                claim.close()

    def _lose(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.invalidate()
            claim.close()
