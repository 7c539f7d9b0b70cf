"""A bus at its worst within what the port allows: messages twice, late and, between keys, in another order. For tests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from citykit.bus.port import Bus, Message, Record, Subscription, TopicState

LATE_S = 0.05


class UnrulyBus:
    """Passes everything on to another bus; of each kind of trouble, a `share` of messages or batches gets it.

    A message is published again after those that followed it, as by a publisher that lost its answer; overtakes those of other keys; comes late.
    A batch is handed to its handler again, as after a crash between effect and commit.

    Attributes:
        troubles: how often each kind was made: `twice`, `late`, `overtaken`, `again`.
    """

    def __init__(self, bus: Bus, seed: int, share: float = 0.2) -> None:
        self._bus = bus
        self._source = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._share = share
        self.troubles: Counter[str] = Counter()

    async def publish(self, messages: Sequence[Message]) -> None:
        mixed = self._overtaken(messages)
        again = [message for message in messages if self._hit("twice")]
        late = [self._hit("late") for _ in mixed]
        first = late.index(True) if True in late else len(mixed)
        await self._bus.publish(mixed[:first])
        if first < len(mixed):
            await asyncio.sleep(self._source.uniform(0, LATE_S))
        await self._bus.publish([*mixed[first:], *again])

    def consume(self, subscription: Subscription) -> AbstractAsyncContextManager[None]:
        async def handle(records: Sequence[Record]) -> None:
            if self._hit("late"):
                await asyncio.sleep(self._source.uniform(0, LATE_S))
            await subscription.handler(records)
            if self._hit("again"):
                await subscription.handler(records)

        return self._bus.consume(replace(subscription, handler=handle))

    def _overtaken(self, messages: Sequence[Message]) -> list[Message]:
        """Each key in its order; now and then another key's next goes before its turn."""
        waiting: dict[tuple[str, str], deque[Message]] = defaultdict(deque)
        for message in messages:
            waiting[message.topic, message.key].append(message)
        turns = deque((message.topic, message.key) for message in messages)
        mixed: list[Message] = []
        while turns:
            turn = turns.popleft()
            if turns and turns[-1] != turn and self._hit("overtaken"):
                turns.append(turn)
                turn = turns.popleft()
            mixed.append(waiting[turn].popleft())
        return mixed

    def _hit(self, kind: str) -> bool:
        hit = self._source.random() < self._share
        self.troubles[kind] += hit
        return hit

    async def topics(self) -> Sequence[TopicState]:
        return await self._bus.topics()

    def dead_letters(self) -> AsyncIterator[Record]:
        return self._bus.dead_letters()

    async def replay(self, topic: str) -> int:
        return await self._bus.replay(topic)

    async def caught_up(self, subscription: Subscription) -> bool:
        return await self._bus.caught_up(subscription)

    async def prune(self) -> int:
        return await self._bus.prune()

    async def close(self) -> None:
        await self._bus.close()
