"""One thread that owns the one writing connection of a database; units that come at once share a commit. For stores and the local bus."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from citykit.errors import ResourceExhausted, Unavailable
from citykit.telemetry import STORE_COMMIT_SECONDS, STORE_QUEUE

T = TypeVar("T")


@dataclass(slots=True)
class Work:
    """One unit that waits: what to run, and how it ended. A `Committer` fills `result` or `error`."""

    run: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    then: Callable[[Any], None] | None
    result: Any = None
    error: BaseException | None = None


class Committer(Protocol):
    """The database's side of the writer. Called from the writer's thread only."""

    def commit(self, group: Sequence[Work]) -> None:
        """Runs the units one after another, each all or nothing, and makes them durable at once. Raises nothing: errors go to the units."""

    def close(self) -> None:
        """Gives the connection back."""


class GroupWriter:
    """Runs units one after another; each is all or nothing; a group of them is committed (and synced) once.

    Args:
        queue_max: units that may wait; one more is refused.
        group_max: units in one commit.
    """

    def __init__(self, committer: Committer, name: str, queue_max: int, group_max: int) -> None:
        self._committer = committer
        self._name = name
        self._queue: queue.Queue[Work | None] = queue.Queue(queue_max)
        self._group_max = group_max
        self._closed = False
        self._last = False
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
        work = Work(run, loop, loop.create_future(), then)
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

    @property
    def closing(self) -> bool:
        """Whether the end was asked for; read by a committer that waits for its database."""
        return self._closed

    def refuse(self, error: Callable[[], BaseException]) -> None:
        """Ends what waits with an error each, unrun. Called by a committer, in the writer's thread, while its database is away."""
        refused: list[Work] = []
        with contextlib.suppress(queue.Empty):
            while not self._last:
                work = self._queue.get_nowait()
                if work is None:
                    self._last = True
                else:
                    work.error = error()
                    refused.append(work)
        _deliver(refused)

    def _serve(self) -> None:
        seconds, waiting = STORE_COMMIT_SECONDS.labels(self._name), STORE_QUEUE.labels(self._name)
        while not self._last:
            group, last = self._take()
            if group:
                with seconds.time():
                    self._committer.commit(group)
                waiting.set(self._queue.qsize())
                _deliver(group)
            self._last |= last
        self._committer.close()

    def _take(self) -> tuple[list[Work], bool]:
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


def _deliver(group: list[Work]) -> None:
    loops = {id(work.loop): work.loop for work in group}
    for key, loop in loops.items():
        mine = [work for work in group if id(work.loop) == key]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(group: list[Work]) -> None:
    for work in group:
        if work.error is None and work.then is not None:
            work.then(work.result)
        if work.future.cancelled():
            continue
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.result)
