"""The client on kafka-python: pure Python, the default. It has an IO thread of its own, in which callbacks run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any

from citykit.bus.kafka.client import (
    FETCH_BYTES,
    MESSAGE_BYTES,
    PARTITION_FETCH_BYTES,
    Client,
    ClientFault,
    Done,
    Outgoing,
    Owner,
    Place,
)
from citykit.bus.kafka.connection import python_settings
from citykit.bus.port import Record
from citykit.settings import KafkaSettings


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Around imports of the library: it reads its own package data by functions that Python 3.11 calls deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)
        yield


with quiet_import():
    from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.errors import (
        CommitFailedError,
        IllegalGenerationError,
        KafkaError,
        RebalanceInProgressError,
        UnknownMemberIdError,
    )

_GIVE_UP_LOOK_S = 0.02
_METADATA_S = 0.1
_END_S = 5.0
_QUIET = {"allow_auto_create_topics": False, "metrics_enabled": False}
_FENCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


@contextlib.contextmanager
def faults() -> Iterator[None]:
    try:
        yield
    except (KafkaError, RuntimeError, OSError) as error:
        raise ClientFault(f"{type(error).__name__}: {error}") from error


class PythonProducer:
    """See `citykit.bus.kafka.client.Producer`."""

    def __init__(self, settings: KafkaSettings) -> None:
        with faults():
            self._producer = KafkaProducer(
                **(python_settings(settings) | _QUIET | {"request_timeout_ms": _request_ms(settings)}),
                acks="all",
                enable_idempotence=True,
                delivery_timeout_ms=int(settings.delivery_s * 1000),
                max_block_ms=int(settings.delivery_s * 1000),
                max_request_size=MESSAGE_BYTES,
                batch_size=65_536,
            )

    def send(self, messages: Sequence[Outgoing], done: Done) -> None:
        for message in messages:
            try:
                future = self._producer.send(
                    message.topic, message.value, message.key, message.headers, message.partition
                )
            except (KafkaError, RuntimeError, OSError) as error:
                done(error)
            else:
                future.add_callback(partial(_acknowledged, done))
                future.add_errback(done)

    def abandon(self) -> None:
        # Its own `close(timeout=0)` raises where anything is on its way, and leaves its threads running.
        sender = self._producer._sender
        sender.force_close()
        sender.join(_END_S)
        self._producer._closed = True
        self._producer._unregister_cleanup()

    def close(self, timeout_s: float) -> None:
        try:
            self._producer.close(timeout=timeout_s)
        except KafkaError:
            self.abandon()


def _request_ms(settings: KafkaSettings) -> int:
    """A request must fail before the message does, so that it can be sent again."""
    return int(min(settings.request_s, settings.delivery_s / 2) * 1000)


def _acknowledged(done: Done, _metadata: object) -> None:
    done(None)


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # untyped library
    """Runs on the client's IO loop, so it waits without blocking: heartbeats go on meanwhile."""

    def __init__(self, consumer: Any, owner: Owner) -> None:
        self._consumer = consumer
        self._owner = owner

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._owner.assigned([place_of(item) for item in assigned])

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        places = [place_of(item) for item in revoked]
        ready = self._owner.giving_up(places)
        while not ready():
            await self._consumer._net.sleep(_GIVE_UP_LOOK_S)
        given_up = self._owner.given_up(places)
        # This client keeps the position of a partition that comes straight back.
        for place, offset in given_up.read_again.items():
            self._consumer.seek(TopicPartition(*place), offset)
        if given_up.commit:
            with contextlib.suppress(KafkaError):  # then another does these batches once more
                await self._consumer.commit_async(offsets_of(given_up.commit))

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._owner.lost([place_of(item) for item in lost])


class PythonConsumer:
    """See `citykit.bus.kafka.client.Consumer`."""

    def __init__(self, settings: KafkaSettings, group: str, topics: Sequence[str], owner: Owner) -> None:
        session_ms = int(settings.session_s * 1000)
        with faults():
            self._consumer = KafkaConsumer(
                **python_settings(settings),
                **_QUIET,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=(RoundRobinPartitionAssignor,),
                session_timeout_ms=session_ms,
                heartbeat_interval_ms=session_ms // 10,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
                fetch_max_wait_ms=100,
            )
            self._consumer.subscribe(list(topics), listener=_Listener(self._consumer, owner))
            self._wait_for_metadata(topics, settings.start_s)
        self._commit_ms = int(settings.request_s * 1000)

    def _wait_for_metadata(self, topics: Sequence[str], limit_s: float) -> None:
        """A member that leads its group without knowing the topics yet would assign nothing to anybody, and not look again."""
        end = monotonic() + limit_s
        while unknown := [topic for topic in topics if not self._consumer._cluster.partitions_for_topic(topic)]:
            if monotonic() > end:
                self.close()
                raise ClientFault(f"the brokers tell nothing of {unknown[0]}")
            sleep(_METADATA_S)

    def poll(self, limit: int, timeout_s: float) -> Mapping[Place, Sequence[Record]]:
        with faults():
            self._unpark()
            found = self._consumer.poll(int(timeout_s * 1000), max_records=limit)
        return {place_of(place): [_record(item) for item in items] for place, items in found.items()}

    def _unpark(self) -> None:
        """What it fetched for a paused partition it takes up again only while the slot for records in hand is None; one read to its end is not.
        Without this a resumed partition would give nothing, and not be fetched either, until another's records came."""
        fetcher = self._consumer._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    def pause(self, places: Iterable[Place]) -> None:
        with faults():
            self._consumer.pause(*(TopicPartition(*place) for place in places))

    def resume(self, places: Iterable[Place]) -> None:
        with faults():
            self._consumer.resume(*(TopicPartition(*place) for place in places))

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        with faults():
            try:
                self._consumer.commit(offsets_of(offsets), timeout_ms=self._commit_ms)
            except _FENCED:
                return False
        return True

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._consumer.close(autocommit=False, timeout_ms=self._commit_ms)


def place_of(found: Any) -> Place:
    return found.topic, found.partition


def offsets_of(offsets: Mapping[Place, int]) -> dict[Any, Any]:
    return {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}


def _record(found: Any) -> Record:
    key = (found.key or b"").decode(errors="replace")
    headers = {name: value or b"" for name, value in found.headers}
    return Record(found.topic, found.partition, found.offset, key, found.value or b"", headers)


CLIENT = Client(PythonProducer, PythonConsumer)
