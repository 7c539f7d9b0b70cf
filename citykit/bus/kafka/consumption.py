"""One subscription on Kafka: a thread owns the client and polls it always; lanes on the event loop do the work. Used by `bus`.

The thread polls however long a handler takes, so the group never takes a slow consumer for a dead one; partitions whose lane is
full are paused, so memory stays bounded. What is dealt with comes back through a queue and is committed by the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from citykit.bus.delivery import Publish
from citykit.bus.kafka.client import Client, ClientFault, Consumer, GivenUp, Place
from citykit.bus.kafka.lane import Finished, Item, Lane
from citykit.bus.kafka.names import Names
from citykit.bus.port import MESSAGE_MAX_BYTES, Record, Subscription
from citykit.bus.rules import replayed
from citykit.settings import KafkaSettings
from citykit.telemetry import BUS_REBALANCES, BUS_REPLACED

log = logging.getLogger("city.bus")

LANE_BYTES_MAX = 4 * MESSAGE_MAX_BYTES
"""A partition's records that wait for the handler; the partition is paused above it."""
_POLL_RECORDS = 2_000
_IDLE_S, _BUSY_S = 0.1, 0.02
_COMMIT_EVERY_S = 0.05
_REOPEN_S = 0.5
_ITEM_BYTES = 200
"""What a record costs besides its value."""


@dataclass(frozen=True)
class Standing:
    """What an independent look at a group says.

    Attributes:
        behind: records wait that the group has not committed.
        committed: its offsets; where they stand still, nobody works.
    """

    behind: bool
    committed: Mapping[Place, int]


Look = Callable[[str, Sequence[Place]], Standing]
"""Group and places (none: all of the subscription's) to their standing; blocks, raises ClientFault."""


class Consumption:
    """Implements `citykit.bus.kafka.client.Owner`. `start` and `stop` are for the loop, the rest is the thread's."""

    def __init__(
        self,
        subscription: Subscription,
        names: Names,
        client: Client,
        settings: KafkaSettings,
        publish: Publish,
        look: Look,
    ) -> None:
        self._subscription = subscription
        self._names = names
        self._client = client
        self._settings = settings
        self._publish = publish
        self._look = look
        self._group = names.group(subscription.group)
        self._topics = [made for name in subscription.topics for made in (names.topic(name), names.retry(name))]
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._done = asyncio.Event()
        self._lanes: dict[Place, Lane] = {}
        self._earlier: dict[Place, Lane] = {}
        self._finished: deque[tuple[Lane, Finished]] = deque()
        self._offsets: dict[Place, int] = {}
        self._heard_at = self._committed_at = time.monotonic()
        self._standing: Standing | None = None
        self._thread = threading.Thread(target=self._run, name=f"kafka-{self._group}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Returns when the batches in hand are finished and committed, and the group is left."""
        self._stopping.set()
        await self._done.wait()
        self._thread.join()

    def waiting_bytes(self) -> int:
        """Of records that wait for the handler."""
        return sum(lane.waiting_bytes for lane in list(self._lanes.values()))

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._serve()
                except Exception as error:  # whatever it was: a consumer that ended in silence would be worse
                    self._report(error)
                    self._stopping.wait(_REOPEN_S)
            self._wait_for_lanes()
        finally:
            self._loop.call_soon_threadsafe(self._done.set)

    def _serve(self) -> None:
        consumer = self._client.consumer(self._settings, self._group, self._topics, self)
        self._heard_at, self._standing = time.monotonic(), None
        try:
            while not self._stopping.is_set():
                self._step(consumer)
            self._finish(consumer)
        finally:
            consumer.close()
            self.lost(list(self._lanes))

    def _step(self, consumer: Consumer) -> None:
        self._collect()
        self._commit(consumer)
        if ended := [place for place, lane in self._lanes.items() if lane.ended]:
            raise ClientFault(f"the work on {ended[0]} ended before it was stopped")
        self._balance(consumer)
        busy = any(lane.waiting_records for lane in self._lanes.values())
        found = consumer.poll(max(_POLL_RECORDS, self._subscription.batch_max), _BUSY_S if busy else _IDLE_S)
        now = time.monotonic()
        if found or busy:
            self._heard_at, self._standing = now, None
        self._hand_over(found)
        if now - self._heard_at > self._settings.stalled_s:
            self._look_whether_stalled(now)

    def _finish(self, consumer: Consumer) -> None:
        """The member stays in the group, and reads nothing more, until the batches in hand are finished."""
        given_up = self._stop_lanes(self._lanes)
        while not given_up():
            consumer.pause([place for place, lane in self._lanes.items() if not lane.paused])
            consumer.poll(1, _BUSY_S)
        self._collect()
        self._committed_at = 0.0
        self._commit(consumer)

    def _wait_for_lanes(self) -> None:
        """What a fault left in hand is finished too, though nobody can commit it."""
        lanes = [*self._lanes.values(), *self._earlier.values()]
        while not all(lane.ended for lane in lanes):
            time.sleep(_BUSY_S)

    def _collect(self) -> None:
        while self._finished:
            lane, batch = self._finished.popleft()
            lane.waiting_records -= batch.records
            lane.waiting_bytes -= batch.size
            lane.next_offset = batch.end
            if not lane.gone:
                self._offsets[lane.place] = batch.end

    def _commit(self, consumer: Consumer) -> None:
        now = time.monotonic()
        if self._offsets and now - self._committed_at >= _COMMIT_EVERY_S:
            offsets, self._offsets = self._offsets, {}
            self._committed_at = now
            try:
                consumer.commit(offsets)
            except ClientFault:
                # The brokers are away: tried again with what is finished meanwhile.
                self._offsets = offsets | self._offsets
                raise

    def _balance(self, consumer: Consumer) -> None:
        """Pauses the partitions whose lanes are full, and resumes those half empty."""
        records_max = 2 * self._subscription.batch_max
        full, free = [], []
        for place, lane in self._lanes.items():
            over = lane.waiting_records >= records_max or lane.waiting_bytes >= LANE_BYTES_MAX
            under = lane.waiting_records <= records_max // 2 and lane.waiting_bytes <= LANE_BYTES_MAX // 2
            if over and not lane.paused:
                full.append(place)
            elif under and lane.paused:
                free.append(place)
        if full:
            consumer.pause(full)
        if free:
            consumer.resume(free)
        for place in full + free:
            self._lanes[place].paused = place in full

    def _hand_over(self, found: Mapping[Place, Sequence[Record]]) -> None:
        for place, records in found.items():
            lane = self._lanes.get(place)
            if lane is None:
                raise ClientFault(f"records of {place} came, which is not this consumer's")
            if lane.next_offset is None:
                lane.next_offset = records[0].offset
            items = [self._item(record) for record in records]
            lane.waiting_records += len(items)
            lane.waiting_bytes += sum(item.size for item in items)
            self._loop.call_soon_threadsafe(lane.feed, items)

    def _item(self, found: Record) -> Item:
        size = len(found.value) + len(found.key) + _ITEM_BYTES
        end = found.offset + 1
        if not self._names.is_retry(found.topic):
            return Item(
                end, found if not self._names.prefix else replace(found, topic=self._names.bare(found.topic)), size
            )
        mine = found.headers.get("dl_group") == self._subscription.group.encode()
        return Item(end, replayed(found) if mine else None, size)

    # --- the owner of partitions -------------------------------------------------------------------

    def assigned(self, places: Iterable[Place]) -> None:
        BUS_REBALANCES.labels(self._subscription.group).inc()
        for place in places:
            lane = Lane(place, self._subscription, self._publish, lambda *found: self._finished.append(found))
            self._lanes[place] = lane
            self._loop.call_soon_threadsafe(lane.start, self._earlier.get(place))

    def giving_up(self, places: Iterable[Place]) -> Callable[[], bool]:
        given_up = self._stop_lanes([place for place in places if place in self._lanes])
        end = time.monotonic() + self._settings.revoke_s
        return lambda: given_up() or time.monotonic() > end

    def given_up(self, places: Iterable[Place]) -> GivenUp:
        self._collect()
        commit = {place: self._offsets.pop(place) for place in places if place in self._offsets}
        lanes = [self._lanes[place] for place in places if place in self._lanes]
        read_again = {lane.place: lane.next_offset for lane in lanes if lane.next_offset is not None}
        self.lost(places)
        return GivenUp(commit, read_again)

    def lost(self, places: Iterable[Place]) -> None:
        for place in places:
            self._offsets.pop(place, None)
            if lane := self._lanes.pop(place, None):
                lane.gone = True
                self._loop.call_soon_threadsafe(lane.stop)
                self._earlier[place] = lane

    def _stop_lanes(self, places: Iterable[Place]) -> Callable[[], bool]:
        lanes = [self._lanes[place] for place in places]
        for lane in lanes:
            self._loop.call_soon_threadsafe(lane.stop)
        return lambda: all(lane.ended for lane in lanes)

    # --- watching ----------------------------------------------------------------------------------

    def _look_whether_stalled(self, now: float) -> None:
        """A client that gets nothing although records wait, and nobody else takes them, is replaced.

        Raises:
            ClientFault: so it is.
        """
        before, self._standing = self._standing, self._look(self._group, tuple(self._lanes))
        self._heard_at = now
        if before is not None and self._standing.behind and self._standing == before:
            BUS_REPLACED.labels(self._subscription.group).inc()
            raise ClientFault(f"nothing came for {2 * self._settings.stalled_s:.0f} s while records waited")

    def _report(self, error: Exception) -> None:
        why = str(error) if isinstance(error, ClientFault) else type(error).__name__
        log.warning("consumer-failed", extra={"fields": {"group": self._group, "why": why}})
