"""What holds for every bus, whoever stores the messages: known topics, the size limit, partitions by key, dead letters and replay."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from citykit.bus.port import MESSAGE_MAX_BYTES, Message, Record
from citykit.bus.topics import DEAD_LETTERS, Topic
from citykit.errors import InvalidArgument

PUBLISH_MAX = 10_000
RETRY = ".retry"
_LETTER = "dl_"
_ERROR_CHARS_MAX = 500


def check_publishable(messages: Sequence[Message], topics: Mapping[str, Topic]) -> None:
    """Raises InvalidArgument where a batch or a message of it may not be published."""
    if len(messages) > PUBLISH_MAX:
        raise InvalidArgument(f"at most {PUBLISH_MAX} messages at once, not {len(messages)}; split the batch")
    for message in messages:
        if known(message.topic, topics) is None:
            raise unknown_topic(message.topic, topics, "topic")
        if (size := message_bytes(message)) > MESSAGE_MAX_BYTES:
            raise InvalidArgument(
                f"a message is at most {MESSAGE_MAX_BYTES} bytes, not {size}; send its parts", field="value"
            )


def message_bytes(message: Message) -> int:
    """Key, value and headers; not what a dead letter adds, else the largest messages could never become one."""
    headers = sum(len(name) + len(value) for name, value in message.headers.items() if not name.startswith(_LETTER))
    return len(message.key) + len(message.value) + headers


def check_topics(names: Sequence[str], topics: Mapping[str, Topic]) -> None:
    """Raises InvalidArgument where somebody would read a topic that is none of the city's."""
    for name in names:
        if name not in topics:
            raise unknown_topic(name, topics, "topics")


def unknown_topic(name: str, topics: Mapping[str, Topic], field: str) -> InvalidArgument:
    return InvalidArgument(f"unknown topic {name!r}; the topics are {', '.join(topics)}", field=field)


def known(name: str, topics: Mapping[str, Topic]) -> Topic | None:
    """The topic that this one is, or whose dead letters or retries it holds."""
    return topics.get(name.split(RETRY, maxsplit=1)[0].removesuffix(DEAD_LETTERS))


def partition_of(message: Message, topics: Mapping[str, Topic]) -> int:
    """The same partition for a key from every adapter. Dead letters and retries have one partition."""
    topic = topics.get(message.topic)
    return zlib.crc32(message.key.encode()) % (1 if topic is None else topic.partitions)


def dead_letter(record: Record, group: str, error: Exception, tries: int) -> Message:
    """The record with headers that say whence it comes and why it was given up."""
    headers = {
        **record.headers,
        "dl_topic": record.topic.encode(),
        "dl_place": f"{record.partition}:{record.offset}".encode(),
        "dl_group": group.encode(),
        "dl_error": f"{type(error).__name__}: {error}"[:_ERROR_CHARS_MAX].encode(),
        "dl_tries": str(tries).encode(),
    }
    return Message(record.topic + DEAD_LETTERS, record.key, record.value, headers)


def again(letter: Record, retry_topic: str) -> Message:
    """The dead letter as it goes back to the group that failed on it."""
    return Message(retry_topic, letter.key, letter.value, letter.headers)


def replayed(record: Record) -> Record:
    """A replayed dead letter keeps the identity it had, so that idempotent consumers know it."""
    if "dl_place" not in record.headers:
        return record
    partition, offset = record.headers["dl_place"].decode().split(":")
    topic = record.headers["dl_topic"].decode()
    return Record(topic, int(partition), int(offset), record.key, record.value, record.headers)
