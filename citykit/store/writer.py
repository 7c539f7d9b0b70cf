"""One thread that owns the one writing connection of a SQLite file; units that come at once share a commit. For store and bus."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from citykit.errors import ResourceExhausted, Unavailable

T = TypeVar("T")


@dataclass(slots=True)
class _Work:
    run: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    then: Callable[[Any], None] | None
    result: Any = None
    error: BaseException | None = None


class GroupWriter:
    """Runs units one after another; each is all or nothing; a group of them is committed (and synced) once.

    Args:
        queue_max: units that may wait; one more is refused.
        group_max: units in one commit.
    """

    def __init__(self, engine: Engine, name: str, queue_max: int, group_max: int) -> None:
        self._engine = engine
        self._name = name
        self._queue: queue.Queue[_Work | None] = queue.Queue(queue_max)
        self._group_max = group_max
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"write-{name}", daemon=True)
        self._thread.start()

    async def submit(self, run: Callable[[Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Returns `run`'s result once it is durable.

        Args:
            then: called with the result on the event loop once it is durable, even when the caller was cancelled meanwhile: the unit
                stands all the same.

        Raises:
            ResourceExhausted: the queue is full.
            Unavailable: the commit failed; nothing of this unit was kept.
        """
        if self._closed:
            raise Unavailable(f"the store {self._name} is closed; nothing was changed", reason="closed")
        loop = asyncio.get_running_loop()
        work = _Work(run, loop, loop.create_future(), then)
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            raise ResourceExhausted(
                f"too much waits to be written to {self._name}; nothing was changed. Slow down and try again",
                reason="write-queue-full",
                retry_after_s=1.0,
            ) from None
        result: T = await work.future
        return result

    async def close(self) -> None:
        """Finishes what waits, then ends the thread."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        with self._engine.connect() as connection:
            last = False
            while not last:
                group, last = self._take()
                if group:
                    self._commit(connection, group)
                    _deliver(group)

    def _take(self) -> tuple[list[_Work], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        group = [first]
        while len(group) < self._group_max:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return group, True
            group.append(work)
        return group, False

    def _commit(self, connection: Connection, group: list[_Work]) -> None:
        try:
            with connection.begin():
                for work in group:
                    self._run(connection, work)
        except (DBAPIError, sqlite3.Error) as error:
            for work in group:
                work.error = work.error or self._away(error)
        except _GroupLost as lost:
            for work in group:
                work.error = work.error or self._away(lost.cause)

    def _run(self, connection: Connection, work: _Work) -> None:
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


def _deliver(group: list[_Work]) -> None:
    loops = {id(work.loop): work.loop for work in group}
    for key, loop in loops.items():
        mine = [work for work in group if id(work.loop) == key]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(group: list[_Work]) -> None:
    for work in group:
        if work.error is None and work.then is not None:
            work.then(work.result)
        if work.future.cancelled():
            continue
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.result)
