"""Commits groups of units to PostgreSQL, and is sure of each commit's outcome. Run by `citykit.store.writer`.

One process writes to a schema. It holds an advisory lock for as long as its connection lives, and every group counts up a row that
bears the process's epoch: a process that was taken over changes no row of it and stops writing for good. The same count says after a
lost connection whether the group was committed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from citykit.errors import CityError, Unavailable
from citykit.store.postgres.connections import away, is_broken, is_broken_connection, unavailable
from citykit.store.writer import Work

_RETRY_S = 0.2
_SETTLE_EVERY_S = 0.2
_FAULTS = (DBAPIError, psycopg.Error)
_SEAL = 'UPDATE kit_writer SET groups = groups + 1 WHERE "one" = 1 AND epoch = %s RETURNING groups'
_SEALED = 'SELECT epoch, groups FROM kit_writer WHERE "one" = 1'
_TAKE = """UPDATE kit_writer SET epoch = epoch + 1 WHERE "one" = 1 RETURNING epoch, groups"""
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('city writer of ' || current_schema(), 0))"
Refuse = Callable[[Callable[[], BaseException]], None]


class TakenOver(Unavailable):
    """Another process writes to this schema now."""

    default_reason = "taken-over"


def lock(driver: psycopg.Connection[Any]) -> bool:
    """Takes the schema's writing lock for this connection's life; False while another has it."""
    row = driver.execute(_LOCK).fetchone()
    driver.commit()
    return bool(row and row[0])


def take(driver: psycopg.Connection[Any]) -> tuple[int, int]:
    """Begins a new epoch: whoever wrote before is shut out. Returns the epoch and the count of groups so far."""
    epoch, groups = driver.execute(_TAKE).fetchone() or (0, 0)
    driver.commit()
    return int(epoch), int(groups)


class PostgresGroups:
    """See `citykit.store.writer.Committer`.

    Args:
        engine: a pool of one connection.
        connection: from that pool, with the lock.
        epoch, groups: as `take` returned them.
    """

    def __init__(self, engine: Engine, connection: Connection, name: str, epoch: int, groups: int) -> None:
        self._engine = engine
        self._name = name
        self._epoch = epoch
        self._groups = groups
        self._connection: Connection | None = connection
        self._next_try = 0.0
        self._over: TakenOver | None = None
        self.closing: Callable[[], bool] = lambda: False
        """Whether the store's end was asked for; given once the writer is there."""
        self.refuse: Refuse = lambda error: None
        """Ends what waits for the writer; given once the writer is there."""

    def commit(self, group: Sequence[Work]) -> None:
        try:
            connection = self._connected()
            self._run_all(connection, group)
            self._seal(connection)
        except Exception as error:
            self._give_up(group, error)
            return
        try:
            connection.commit()
        except _FAULTS as error:
            self._after_failed_commit(group, connection, error)
        else:
            self._groups += 1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _run_all(self, connection: Connection, group: Sequence[Work]) -> None:
        driver = _driver(connection)
        connection.begin()
        if len(group) == 1:
            self._run(connection, driver, group[0])
            if group[0].error is not None:
                raise away(self._name, "the unit failed")
            return
        driver.execute("SAVEPOINT unit")
        for work in group:
            self._run(connection, driver, work)
            end = "ROLLBACK TO unit; RELEASE unit" if work.error else "RELEASE unit"
            driver.execute(end if work is group[-1] else f"{end}; SAVEPOINT unit")

    def _run(self, connection: Connection, driver: psycopg.Connection[Any], work: Work) -> None:
        try:
            work.result = work.run(connection)
        except Exception as error:
            if is_broken(driver):
                raise
            work.error = unavailable(self._name, error) or error

    def _seal(self, connection: Connection) -> None:
        row = _driver(connection).execute(_SEAL, (self._epoch,)).fetchone()
        if row is None:
            raise self._taken_over()

    def _give_up(self, group: Sequence[Work], error: BaseException) -> None:
        """Nothing of the group is kept: every unit without an error of its own gets this one."""
        self._roll_back()
        word = (
            error if isinstance(error, CityError) else unavailable(self._name, error) or away(self._name, "it failed")
        )
        if word is not error:
            word.__cause__ = error
        for work in group:
            work.error = work.error or word

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        with contextlib.suppress(*_FAULTS):
            self._connection.rollback()
            self._connection.info.clear()  # what units remember of the database may have been rolled back
        if is_broken_connection(self._connection):
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _connected(self) -> Connection:
        """The writing connection; a new one where it was lost, with the lock, and only if nobody wrote in between.

        Raises:
            Unavailable: the server is away.
            TakenOver: another process writes.
        """
        if self._over is not None:
            raise self._over
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        if time.monotonic() < self._next_try:
            raise away(self._name, "it is not reached")
        self._next_try = time.monotonic() + _RETRY_S
        connection = self._engine.connect()
        driver = _driver(connection)
        try:
            if not lock(driver):
                raise away(self._name, "the connection that was lost still has the writing lock")
            epoch, _ = driver.execute(_SEALED).fetchone() or (0, 0)
            driver.commit()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        if epoch != self._epoch:
            connection.close()
            raise self._taken_over()
        return connection

    def _taken_over(self) -> TakenOver:
        self._over = TakenOver(
            f"another process writes to {self._name} since; this one changes nothing any more. Stop one of the two"
        )
        return self._over

    def _after_failed_commit(self, group: Sequence[Work], connection: Connection, error: BaseException) -> None:
        if not is_broken_connection(connection):
            self._give_up(group, error)
            return
        self._drop()
        if self._settled(group):
            self._groups += 1
        else:
            self._give_up(group, error)

    def _settled(self, group: Sequence[Work]) -> bool:
        """Asks the database, once it is back, whether the group was committed; until then nobody is told anything about it.

        What waits behind is refused meanwhile.
        """
        while True:
            try:
                return self._committed(self._connected())
            except (CityError, *_FAULTS) as error:
                word = error if isinstance(error, CityError) else away(self._name, "it is not reached")
                if self.closing() or isinstance(word, TakenOver):
                    self._unknown(group)
                    return False
                self.refuse(lambda word=word: word)  # type: ignore[misc]
                time.sleep(_SETTLE_EVERY_S)

    def _committed(self, connection: Connection) -> bool:
        driver = _driver(connection)
        _, groups = driver.execute(_SEALED).fetchone() or (0, 0)
        driver.commit()
        return bool(groups == self._groups + 1)

    def _unknown(self, group: Sequence[Work]) -> None:
        for work in group:
            work.error = work.error or Unavailable(
                f"the database of {self._name} went away while it committed: whether this was kept is not known."
                " Ask again with the same request id",
                reason="outcome-unknown",
                retry_after_s=5.0,
            )


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: Any = connection.connection.driver_connection
    found: psycopg.Connection[Any] = driver
    return found
