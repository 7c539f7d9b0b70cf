"""Identity's word that a person is to be forgotten, as every service that keeps something of people consumes it."""

from __future__ import annotations

from city.identity.v1 import events_pb2
from citykit.bus.events import event_type
from citykit.bus.port import Record

_ERASED = events_pb2.SubjectErased.DESCRIPTOR.full_name


def erased_subject(record: Record, audience: str) -> str:
    """Whom the service `audience` must forget, by its own pairwise subject; empty where the record asks nothing of it."""
    if event_type(record) != _ERASED:
        return ""
    event = events_pb2.SubjectErased.FromString(record.value)
    return str(event.subject) if event.audience == audience else ""
