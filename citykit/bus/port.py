"""What a bus must do; adapters: `citykit.bus.local` (embedded) and `citykit.bus.kafka`. `citykit.testing.bus_suite` holds each to it.

Order is kept per key. Delivery is at least once: consumers are idempotent. CloudEvents 1.0, binary mode: attributes are headers `ce_*`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

MESSAGE_MAX_BYTES = 1_100_000
"""Key, value and headers of one message; a device package (1 MiB) fits."""


@dataclass(frozen=True, slots=True)
class Message:
    """A fact to publish."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A message as the bus holds it. (topic, partition, offset) is its identity; offsets of a partition grow by any step."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, bytes]


Handler = Callable[[Sequence[Record]], Awaitable[None]]
"""Acts on a batch of one partition, in order. When it returns, its effect is durable and the batch is committed.
A handler that raises is given the batch's records again one by one; a record that fails `max_tries` times goes to `<topic>.dead-letters`.
`Unavailable` and `OSError` say that something is away for now: the record is tried again without end, and costs no try."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who reads what.

    Attributes:
        group: consumers of one group share the partitions.
        batch_max: records in one call of the handler.
        max_tries: tries of one record before it becomes a dead letter.
    """

    group: str
    topics: tuple[str, ...]
    handler: Handler
    batch_max: int = 500
    max_tries: int = 5


@dataclass(frozen=True, slots=True)
class TopicState:
    """For `city bus topics` and metrics."""

    topic: str
    partitions: int
    records: int
    end_offsets: Mapping[int, int]
    lag: Mapping[str, int]
    """Group -> records not yet committed."""


class Bus(Protocol):
    """The port."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Durable when it returns; at most 10,000 messages.

        Raises:
            InvalidArgument: unknown topic or a message over MESSAGE_MAX_BYTES.
            Unavailable: nothing or an unknown part was published; publish again.
        """

    def consume(self, subscription: Subscription) -> AbstractAsyncContextManager[None]:
        """Runs the handler in the background until the context ends; then the batch in hand is finished."""

    async def topics(self) -> Sequence[TopicState]: ...

    def dead_letters(self) -> AsyncIterator[Record]:
        """Every dead letter; headers `dl_topic`, `dl_group`, `dl_error`, `dl_tries` say whence and why."""

    async def replay(self, topic: str) -> int:
        """Puts the dead letters of `topic` back to the group that failed on them; returns how many."""

    async def caught_up(self, subscription: Subscription) -> bool:
        """True when nothing waits for the subscription's group: neither in its topics nor among its replayed dead letters."""

    async def prune(self) -> int:
        """Deletes what is past its hours, where the bus does not do so by itself; returns how many messages."""

    async def close(self) -> None: ...
