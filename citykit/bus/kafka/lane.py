"""The work on one partition: batches to the handler, one after the other, on the event loop. Used by `consumption`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from citykit.bus.delivery import Publish, deliver
from citykit.bus.kafka.client import Place
from citykit.bus.port import MESSAGE_MAX_BYTES, Record, Subscription
from citykit.telemetry import BUS_HANDLED

BATCH_BYTES_MAX = 8 * MESSAGE_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Item:
    """A record on its way to the handler.

    Attributes:
        end: the offset to commit once it is dealt with.
        record: None where it is not for this group.
    """

    end: int
    record: Record | None
    size: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A batch that is dealt with."""

    end: int
    records: int
    size: int


class Lane:
    """Made by the consumer's thread, runs on the loop. `waiting_records` and `waiting_bytes` are the thread's own count.

    Attributes:
        gone: the partition is no longer this consumer's; what finishes now is not committed.
        ended: stopped, and no batch in hand.
        next_offset: of the first record that is not dealt with; None before any came.
    """

    def __init__(
        self, place: Place, subscription: Subscription, publish: Publish, finished: Callable[[Lane, Finished], None]
    ) -> None:
        self.place = place
        self.gone = False
        self.ended = False
        self.waiting_records = 0
        self.waiting_bytes = 0
        self.paused = True  # a client that had this partition before may have kept it so
        self.next_offset: int | None = None
        self._subscription = subscription
        self._publish = publish
        self._finished = finished
        self._items: deque[Item] = deque()
        self._grew = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, before: Lane | None) -> None:
        """On the loop. Work begins when the same partition's earlier work has ended, so that order holds across a quick return."""
        self._task = asyncio.create_task(self._run(before), name=f"bus-{self._subscription.group}-{self.place[1]}")

    def feed(self, items: Sequence[Item]) -> None:
        """On the loop."""
        self._items += items
        self._grew.set()

    def stop(self) -> None:
        """On the loop: the batch in hand is finished, nothing else is begun."""
        self._stopping.set()
        self._grew.set()

    async def _run(self, before: Lane | None) -> None:
        try:
            if before is not None and before._task is not None:
                await asyncio.wait([before._task])
            while not self._stopping.is_set():
                if batch := self._take():
                    if not await self._deal_with(batch):
                        return
                else:
                    self._grew.clear()
                    await self._grew.wait()
        finally:
            self._items.clear()
            self.ended = True

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._items and len(batch) < self._subscription.batch_max:
            size += self._items[0].size
            if batch and size > BATCH_BYTES_MAX:
                break
            batch.append(self._items.popleft())
        return batch

    async def _deal_with(self, batch: Sequence[Item]) -> bool:
        """True when all of it is dealt with; what is dealt with is told in any case."""
        records = [item.record for item in batch if item.record is not None]
        done = await deliver(self._subscription, records, self._stopping, self._publish)
        if done:
            BUS_HANDLED.labels(records[0].topic, self._subscription.group).inc(done)
        finished = _first(batch, done)
        if finished:
            size = sum(item.size for item in finished)
            self._finished(self, Finished(finished[-1].end, len(finished), size))
        return done == len(records)


def _first(batch: Sequence[Item], records: int) -> Sequence[Item]:
    """The items up to the last that is dealt with when so many records are; those for other groups need nothing."""
    left = records
    for number, item in enumerate(batch):
        if item.record is not None:
            if left == 0:
                return batch[:number]
            left -= 1
    return batch
