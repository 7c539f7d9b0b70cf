"""Cutting blocks: what waits is taken together, after so long or when it is enough. Used by the embedded ledger and the development peer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.001


class Cutter(Generic[T]):
    """A queue with one task that hands its content to `commit`, batch by batch.

    Args:
        commit: takes a batch of 1 to `block_max` items; the next waits for it.
        wait_s: how long a batch waits for company.
        pending_max: items that may wait.
    """

    def __init__(
        self, commit: Callable[[list[T]], Awaitable[None]], *, block_max: int, wait_s: float, pending_max: int
    ) -> None:
        self._commit = commit
        self._block_max = block_max
        self._wait_s = wait_s
        self._pending_max = pending_max
        self._pending: list[T] = []
        self._arrived = asyncio.Event()
        self._committing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._pending)

    @property
    def runs(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self, name: str) -> None:
        self._task = asyncio.create_task(self._cut(), name=name)

    def add(self, item: T) -> bool:
        """Queues an item; False if it is full or stopped, and the item was not taken."""
        if not self.runs or len(self._pending) >= self._pending_max:
            return False
        self._pending.append(item)
        self._arrived.set()
        return True

    async def stop(self) -> None:
        """Commits what waits, then ends."""
        while (self._pending or self._committing) and self.runs:
            await asyncio.sleep(max(self._wait_s, _POLL_S))
        await self.abandon()

    async def abandon(self) -> None:
        """Ends at once; what waits is not committed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _cut(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._pending) < self._block_max:
                await asyncio.sleep(self._wait_s)
            batch, self._pending = self._pending[: self._block_max], self._pending[self._block_max :]
            if not self._pending:
                self._arrived.clear()
            self._committing = True
            try:
                await self._commit(batch)
            finally:
                self._committing = False
