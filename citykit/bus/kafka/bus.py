"""The bus on Kafka; see `citykit.bus.port.Bus`. Everything here is the same for both clients. Made by `open_kafka_bus`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from citykit.bus.kafka import confluent_client, python_client
from citykit.bus.kafka.client import Client, ClientFault, Outgoing, Place
from citykit.bus.kafka.consumption import Consumption, Standing
from citykit.bus.kafka.expected import check_brokers_topics
from citykit.bus.kafka.inspector import Inspector
from citykit.bus.kafka.names import REPLAY_GROUP, Names
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.sender import Sender
from citykit.bus.port import Message, Record, Subscription, TopicState
from citykit.bus.rules import (
    PUBLISH_MAX,
    RETRY,
    again,
    check_publishable,
    check_topics,
    partition_of,
    unknown_topic,
)
from citykit.bus.topics import Topic
from citykit.errors import EnvironmentFault, Unavailable
from citykit.settings import KafkaSettings
from citykit.telemetry import BUS_PUBLISHED

T = TypeVar("T")
_CLIENTS: dict[str, Client] = {"kafka-python": python_client.CLIENT, "confluent-kafka": confluent_client.CLIENT}


class KafkaBus:
    """The adapter."""

    def __init__(self, topics: Iterable[Topic], settings: KafkaSettings, inspector: Inspector) -> None:
        self._topics = {topic.name: topic for topic in topics}
        self._settings = settings
        self._names = Names(settings.prefix)
        self._client = _CLIENTS[settings.client]
        self._inspector = inspector
        self._sender = Sender(self._client, settings)
        self._consumptions: set[Consumption] = set()
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="kafka-look")

    async def open(self) -> None:
        """Connects the producer; raises Unavailable."""
        try:
            await self._sender.open()
        except ClientFault as error:
            raise _away(error) from error

    # --- publishing --------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        check_publishable(messages, self._topics)
        await self._sender.publish([self._outgoing(message) for message in messages])
        for topic, count in Counter(message.topic for message in messages).items():
            BUS_PUBLISHED.labels(topic).inc(count)

    def _outgoing(self, message: Message) -> Outgoing:
        topic = self._names.topic(message.topic)
        partition = partition_of(message, self._topics)
        return Outgoing(topic, partition, message.key.encode(), message.value, list(message.headers.items()))

    # --- consuming ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def consume(self, subscription: Subscription) -> AsyncIterator[None]:
        check_topics(subscription.topics, self._topics)
        look = partial(self._standing, subscription)
        consumption = Consumption(subscription, self._names, self._client, self._settings, self.publish, look)
        consumption.start()
        self._consumptions.add(consumption)
        try:
            yield
        finally:
            await consumption.stop()
            self._consumptions.discard(consumption)

    def waiting_bytes(self) -> int:
        """Of records fetched and not dealt with yet, roughly; limited per partition."""
        return sum(consumption.waiting_bytes() for consumption in list(self._consumptions))

    async def caught_up(self, subscription: Subscription) -> bool:
        group = self._names.group(subscription.group)
        return not (await self._look(partial(self._standing, subscription, group, ()))).behind

    def _standing(self, subscription: Subscription, group: str, places: Sequence[Place]) -> Standing:
        committed = self._inspector.committed([group]).get(group, {})
        wanted = places or self._places(subscription)
        # A group that never committed begins at the first record there is.
        begins = self._inspector.begins(place for place in wanted if place not in committed)
        at = {place: committed.get(place, begins.get(place, 0)) for place in wanted}
        ends = self._inspector.ends(wanted)
        return Standing(any(at[place] < end for place, end in ends.items()), at)

    def _places(self, subscription: Subscription) -> list[Place]:
        own = [place for name in subscription.topics for place in self._partitions(name)]
        return own + [(self._names.retry(name), 0) for name in subscription.topics]

    def _partitions(self, name: str) -> list[Place]:
        return [(self._names.topic(name), number) for number in range(self._topics[name].partitions)]

    # --- looking -----------------------------------------------------------------------------------

    async def topics(self) -> Sequence[TopicState]:
        return await self._look(self._states)

    def _states(self) -> Sequence[TopicState]:
        places = [place for name in self._topics for place in self._partitions(name)]
        begins, ends = self._inspector.begins(places), self._inspector.ends(places)
        prefix = self._settings.prefix
        groups = [name for name in self._inspector.groups() if name.startswith(prefix)]
        committed = {name.removeprefix(prefix): at for name, at in self._inspector.committed(groups).items()}
        committed.pop(REPLAY_GROUP, None)
        states = []
        for name, topic in self._topics.items():
            own = self._partitions(name)
            lag = {
                group: sum(max(0, ends[place] - at.get(place, begins[place])) for place in own)
                for group, at in sorted(committed.items())
                if any(place in at for place in own)
            }
            records = sum(ends[place] - begins[place] for place in own)
            states.append(TopicState(name, topic.partitions, records, {n: ends[t, n] for t, n in own}, lag))
        return states

    async def dead_letters(self) -> AsyncIterator[Record]:
        for topic in self._topics:
            start, end = await self._look(partial(self._open_letters, topic))
            async for record in self._letters(topic, start, end):
                yield record

    def _open_letters(self, topic: str) -> tuple[int, int]:
        """From where to where letters were not put back yet."""
        place = (self._names.letters(topic), 0)
        group = self._names.group(REPLAY_GROUP)
        start = self._inspector.begins([place])[place]
        return max(start, self._inspector.committed([group])[group].get(place, 0)), self._inspector.ends([place])[place]

    async def _letters(self, topic: str, start: int, end: int) -> AsyncIterator[Record]:
        found = self._inspector.read((self._names.letters(topic), 0), start, end)
        try:
            while batch := await self._look(partial(next, found, None)):
                for item in batch:
                    yield Record(
                        self._names.bare(item.topic), item.partition, item.offset, item.key, item.value, item.headers
                    )
        finally:
            await self._look(found.close)

    async def replay(self, topic: str) -> int:
        if topic not in self._topics:
            raise unknown_topic(topic, self._topics, "topic")
        start, end = await self._look(partial(self._open_letters, topic))
        if start == end:
            return 0
        letters = [again(letter, topic + RETRY) async for letter in self._letters(topic, start, end)]
        for first in range(0, len(letters), PUBLISH_MAX):
            await self.publish(letters[first : first + PUBLISH_MAX])
        place, group = (self._names.letters(topic), 0), self._names.group(REPLAY_GROUP)
        await self._look(partial(self._inspector.commit, group, {place: end}))
        return len(letters)

    async def prune(self) -> int:
        """The brokers delete by each topic's retention."""
        return 0

    async def _look(self, ask: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._looking, ask)
        except ClientFault as error:
            raise _away(error) from error
        except PermissionError as error:
            raise Unavailable(
                f"the brokers refuse this user ({error}); `city bus topics --apply` sets the rights"
            ) from error

    async def close(self) -> None:
        await self._sender.close()
        await asyncio.to_thread(self._inspector.close)
        self._looking.shutdown(wait=True)


async def open_kafka_bus(topics: Iterable[Topic], settings: KafkaSettings) -> KafkaBus:
    """Connects, and checks what would otherwise fail later.

    Raises:
        SettingsError: a setting that is not allowed or is missing.
        EnvironmentFault: brokers away, TLS or credentials that do not hold, topics missing or with other settings; says what to do.
    """
    wanted = tuple(topics)
    inspector = await asyncio.to_thread(preflight, settings)
    try:
        await asyncio.to_thread(check_brokers_topics, wanted, settings, inspector)
    except ClientFault as error:
        raise EnvironmentFault(
            f"the brokers at {settings.bootstrap} stopped answering ({error}); start again"
        ) from error
    bus = KafkaBus(wanted, settings, inspector)
    try:
        await bus.open()
    except BaseException:
        await bus.close()
        raise
    return bus


def _away(error: ClientFault) -> Unavailable:
    return Unavailable(f"the message bus does not answer ({error}); it is tried again", retry_after_s=1.0)
