"""The embedded bus: a durable partitioned log in one SQLite file, consumer groups, at least once. Used by `city run`.

One process owns the file. Partitions of a group are shared out among its consumers in this process; a partition changes hands
only when the batch in hand is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from citykit.bus.delivery import deliver
from citykit.bus.headers import decode_headers, encode_headers
from citykit.bus.port import MESSAGE_MAX_BYTES, Message, Record, Subscription, TopicState
from citykit.bus.rules import (
    PUBLISH_MAX,
    RETRY,
    again,
    check_publishable,
    check_topics,
    partition_of,
    replayed,
    unknown_topic,
)
from citykit.bus.topics import DEAD_LETTERS, Topic
from citykit.errors import EnvironmentFault
from citykit.settings import BusSettings
from citykit.store.engine import sqlite_engine
from citykit.store.sqlite_groups import SqliteGroups
from citykit.store.writer import GroupWriter
from citykit.telemetry import BUS_HANDLED, BUS_PUBLISHED

log = logging.getLogger("city.bus")

_BATCH_BYTES_MAX = 8 * MESSAGE_MAX_BYTES
_QUEUE_MAX = 1_000
_READERS = 4
_AGAIN_S = 0.5
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
  topic TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
  key TEXT NOT NULL, value BLOB NOT NULL, headers BLOB NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (topic, partition, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends (topic TEXT, partition INTEGER, position INTEGER NOT NULL, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS commits (
  consumer_group TEXT, topic TEXT, partition INTEGER, position INTEGER NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)
);
"""
_INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)"
_UPSERT_END = "INSERT INTO ends VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET position = excluded.position"
_UPSERT_COMMIT = (
    "INSERT INTO commits VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET position = MAX(position, excluded.position)"
)


def retry_topic(topic: str, group: str) -> str:
    """Where replayed dead letters of one group go: no other group reads it."""
    return f"{topic}{RETRY}.{group}"


@dataclass
class _Group:
    """Consumers of one group in this process and who works on which partition."""

    members: list[int] = field(default_factory=list)
    locks: dict[tuple[str, int], asyncio.Lock] = field(default_factory=dict)


class LocalBus:
    """The adapter; see `citykit.bus.port.Bus`. Made by `open_local_bus`."""

    def __init__(self, path: Path, topics: Iterable[Topic], settings: BusSettings) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._settings = settings
        self._engine = sqlite_engine(path)
        with self._engine.connect() as connection, connection.begin():
            driver: Any = connection.connection.driver_connection
            for statement in filter(None, (part.strip() for part in _SCHEMA.split(";"))):
                driver.execute(statement)
            self._ends = {(t, p): n for t, p, n in driver.execute("SELECT * FROM ends")}
            self._commits = {(g, t, p): n for g, t, p, n in driver.execute("SELECT * FROM commits")}
        self._writer = GroupWriter(SqliteGroups(self._engine, path.stem), path.stem, _QUEUE_MAX, 64)
        self._read_engine = sqlite_engine(path, readers=_READERS)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read-bus")
        self._groups: dict[str, _Group] = {}
        self._grew = asyncio.Condition()
        self._next_member = 0

    # --- publishing --------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        check_publishable(messages, self._topics)
        if not messages:
            return
        placed = [(message, partition_of(message, self._topics)) for message in messages]
        await self._writer.submit(lambda connection: self._append(connection, placed), self._ends.update)
        for topic, count in Counter(message.topic for message in messages).items():
            BUS_PUBLISHED.labels(topic).inc(count)
        await self._wake()

    def _append(self, connection: Connection, placed: list[tuple[Message, int]]) -> dict[tuple[str, int], int]:
        driver: Any = connection.connection.driver_connection
        ends: dict[tuple[str, int], int] = {}
        rows = []
        now = int(time.time())
        for message, partition in placed:
            place = (message.topic, partition)
            if place not in ends:
                ends[place] = self._end(driver, place)
            rows.append((*place, ends[place], message.key, message.value, encode_headers(message.headers), now))
            ends[place] += 1
        driver.executemany(_INSERT, rows)
        driver.executemany(_UPSERT_END, [(*place, end) for place, end in ends.items()])
        return ends

    def _end(self, driver: Any, place: tuple[str, int]) -> int:
        row = driver.execute("SELECT position FROM ends WHERE topic = ? AND partition = ?", place).fetchone()
        return int(row[0]) if row else 0

    async def _wake(self) -> None:
        async with self._grew:
            self._grew.notify_all()

    # --- consuming ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def consume(self, subscription: Subscription) -> AsyncIterator[None]:
        check_topics(subscription.topics, self._topics)
        group = self._groups.setdefault(subscription.group, _Group())
        self._next_member += 1
        member = self._next_member
        group.members.append(member)
        stopping = asyncio.Event()
        task = asyncio.create_task(self._serve(subscription, group, member, stopping), name=f"bus-{subscription.group}")
        try:
            yield
        finally:
            stopping.set()
            await self._wake()
            await asyncio.gather(task, return_exceptions=True)
            group.members.remove(member)
            await self._wake()

    async def _serve(self, subscription: Subscription, group: _Group, member: int, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            places = self._assigned(subscription, group, member)
            worked = await asyncio.gather(*(self._try(subscription, group, place, stopping) for place in places))
            if not any(worked):
                await self._wait_for_more(subscription, group, member, stopping)

    def _assigned(self, subscription: Subscription, group: _Group, member: int) -> list[tuple[str, int]]:
        places = self._places(subscription)
        mine = group.members.index(member)
        return [place for number, place in enumerate(places) if number % len(group.members) == mine]

    def _places(self, subscription: Subscription) -> list[tuple[str, int]]:
        own = [(name, n) for name in subscription.topics for n in range(self._topics[name].partitions)]
        return own + [(retry_topic(name, subscription.group), 0) for name in subscription.topics]

    def _behind(self, group: str, place: tuple[str, int]) -> bool:
        return bool(self._commits.get((group, *place), 0) < self._ends.get(place, 0))

    async def _wait_for_more(
        self, subscription: Subscription, group: _Group, member: int, stopping: asyncio.Event
    ) -> None:
        size = len(group.members)

        def ready() -> bool:
            if stopping.is_set() or len(group.members) != size:
                return True
            return any(self._behind(subscription.group, place) for place in self._assigned(subscription, group, member))

        async with self._grew:
            await self._grew.wait_for(ready)

    async def _try(
        self, subscription: Subscription, group: _Group, place: tuple[str, int], stopping: asyncio.Event
    ) -> bool:
        """A step that fails by itself (no room on the disk for its commit) is taken again: nothing but a stop ends a consumer."""
        try:
            return await self._step(subscription, group, place, stopping)
        except Exception as error:
            fields = {"group": subscription.group, "topic": place[0], "why": type(error).__name__}
            log.warning("consumer-failed", extra={"fields": fields})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await stopping.wait()
            return True

    async def _step(
        self, subscription: Subscription, group: _Group, place: tuple[str, int], stopping: asyncio.Event
    ) -> bool:
        """One batch of one partition; True if there was one."""
        if not self._behind(subscription.group, place):
            return False
        async with group.locks.setdefault(place, asyncio.Lock()):
            start = self._commits.get((subscription.group, *place), 0)
            batch = await self._fetch(place, start, subscription.batch_max)
            if not batch:
                return False
            done = await deliver(subscription, [record for _, record in batch], stopping, self.publish)
            if not done:
                return False
            end = batch[done - 1][0] + 1
            await self._writer.submit(lambda connection: _save_commit(connection, subscription.group, place, end))
            self._commits[(subscription.group, *place)] = end
            BUS_HANDLED.labels(place[0], subscription.group).inc(done)
            return True

    async def _fetch(self, place: tuple[str, int], start: int, limit: int) -> list[tuple[int, Record]]:
        rows = await asyncio.get_running_loop().run_in_executor(self._readers, self._select, place, start, limit)
        batch: list[tuple[int, Record]] = []
        size = 0
        for position, key, value, headers in rows:
            size += len(value)
            if batch and size > _BATCH_BYTES_MAX:
                break
            batch.append((position, _record(place, position, key, value, decode_headers(headers))))
        return batch

    def _select(self, place: tuple[str, int], start: int, limit: int) -> list[Any]:
        sql = (
            "SELECT position, key, value, headers FROM messages"
            " WHERE topic = ? AND partition = ? AND position >= ? ORDER BY position LIMIT ?"
        )
        with self._read_engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            return list(driver.execute(sql, (*place, start, limit)).fetchall())

    # --- looking -----------------------------------------------------------------------------------

    async def topics(self) -> Sequence[TopicState]:
        return [self._state(topic) for topic in self._topics.values()]

    def _state(self, topic: Topic) -> TopicState:
        ends = {n: self._ends.get((topic.name, n), 0) for n in range(topic.partitions)}
        groups = {group for group, name, _ in self._commits if name == topic.name} | set(self._groups)
        lag = {
            group: sum(end - self._commits.get((group, topic.name, n), 0) for n, end in ends.items())
            for group in groups
            if any(key[:2] == (group, topic.name) for key in self._commits)
        }
        return TopicState(topic.name, topic.partitions, sum(ends.values()), ends, lag)

    async def caught_up(self, subscription: Subscription) -> bool:
        """True when nothing of the subscription waits."""
        return not any(self._behind(subscription.group, place) for place in self._places(subscription))

    async def dead_letters(self) -> AsyncIterator[Record]:
        for topic in self._topics:
            async for record in self._letters(topic):
                yield record

    async def _letters(self, topic: str) -> AsyncIterator[Record]:
        place = (topic + DEAD_LETTERS, 0)
        position = self._commits.get(("", *place), 0)
        while batch := await self._fetch(place, position, 500):
            for found, record in batch:
                position = found + 1
                yield record

    async def replay(self, topic: str) -> int:
        if topic not in self._topics:
            raise unknown_topic(topic, self._topics, "topic")
        place = (topic + DEAD_LETTERS, 0)
        end = self._ends.get(place, 0)  # a letter that comes while these go is for the next replay
        letters = [record async for record in self._letters(topic) if record.offset < end]
        for start in range(0, len(letters), PUBLISH_MAX):
            part = letters[start : start + PUBLISH_MAX]
            await self.publish([again(letter, retry_topic(topic, _group_of(letter))) for letter in part])
        await self._writer.submit(lambda connection: _save_commit(connection, "", place, end))
        self._commits[("", *place)] = end
        return len(letters)

    async def prune(self) -> int:
        """Deletes messages every group has handled and that are past their hours; at most 50,000 a call."""
        oldest = int(time.time()) - self._settings.retention_hours * 3600
        floors = {place: self._floor(place) for place in self._ends}
        return await self._writer.submit(lambda connection: _remove_old(connection, floors, oldest))

    def _floor(self, place: tuple[str, int]) -> int:
        positions = [n for (_, topic, partition), n in self._commits.items() if (topic, partition) == place]
        return min(positions, default=0)

    async def close(self) -> None:
        await self._writer.close()
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        self._engine.dispose()


def open_local_bus(path: Path, topics: Iterable[Topic], settings: BusSettings) -> LocalBus:
    """Opens (or creates) the bus file.

    Raises:
        EnvironmentFault: the file cannot be opened or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return LocalBus(path, topics, settings)
    except OperationalError as error:
        raise EnvironmentFault(
            f"the bus file {path} cannot be opened or written ({error.orig}); check disk and rights"
        ) from error


def _record(place: tuple[str, int], position: int, key: str, value: bytes, headers: Mapping[str, bytes]) -> Record:
    record = Record(place[0], place[1], position, key, value, headers)
    return replayed(record) if RETRY in place[0] else record


def _group_of(letter: Record) -> str:
    return letter.headers["dl_group"].decode()


def _save_commit(connection: Connection, group: str, place: tuple[str, int], end: int) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute(_UPSERT_COMMIT, (group, *place, end))


def _remove_old(connection: Connection, floors: Mapping[tuple[str, int], int], oldest: int) -> int:
    driver: Any = connection.connection.driver_connection
    sql = (
        "DELETE FROM messages WHERE topic = ? AND partition = ? AND position IN (SELECT position FROM messages"
        " WHERE topic = ? AND partition = ? AND position < ? AND at < ? LIMIT 50000)"
    )
    return sum(driver.execute(sql, (*place, *place, floor, oldest)).rowcount for place, floor in floors.items())
