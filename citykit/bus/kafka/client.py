"""What the two Kafka clients must offer, so that everything else is shared. Implemented by `python_client` and `confluent_client`.

All of it blocks: a producer is used by one thread, a consumer by one thread, and neither is the event loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from citykit.bus.port import Record
from citykit.settings import KafkaSettings

Place = tuple[str, int]
"""Topic, partition."""
Done = Callable[[Exception | None], None]
"""Called once per message, in the client's own thread: None when the brokers hold it."""


class ClientFault(Exception):
    """The client or the broker failed at something that may go well later. Its text may be shown."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message with its place chosen."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Producer(Protocol):
    """Idempotent, acknowledged by all in-sync copies."""

    def send(self, messages: Sequence[Outgoing], done: Done) -> None:
        """Hands the messages over, in order; `done` is called for each."""

    def abandon(self) -> None:
        """Gives up what is not acknowledged yet (`done` is called with an error, or never) and ends."""

    def close(self, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What is to do when partitions go.

    Attributes:
        commit: what was finished and is not committed yet.
        read_again: where a client that keeps its position goes on, should the partition come straight back: what was fetched and not
            finished is forgotten here.
    """

    commit: Mapping[Place, int]
    read_again: Mapping[Place, int]


class Owner(Protocol):
    """Who works on a consumer's partitions. Called while `poll` is in progress."""

    def assigned(self, places: Iterable[Place]) -> None: ...

    def giving_up(self, places: Iterable[Place]) -> Callable[[], bool]:
        """The partitions will go once the answer says true: then their batches in hand are finished, or not waited for any longer."""

    def given_up(self, places: Iterable[Place]) -> GivenUp:
        """The end of the work on these partitions."""

    def lost(self, places: Iterable[Place]) -> None:
        """The partitions are others' already: nothing of them may be committed."""


class Consumer(Protocol):
    """A member of a group."""

    def poll(self, limit: int, timeout_s: float) -> Mapping[Place, Sequence[Record]]:
        """At most `limit` records; raises ClientFault."""

    def pause(self, places: Iterable[Place]) -> None: ...

    def resume(self, places: Iterable[Place]) -> None: ...

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        """False where the partitions are no longer this member's; raises ClientFault where the brokers are away."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Client:
    """One of the two libraries."""

    producer: Callable[[KafkaSettings], Producer]
    consumer: Callable[[KafkaSettings, str, Sequence[str], Owner], Consumer]
    """Settings, group, topics, owner."""


FETCH_BYTES = 8_000_000
PARTITION_FETCH_BYTES = 2_000_000
MESSAGE_BYTES = 1_300_000
"""A message of the bus with what a dead letter adds and what the protocol adds; brokers and topics must take it."""
