"""What the notary consumes: every topic that has a log, and the commitment each of its messages carries."""

from __future__ import annotations

from collections.abc import Sequence

from citykit.bus.events import COMMITMENT
from citykit.bus.port import Record
from citykit.bus.topics import BY_NAME, TOPICS
from citykit.errors import InvalidArgument

GROUP = "notary"
BATCH_MAX = 10_000
LOGS = tuple(topic.log for topic in TOPICS if topic.log)
LOG_TOPICS = tuple(topic.name for topic in TOPICS if topic.log)
_COMMITMENT_BYTES = 32


def log_of(record: Record) -> str:
    """The log a record goes to."""
    return BY_NAME[record.topic].log


def commitments(records: Sequence[Record]) -> list[bytes]:
    """The commitments of records, in their order.

    Raises:
        InvalidArgument: a record without one; it becomes a dead letter.
    """
    found = [record.headers.get(COMMITMENT, b"") for record in records]
    for record, commitment in zip(records, found, strict=True):
        if len(commitment) != _COMMITMENT_BYTES:
            raise InvalidArgument(
                f"the message at {record.topic}/{record.partition}/{record.offset} carries no commitment of 32 bytes",
                reason="no-commitment",
            )
    return found
