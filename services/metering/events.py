"""Metering's events on the bus: protobuf messages, their topics, commitments and openings. Called by `app`; consumes identity's topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message as ProtobufMessage

from city.metering.v1 import events_pb2 as pb
from citykit import canonical
from citykit.bus.events import cloud_event
from citykit.bus.port import Message
from citykit.clock import iso

READINGS_TOPIC = "city.metering.readings.v1"
EVENTS_TOPIC = "city.metering.events.v1"
IDENTITY_TOPIC = "city.identity.events.v1"
PAYMENTS_TOPIC = "city.payments.events.v1"
READINGS_LOG = "metering.readings"
SOURCE = "metering"


def package_accepted(
    device: str,
    sequence: int,
    meter_point: str,
    readings: Sequence[tuple[int, int]],
    held: Sequence[str],
    committed: bytes,
    now: int,
    trace: str,
) -> Message:
    """One accepted package, for the log metering.readings; its content is the package.

    Args:
        trace: W3C traceparent of the request that brought it: it is made in the store's thread, which has no current span.
    """
    event = pb.PackageAccepted(
        device=device,
        sequence=sequence,
        meter_point=meter_point,
        slot_times=[slot for slot, _ in readings],
        energy_wh=[wh for _, wh in readings],
        quarantined=held,
    )
    message = cloud_event(
        topic=READINGS_TOPIC,
        key=meter_point,
        event=event,
        source=SOURCE,
        id=f"{device}-{sequence}",
        time=now,
        commitment=committed,
    )
    return replace(message, headers={**message.headers, "traceparent": trace.encode()}) if trace else message


def fact_document(event: ProtobufMessage, now: int, **details: Any) -> bytes:
    """The canonical document an event of the log metering.events commits to."""
    kind = event.DESCRIPTOR.full_name
    return canonical.encode({"format": "city.event.v1", "type": kind, "time": iso(now), **details})


def fact_message(key: str, event: ProtobufMessage, id_: str, committed: bytes, now: int) -> Message:
    """An event of the log metering.events."""
    return cloud_event(topic=EVENTS_TOPIC, key=key, event=event, source=SOURCE, id=id_, time=now, commitment=committed)
