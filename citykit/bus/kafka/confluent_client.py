"""The client on confluent-kafka (librdkafka), for the high-rate paths."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import sleep
from typing import Any

from confluent_kafka import Consumer as RdConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RdMessage
from confluent_kafka import Producer as RdProducer

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
from citykit.bus.kafka.connection import confluent_settings
from citykit.bus.port import Record
from citykit.settings import KafkaSettings

_POLL_S = 0.1
_GIVE_UP_LOOK_S = 0.02
_QUEUE_KB = 16_000
_FENCED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (KafkaException, RuntimeError, BufferError) as error:
        raise ClientFault(f"{type(error).__name__}: {error}") from error


class ConfluentProducer:
    """See `citykit.bus.kafka.client.Producer`. Callbacks run in its own thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        with _faults():
            self._producer = RdProducer(
                confluent_settings(settings)
                | {
                    "acks": "all",
                    "enable.idempotence": True,
                    "delivery.timeout.ms": int(settings.delivery_s * 1000),
                    "message.max.bytes": MESSAGE_BYTES,
                    "linger.ms": 2,
                    "queue.buffering.max.messages": 2 * settings.in_flight,
                }
            )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-acknowledged", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(_POLL_S)

    def send(self, messages: Sequence[Outgoing], done: Done) -> None:
        def acknowledged(error: KafkaError | None, _message: RdMessage) -> None:
            done(KafkaException(error) if error is not None else None)

        for message in messages:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    on_delivery=acknowledged,
                    headers=message.headers,  # type: ignore[arg-type]  # a list of a narrower kind
                )
            except (KafkaException, BufferError) as error:
                done(error)

    def abandon(self) -> None:
        self._producer.purge()
        self._producer.flush(_POLL_S)
        self._end()

    def close(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)
        self._end()

    def _end(self) -> None:
        self._stopping.set()
        self._thread.join()


class ConfluentConsumer:
    """See `citykit.bus.kafka.client.Consumer`."""

    def __init__(self, settings: KafkaSettings, group: str, topics: Sequence[str], owner: Owner) -> None:
        session_ms = int(settings.session_s * 1000)
        self._owner = owner
        self._changes = 0
        with _faults():
            self._consumer = RdConsumer(
                confluent_settings(settings)
                | {
                    "group.id": group,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",
                    "partition.assignment.strategy": "roundrobin",
                    "session.timeout.ms": session_ms,
                    "heartbeat.interval.ms": session_ms // 10,
                    "fetch.max.bytes": FETCH_BYTES,
                    "max.partition.fetch.bytes": PARTITION_FETCH_BYTES,
                    "fetch.wait.max.ms": 100,
                    "queued.max.messages.kbytes": _QUEUE_KB,
                    "queued.min.messages": 2_000,
                }
            )
            self._consumer.subscribe(
                list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )

    def _assigned(self, _consumer: object, places: list[TopicPartition]) -> None:
        self._owner.assigned(_places(places))

    def _revoked(self, _consumer: object, gone: list[TopicPartition]) -> None:
        self._changes += 1
        places = _places(gone)
        ready = self._owner.giving_up(places)
        while not ready():
            sleep(_GIVE_UP_LOOK_S)
        if commit := self._owner.given_up(places).commit:
            with contextlib.suppress(ClientFault):  # then another does these batches once more
                self.commit(commit)

    def _lost(self, _consumer: object, gone: list[TopicPartition]) -> None:
        self._changes += 1
        self._owner.lost(_places(gone))

    def poll(self, limit: int, timeout_s: float) -> Mapping[Place, Sequence[Record]]:
        records: dict[Place, list[Record]] = defaultdict(list)
        for message in self._fetched(limit, timeout_s):
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF or error.retriable():
                    continue
                raise ClientFault(error.str())
            record = record_of(message)
            records[record.topic, record.partition].append(record)
        return records

    def _fetched(self, limit: int, timeout_s: float) -> list[RdMessage]:
        with _faults():
            first = self._consumer.consume(1, timeout_s)
            if not first:
                return []
            changes = self._changes
            rest = self._consumer.consume(limit - 1, 0)
        # Where partitions changed hands in between, the first message is of before and will be read again.
        return first + rest if changes == self._changes else rest

    def pause(self, places: Iterable[Place]) -> None:
        with _faults():
            self._consumer.pause([TopicPartition(*place) for place in places])

    def resume(self, places: Iterable[Place]) -> None:
        with _faults():
            self._consumer.resume([TopicPartition(*place) for place in places])

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        try:
            done = self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                return False
            raise ClientFault(str(error)) from error
        failed = [item.error for item in done if item.error is not None]
        if any(error.code() not in _FENCED for error in failed):
            raise ClientFault(failed[0].str())
        return not failed

    def close(self) -> None:
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()


def _places(found: Iterable[TopicPartition]) -> list[Place]:
    return [(item.topic, item.partition) for item in found]


def record_of(message: RdMessage) -> Record:
    topic, partition, offset, key = message.topic(), message.partition(), message.offset(), message.key()
    assert topic is not None  # noqa: S101 - a message without error has a place
    assert partition is not None  # noqa: S101
    assert offset is not None  # noqa: S101
    headers: Any = dict(message.headers() or ())
    if None in headers.values():
        headers = {name: value or b"" for name, value in headers.items()}
    return Record(topic, partition, offset, (key or b"").decode(errors="replace"), message.value() or b"", headers)


CLIENT = Client(ConfluentProducer, ConfluentConsumer)
