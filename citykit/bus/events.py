"""Events as CloudEvents 1.0 in Kafka binary mode: attributes in headers `ce_*`, the protobuf message as value."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message as ProtobufMessage

from citykit.bus.port import Message, Record
from citykit.clock import iso
from citykit.telemetry import traceparent

COMMITMENT = "commitment"
"""Header with the 32 bytes the notary puts in the topic's log."""
TRACES_MAX = 32
"""Of one batch; a consumer's span links to no more."""


def cloud_event(
    *, topic: str, key: str, event: ProtobufMessage, source: str, id: str, time: int, commitment: bytes | None = None
) -> Message:
    """A message ready for the outbox.

    Args:
        key: the aggregate's id; order is kept per key.
        source: the publishing service.
        id: unique per source; a repeated id is the same event.
        time: city time, unix seconds.
        commitment: 32 bytes where the topic has a log.
    """
    headers = {
        "ce_specversion": b"1.0",
        "ce_id": id.encode(),
        "ce_source": f"/{source}".encode(),
        "ce_type": event.DESCRIPTOR.full_name.encode(),
        "ce_time": iso(time).encode(),
        "content-type": b"application/protobuf",
    }
    if trace := traceparent():
        headers["traceparent"] = trace.encode()
    if commitment is not None:
        headers[COMMITMENT] = commitment
    return Message(topic, key, event.SerializeToString(deterministic=True), headers)


def traceparents(records: Sequence[Record]) -> list[str]:
    """The traces the records belong to (W3C traceparents, which every producer with a span sends), each once, at most 32."""
    found = dict.fromkeys(one.headers["traceparent"] for one in records if "traceparent" in one.headers)
    return [trace.decode(errors="replace") for trace in list(found)[:TRACES_MAX]]


def event_type(record: Record) -> str:
    """The full protobuf name of the event in `record`; empty if it is none."""
    return record.headers.get("ce_type", b"").decode(errors="replace")


def event_identity(record: Record) -> str:
    """What makes the event in `record` one event, wherever and however often it is published: source and id, else its place."""
    event = record.headers.get("ce_id")
    if event is None:
        return f"{record.topic}/{record.partition}/{record.offset}"
    return f"{record.headers.get('ce_source', b'').decode(errors='replace')}#{event.decode(errors='replace')}"
