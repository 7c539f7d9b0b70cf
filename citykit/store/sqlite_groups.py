"""Commits groups of units to a SQLite file. Run by `citykit.store.writer` for the embedded store and the local bus."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from citykit.errors import Unavailable
from citykit.store.writer import Work


class SqliteGroups:
    """See `citykit.store.writer.Committer`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None

    def commit(self, group: Sequence[Work]) -> None:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            with self._connection.begin():
                for work in group:
                    self._run(self._connection, work)
        except (DBAPIError, sqlite3.Error) as error:
            for work in group:
                work.error = work.error or self._away(error)
        except _GroupLost as lost:
            for work in group:
                work.error = work.error or self._away(lost.cause)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _run(self, connection: Connection, work: Work) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute("SAVEPOINT unit")
        try:
            work.result = work.run(connection)
        except Exception as error:
            work.error = self._away(error) if _is_away(error) else error
            if not driver.in_transaction:
                raise _GroupLost(error) from error
            driver.execute("ROLLBACK TO unit")
        driver.execute("RELEASE unit")

    def _away(self, error: BaseException) -> Unavailable:
        cause = getattr(error, "orig", None) or error
        return Unavailable(
            f"the store {self._name} could not be written ({cause}); nothing was changed. Free disk space, then try again",
            reason="store-unavailable",
            retry_after_s=5.0,
        )


class _GroupLost(Exception):
    """SQLite gave up the whole transaction (disk full, I/O error): no unit of the group was kept."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _is_away(error: Exception) -> bool:
    text = str(getattr(error, "orig", error))
    kinds = (DBAPIError, sqlite3.Error)
    return isinstance(error, kinds) and any(word in text for word in ("disk is full", "disk I/O", "readonly"))
