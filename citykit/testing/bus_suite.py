"""What every bus adapter must pass. A test module subclasses `BusSuite` and gives the fixture `reopen`.

Topics used: `suite.one` (4 partitions) and `suite.two` (1 partition).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from citykit.bus.port import MESSAGE_MAX_BYTES, Bus, Message, Record, Subscription
from citykit.bus.topics import Topic
from citykit.errors import InvalidArgument, Unavailable
from citykit.testing.polling import until

SUITE_TOPICS = (Topic("suite.one", "suite", partitions=4), Topic("suite.two", "suite", partitions=1))
Reopen = Callable[[], Awaitable[Bus]]


def messages(count: int, *, keys: int = 7, topic: str = "suite.one", start: int = 0) -> list[Message]:
    """Numbered messages over some keys; the number is the value."""
    return [
        Message(topic, f"key-{n % keys}", n.to_bytes(4, "big"), {"ce_id": str(n).encode(), "raw": bytes([0, 255])})
        for n in range(start, start + count)
    ]


def number(record: Record) -> int:
    return int.from_bytes(record.value, "big")


class Collector:
    """A handler that keeps what it was given."""

    def __init__(self, together: list[Record] | None = None) -> None:
        self.records: list[Record] = []
        self.mixed = False
        """Whether a batch held records of two partitions."""
        self._together = together

    async def __call__(self, batch: Sequence[Record]) -> None:
        self.mixed |= len({record.partition for record in batch}) > 1
        self.records += batch
        if self._together is not None:
            self._together += batch

    @property
    def numbers(self) -> list[int]:
        return [number(record) for record in self.records]


def in_order_per_key(records: Sequence[Record]) -> bool:
    """First deliveries of each key come in the order published."""
    last: dict[str, int] = {}
    seen: set[int] = set()
    for record in records:
        value = number(record)
        if value in seen:
            continue
        seen.add(value)
        if last.get(record.key, -1) > value:
            return False
        last[record.key] = value
    return True


class BusSuite:
    """The suite. Fixture `reopen`: closes the bus if open and opens it again on the same data."""

    async def test_everything_arrives_in_order_per_key_with_its_headers(self, reopen: Reopen) -> None:
        bus = await reopen()
        collector = Collector()
        async with bus.consume(Subscription("g", ("suite.one",), collector, batch_max=50)):
            await bus.publish(messages(500))
            await until(lambda: len(collector.records) == 500, "500 records")
        assert sorted(collector.numbers) == list(range(500))
        assert in_order_per_key(collector.records)
        assert not collector.mixed
        assert dict(collector.records[0].headers)["raw"] == bytes([0, 255])

    async def test_a_group_goes_on_where_it_committed_and_a_new_group_starts_at_the_beginning(
        self, reopen: Reopen
    ) -> None:
        bus = await reopen()
        first, second, other = Collector(), Collector(), Collector()
        async with bus.consume(Subscription("g", ("suite.one",), first)):
            await bus.publish(messages(100))
            await until(lambda: len(first.records) == 100, "100 records")
        bus = await reopen()
        await bus.publish(messages(50, start=100))
        async with bus.consume(Subscription("g", ("suite.one",), second)):
            await until(lambda: {*second.numbers} >= {*range(100, 150)}, "the new 50")
        async with bus.consume(Subscription("h", ("suite.one",), other)):
            await until(lambda: {*other.numbers} == {*range(150)}, "all 150")

    async def test_what_a_handler_did_not_finish_comes_again(self, reopen: Reopen) -> None:
        bus = await reopen()
        started, again = asyncio.Event(), Collector()

        async def stuck(batch: Sequence[Record]) -> None:
            started.set()
            raise Unavailable("on purpose")

        await bus.publish(messages(10, topic="suite.two"))
        async with bus.consume(Subscription("g", ("suite.two",), stuck)):
            await started.wait()
        bus = await reopen()
        async with bus.consume(Subscription("g", ("suite.two",), again)):
            await until(lambda: {*again.numbers} == {*range(10)}, "all 10 again")

    async def test_what_is_away_costs_no_try(self, reopen: Reopen) -> None:
        bus = await reopen()
        calls, done = 0, Collector()

        async def away_at_first(batch: Sequence[Record]) -> None:
            nonlocal calls
            calls += 1
            if calls < 6:
                raise Unavailable("on purpose") if calls % 2 else OSError(28, "on purpose")
            await done(batch)

        await bus.publish(messages(3, topic="suite.two"))
        async with bus.consume(Subscription("g", ("suite.two",), away_at_first, max_tries=2)):
            await until(lambda: done.numbers == [0, 1, 2], "all three, in order")
        assert [record async for record in bus.dead_letters()] == []

    async def test_a_poison_record_becomes_a_dead_letter_and_can_be_replayed_to_its_group_only(
        self, reopen: Reopen
    ) -> None:
        bus = await reopen()
        healthy, bystander = Collector(), Collector()
        poisoned = True

        async def handler(batch: Sequence[Record]) -> None:
            if poisoned and any(number(record) == 3 for record in batch):
                raise ValueError("cannot read this")
            await healthy(batch)

        await bus.publish(messages(6, topic="suite.two"))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(bus.consume(Subscription("g", ("suite.two",), handler, max_tries=2)))
            await stack.enter_async_context(bus.consume(Subscription("h", ("suite.two",), bystander)))
            await until(
                lambda: {*healthy.numbers} == {0, 1, 2, 4, 5} and len(bystander.records) == 6, "the healthy five"
            )
            await until(lambda: _letters(bus, {"key-3"}), "a dead letter")
            letters = [record async for record in bus.dead_letters()]
            assert [number(letter) for letter in letters] == [3]
            assert letters[0].headers["dl_group"] == b"g"
            assert b"cannot read this" in letters[0].headers["dl_error"]
            poisoned = False
            assert await bus.replay("suite.two") == 1
            await until(lambda: 3 in healthy.numbers, "the replayed record")
            assert await bus.replay("suite.two") == 0
        replayed = next(record for record in healthy.records if number(record) == 3)
        original = next(record for record in bystander.records if number(record) == 3)
        assert (replayed.topic, replayed.partition, replayed.offset) == (
            original.topic,
            original.partition,
            original.offset,
        )
        assert Counter(bystander.numbers)[3] == 1

    async def test_poison_of_the_largest_size_and_of_several_partitions_goes_and_comes_back(
        self, reopen: Reopen
    ) -> None:
        bus = await reopen()
        healthy = Collector()
        poisoned = True

        async def handler(batch: Sequence[Record]) -> None:
            if poisoned:
                raise ValueError("cannot read this" + 1_000 * "!")
            await healthy(batch)

        keys = [f"key-{n}" for n in range(12)]
        sent = [Message("suite.one", key, bytes(4), {"raw": b"\x00"}) for key in keys]
        room = MESSAGE_MAX_BYTES - len("large") - len("raw") - 1
        sent.append(Message("suite.one", "large", bytes(room), {"raw": b"\x00"}))
        await bus.publish(sent)
        async with bus.consume(Subscription("g", ("suite.one",), handler, max_tries=1)):
            await until(lambda: _letters(bus, {*keys, "large"}), "a dead letter of each")
            poisoned = False
            assert await bus.replay("suite.one") >= len(sent)
            await until(lambda: {*(record.key for record in healthy.records)} == {*keys, "large"}, "all again")
        assert len({record.partition for record in healthy.records}) > 1
        assert not healthy.mixed
        assert max(len(record.value) for record in healthy.records) == room

    async def test_consumers_share_partitions_and_take_over(self, reopen: Reopen) -> None:
        bus = await reopen()
        together: list[Record] = []
        left, right = Collector(together), Collector(together)
        published = 0

        async def both_work() -> bool:
            nonlocal published
            await bus.publish(messages(40, keys=40, start=published))
            published += 40
            return bool(left.records and right.records)

        async with bus.consume(Subscription("g", ("suite.one",), left)):
            async with bus.consume(Subscription("g", ("suite.one",), right)):
                await until(both_work, "both to have some")
                await until(lambda: {*map(number, together)} == {*range(published)}, "all by the two")
            alone = len(left.records)
            await bus.publish(messages(100, keys=40, start=published))
            await until(lambda: {*left.numbers[alone:]} >= {*range(published, published + 100)}, "the rest by one")
        assert in_order_per_key(together)

    async def test_a_partition_that_goes_to_another_in_mid_batch_loses_nothing_and_keeps_order(
        self, reopen: Reopen
    ) -> None:
        bus = await reopen()
        together: list[Record] = []
        gate, begun = asyncio.Event(), asyncio.Event()
        right = Collector(together)

        async def left(batch: Sequence[Record]) -> None:
            begun.set()
            await gate.wait()
            together.extend(batch)

        await bus.publish(messages(400, keys=40))
        async with bus.consume(Subscription("g", ("suite.one",), left, batch_max=20)):
            await begun.wait()
            async with bus.consume(Subscription("g", ("suite.one",), right, batch_max=20)):
                asyncio.get_running_loop().call_later(0.5, gate.set)
                await until(lambda: {*map(number, together)} == {*range(400)}, "all 400")
        assert in_order_per_key(together)

    async def test_a_slow_consumer_holds_back_only_itself(self, reopen: Reopen) -> None:
        bus = await reopen()
        gate, quick, slow = asyncio.Event(), Collector(), Collector()
        largest = 0

        async def waits(batch: Sequence[Record]) -> None:
            nonlocal largest
            await gate.wait()
            largest = max(largest, len(batch))
            await slow(batch)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(bus.consume(Subscription("slow", ("suite.one",), waits, batch_max=20)))
            await stack.enter_async_context(bus.consume(Subscription("quick", ("suite.one",), quick)))
            await bus.publish(messages(300))
            await until(lambda: len(quick.records) == 300, "the quick group")
            assert not slow.records
            gate.set()
            await until(lambda: {*slow.numbers} == {*range(300)}, "the slow group")
        assert largest <= 20

    async def test_unknown_topics_and_oversized_messages_are_refused(self, reopen: Reopen) -> None:
        bus = await reopen()
        with pytest.raises(InvalidArgument, match="unknown topic"):
            await bus.publish([Message("nowhere", "k", b"")])
        with pytest.raises(InvalidArgument, match="at most"):
            await bus.publish([*messages(1), Message("suite.one", "k", bytes(MESSAGE_MAX_BYTES))])
        with pytest.raises(InvalidArgument, match="unknown topic"):
            async with bus.consume(Subscription("g", ("nowhere",), Collector())):
                pass
        states = {state.topic: state.records for state in await bus.topics()}
        assert states["suite.one"] == 0

    async def test_topics_tell_sizes_and_lag(self, reopen: Reopen) -> None:
        bus = await reopen()
        collector = Collector()
        async with bus.consume(Subscription("g", ("suite.two",), collector)):
            await bus.publish(messages(10, topic="suite.two"))
            await until(lambda: len(collector.records) == 10, "10 records")
        await bus.publish(messages(5, topic="suite.two", start=10))
        state = next(state for state in await bus.topics() if state.topic == "suite.two")
        assert state.records == 15
        assert state.lag["g"] == 5

    async def test_caught_up_says_whether_anything_waits_for_a_group(self, reopen: Reopen) -> None:
        bus = await reopen()
        collector = Collector()
        subscription = Subscription("g", ("suite.two",), collector)
        assert await bus.caught_up(subscription)
        await bus.publish(messages(10, topic="suite.two"))
        assert not await bus.caught_up(subscription)
        async with bus.consume(subscription):
            await until(lambda: bus.caught_up(subscription), "all handled")
        assert collector.numbers == [*range(10)]
        assert await bus.caught_up(subscription)


async def _letters(bus: Bus, keys: set[str]) -> bool:
    return {record.key async for record in bus.dead_letters()} == keys
