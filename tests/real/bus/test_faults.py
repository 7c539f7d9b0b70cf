"""Brokers killed and lost, consumers stalled and slow, partitions taken away: nothing acknowledged is lost, and order per key stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic, sleep

import pytest

from citykit.bus.kafka import KafkaBus
from citykit.bus.kafka.client import ClientFault, Place
from citykit.bus.kafka.inspector import Inspector
from citykit.bus.port import Bus, Message, Record, Subscription
from citykit.errors import Unavailable
from citykit.testing.bus_suite import Collector, in_order_per_key, messages, number
from citykit.testing.polling import until
from tests.real.bus.brokers import CLIENTS, Brokers, kafka_bus, make_topics

both = pytest.mark.parametrize("client", CLIENTS)
PATIENCE_S = 120.0
NEW_LEADERS_S, LOOK_S = 30.0, 0.2


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """One broker that these tests may kill."""
    brokers = Brokers(tmp_path_factory.mktemp("kafka-mortal"), 1)
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.stop()


class Stream:
    """Publishes numbered messages, part after part; what fails is published again, as a relay does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.acknowledged = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        task = asyncio.create_task(self._run(stopping))
        try:
            yield
        finally:
            stopping.set()
            await task

    async def _run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self._bus.publish(messages(50, keys=40, start=self.acknowledged))
            except Unavailable:
                continue
            self.acknowledged += 50


async def grows(collector: Collector, by: int) -> None:
    before = len(collector.records)
    await until(lambda: len(collector.records) >= before + by, f"{by} records more", limit_s=PATIENCE_S)


@both
async def test_a_broker_that_is_killed_and_started_again_costs_nothing_acknowledged(
    mortal: Brokers, client: str
) -> None:
    """The consumers run on through it: one that would get nothing until the end fails here."""
    settings = mortal.settings(client)
    together: list[Record] = []
    left, right = Collector(together), Collector(together)
    async with kafka_bus(settings) as bus, AsyncExitStack() as consumers:
        for collector in (left, right):
            await consumers.enter_async_context(bus.consume(Subscription("g", ("suite.one",), collector)))
        stream = Stream(bus)
        async with stream.running():
            await until(lambda: bool(left.records and right.records), "both to work", limit_s=PATIENCE_S)
            mortal.natives[0].kill()
            mortal.start()
            await grows(left, 100)
            await grows(right, 100)
        await until(
            lambda: {*map(number, together)} >= {*range(stream.acknowledged)},
            "all acknowledged",
            limit_s=PATIENCE_S,
        )
    assert in_order_per_key(together)


@both
async def test_one_broker_of_three_lost_stops_nothing(three_brokers: Brokers, client: str) -> None:
    settings = three_brokers.settings(client)
    together: list[Record] = []
    collector = Collector(together)
    async with kafka_bus(settings) as bus:
        stream = Stream(bus)
        async with bus.consume(Subscription("g", ("suite.one",), collector)):
            async with stream.running():
                await grows(collector, 100)
                three_brokers.natives[-1].kill()
                try:
                    reached = stream.acknowledged
                    await until(lambda: stream.acknowledged >= reached + 500, "publishing to go on", limit_s=PATIENCE_S)
                    await grows(collector, 500)
                finally:
                    three_brokers.start()
            await until(
                lambda: {*collector.numbers} >= {*range(stream.acknowledged)}, "all acknowledged", limit_s=PATIENCE_S
            )
    assert in_order_per_key(together)


@both
async def test_publishing_without_brokers_fails_in_time_and_goes_on_when_they_are_back(
    mortal: Brokers, client: str
) -> None:
    settings = mortal.settings(client, delivery_s=4.0, request_s=2.0)
    collector = Collector()
    async with kafka_bus(settings) as bus:
        await bus.publish(messages(50, topic="suite.two"))
        mortal.natives[0].kill()
        with pytest.raises(Unavailable, match="publish them again"):
            await bus.publish(messages(50, topic="suite.two", start=50))
        mortal.start()
        again = Message("suite.two", "key-0", (50).to_bytes(4, "big"))
        await until(lambda: _published(bus, again), "publishing to work again", limit_s=PATIENCE_S)
        async with bus.consume(Subscription("g", ("suite.two",), collector)):
            await until(lambda: {*collector.numbers} >= {*range(51)}, "all of before and after", limit_s=PATIENCE_S)
    assert in_order_per_key(collector.records)


async def _published(bus: Bus, message: Message) -> bool:
    try:
        await bus.publish([message])
    except Unavailable:
        return False
    return True


@both
async def test_a_batch_that_takes_too_long_when_its_partition_goes_is_done_again_by_the_next(
    one_broker: Brokers, client: str
) -> None:
    """And what the old owner finishes late is not committed: its partition was another's by then."""
    settings = one_broker.settings(client, revoke_s=0.2)
    gate, begun, together = asyncio.Event(), asyncio.Event(), Collector()
    hung: list[int] = []

    async def hangs(batch: Sequence[Record]) -> None:
        if gate.is_set():
            await together(batch)
            return
        hung.extend(map(number, batch))
        begun.set()
        await gate.wait()

    async with kafka_bus(settings) as bus, AsyncExitStack() as stack:
        await bus.publish(messages(400, keys=40))
        await stack.enter_async_context(bus.consume(Subscription("g", ("suite.one",), hangs, batch_max=20)))
        await begun.wait()
        # The second member gets two of the four partitions while their batches hang in the first.
        await stack.enter_async_context(bus.consume(Subscription("g", ("suite.one",), together, batch_max=20)))
        await until(lambda: len({r.partition for r in together.records}) == 2, "the second to work", limit_s=PATIENCE_S)
        gate.set()
        await until(lambda: {*together.numbers} == {*range(400)}, "all of it, the hung batches too", limit_s=PATIENCE_S)
    assert hung


@both
async def test_a_handler_slower_than_the_session_keeps_its_partitions(one_broker: Brokers, client: str) -> None:
    settings = one_broker.settings(client, session_s=2.0, revoke_s=0.1)
    calls: list[int] = []
    slow_s = 2.5 * settings.session_s

    async def slow(batch: Sequence[Record]) -> None:
        calls.extend(map(number, batch))
        end = monotonic() + slow_s
        await until(lambda: monotonic() > end, "the slow effect", limit_s=2 * slow_s)

    async with kafka_bus(settings) as bus:
        await bus.publish(messages(10, topic="suite.two"))
        subscription = Subscription("g", ("suite.two",), slow, batch_max=5)
        async with bus.consume(subscription):
            await until(lambda: bus.caught_up(subscription), "all ten, in two slow batches", limit_s=PATIENCE_S)
    assert calls == [*range(10)]


@both
async def test_what_waits_for_a_handler_stays_within_bounds(one_broker: Brokers, client: str) -> None:
    settings = one_broker.settings(client)
    gate, done = asyncio.Event(), Collector()
    count, size = 600, 100_000

    async def blocked(batch: Sequence[Record]) -> None:
        await gate.wait()
        await done(batch)

    async with kafka_bus(settings) as bus:
        for start in range(0, count, 100):
            await bus.publish(
                [Message("suite.two", "k", n.to_bytes(4, "big") + bytes(size)) for n in range(start, start + 100)]
            )
        async with bus.consume(Subscription("g", ("suite.two",), blocked, batch_max=500)):
            await until(lambda: bus.waiting_bytes() > 0, "records to wait")
            largest = await _largest(bus, 3.0)
            gate.set()
            await until(lambda: len(done.records) == count, "all of them", limit_s=PATIENCE_S)
    # A lane's limit, and at most what one fetch brought above it.
    assert 0 < largest < 4_400_000 + 2_000_000 + 8_000_000
    assert [int.from_bytes(record.value[:4], "big") for record in done.records] == [*range(count)]


@both
async def test_partitions_paused_and_resumed_over_and_over_give_all_they_hold(one_broker: Brokers, client: str) -> None:
    """One client forgot what it had fetched of a resumed partition, and fetched it no more."""
    settings = one_broker.settings(client, stalled_s=2 * PATIENCE_S)
    collector, count = Collector(), 30_000
    async with kafka_bus(settings) as bus:
        for start in range(0, count, 1_000):
            await bus.publish(messages(1_000, keys=40, start=start))
        async with bus.consume(Subscription("g", ("suite.one",), collector, batch_max=200)):
            await until(lambda: len(collector.records) >= count, "all of it", limit_s=PATIENCE_S)
    assert {*collector.numbers} == {*range(count)}
    assert in_order_per_key(collector.records)


async def _largest(bus: KafkaBus, for_s: float) -> int:
    largest = 0
    end = monotonic() + for_s

    def look() -> bool:
        nonlocal largest
        largest = max(largest, bus.waiting_bytes())
        return monotonic() > end

    await until(look, "the look to end", limit_s=2 * for_s)
    return largest


def test_a_look_goes_on_when_partitions_have_new_leaders(mortal: Brokers) -> None:
    """The client beside the consumers lives as long as its process, and took the leaders it knew first for those there are."""
    settings = mortal.settings("confluent-kafka")
    make_topics(settings)
    places = [(f"{settings.prefix}suite.two", 0)]
    inspector = Inspector(settings)
    try:
        before = inspector.ends(places)
        for _ in range(2):
            mortal.natives[0].kill()
            mortal.start()
            assert _ends(inspector, places) == before
    finally:
        inspector.close()


def _ends(inspector: Inspector, places: Sequence[Place]) -> dict[Place, int]:
    """As soon as the partitions have leaders again."""
    end = monotonic() + NEW_LEADERS_S
    while True:
        try:
            return inspector.ends(places)
        except ClientFault:
            if monotonic() > end:
                raise
            sleep(LOOK_S)
