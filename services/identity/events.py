"""What identity tells the city, on city.identity.events.v1: facts about devices and consents, each with its salted commitment."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtobufMessage
from sqlalchemy import insert

from citykit.bus.events import cloud_event
from citykit.canonical import encode
from citykit.ids import Randomness
from citykit.package import commitment
from citykit.store.port import Unit
from services.identity.store import OPENINGS

TOPIC = "city.identity.events.v1"
SALT_BYTES = 32


def publish_device_fact(unit: Unit, randomness: Randomness, device: str, event: ProtobufMessage, now: int) -> None:
    """A fact about a device; its opening is kept, as nothing in it is personal."""
    document = document_of(event, now)
    salt = randomness(SALT_BYTES)
    committed = commitment(salt, document)
    unit.execute(insert(OPENINGS).values(commitment=committed, salt=salt, document=document))
    publish(unit, randomness, device, event, now, committed)


def publish(
    unit: Unit, randomness: Randomness, key: str, event: ProtobufMessage, now: int, committed: bytes | None
) -> None:
    """Puts an event in the outbox."""
    unit.publish(
        cloud_event(
            topic=TOPIC,
            key=key,
            event=event,
            source="identity",
            id=randomness(16).hex(),
            time=now,
            commitment=committed,
        )
    )


def document_of(event: ProtobufMessage, now: int) -> bytes:
    """The canonical document of an event: its type, its time, its fields."""
    fields = MessageToDict(event, preserving_proto_field_name=True)
    return encode({"at": now, "event": fields, "type": event.DESCRIPTOR.full_name})
