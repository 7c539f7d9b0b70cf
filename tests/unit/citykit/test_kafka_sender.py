"""Publishing to Kafka against a producer of our own making: bounds, and what happens when a message is not taken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from citykit.bus.kafka.client import Client, ClientFault, Done, Outgoing
from citykit.bus.kafka.sender import Sender
from citykit.errors import Unavailable
from citykit.settings import KafkaSettings
from citykit.testing.polling import until

SETTINGS = KafkaSettings(in_flight=40)


def outgoing(count: int, size: int = 4) -> list[Outgoing]:
    return [Outgoing("t", 0, b"k", n.to_bytes(4, "big") + bytes(size - 4), []) for n in range(count)]


class FakeProducer:
    """Keeps what it is given until it is told to answer."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Outgoing, Done]] = []
        self.largest = 0
        self.given_up = False
        self.closed = False
        self.answers = True
        self._lock = threading.Lock()

    def send(self, messages: Sequence[Outgoing], done: Done) -> None:
        with self._lock:
            self.waiting += [(message, done) for message in messages]
            self.largest = max(self.largest, len(self.waiting))
        if self.answers:
            self.answer(None)

    def answer(self, error: Exception | None) -> None:
        """Answers from a thread of its own, as the libraries do."""
        with self._lock:
            waiting, self.waiting = self.waiting, []
        thread = threading.Thread(target=lambda: [done(error) for _, done in waiting])
        thread.start()
        thread.join()

    def abandon(self) -> None:
        self.given_up = True
        self.answer(ClientFault("given up"))

    def close(self, timeout_s: float) -> None:
        self.closed = True


@asynccontextmanager
async def sending(*producers: FakeProducer) -> AsyncIterator[Sender]:
    left = list(producers)
    sender = Sender(Client(lambda _settings: left.pop(0), lambda *_: pytest.fail("no consumer is wanted")), SETTINGS)
    try:
        yield sender
    finally:
        await sender.close()


async def test_all_is_acknowledged_before_publish_returns_and_the_producer_is_closed() -> None:
    producer = FakeProducer()
    async with sending(producer) as sender:
        await sender.open()
        await sender.publish(outgoing(95))
        await sender.publish([])
    assert producer.waiting == []
    assert producer.closed


async def test_no_more_than_the_limit_is_on_its_way() -> None:
    producer = FakeProducer()
    producer.answers = False
    async with sending(producer) as sender:
        publishing = asyncio.create_task(sender.publish(outgoing(200)))
        while not publishing.done():
            await until(lambda: bool(producer.waiting) or publishing.done(), "messages")
            producer.answer(None)
        await publishing
    assert producer.largest <= SETTINGS.in_flight


async def test_a_message_not_taken_spoils_the_producer_with_all_on_its_way_and_a_new_one_goes_on() -> None:
    first, second = FakeProducer(), FakeProducer()
    first.answers = False
    async with sending(first, second) as sender:
        early = asyncio.create_task(sender.publish(outgoing(10)))
        await until(lambda: len(first.waiting) == 10, "ten on their way")
        late = asyncio.create_task(sender.publish(outgoing(5)))
        await until(lambda: len(first.waiting) == 15, "fifteen on their way")
        _, done = first.waiting.pop(0)
        await asyncio.to_thread(done, ClientFault("timed out"))
        for task in (early, late):
            with pytest.raises(Unavailable, match="publish them again"):
                await task
        assert first.given_up
        await sender.publish(outgoing(10))
    assert second.closed


async def test_a_producer_that_cannot_be_made_is_told_as_unavailable_and_tried_again() -> None:
    working = FakeProducer()
    tries: list[ClientFault | FakeProducer] = [ClientFault("nobody there"), working]

    def make(_settings: KafkaSettings) -> FakeProducer:
        made = tries.pop(0)
        if isinstance(made, ClientFault):
            raise made
        return made

    sender = Sender(Client(make, lambda *_: pytest.fail("no consumer is wanted")), SETTINGS)
    with pytest.raises(Unavailable, match="nobody there"):
        await sender.publish(outgoing(1))
    await sender.publish(outgoing(1))
    await sender.close()


async def test_large_messages_go_in_parts_of_few() -> None:
    producer = FakeProducer()
    async with sending(producer) as sender:
        await sender.publish(outgoing(9, size=1_000_000))
    assert producer.largest <= 4
