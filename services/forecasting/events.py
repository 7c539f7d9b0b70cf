"""What forecasting consumes: counts of car parks and readings of meters, as chunks of observations. What it tells: which models it trained."""

from __future__ import annotations

from collections.abc import Sequence

from city.forecasting.v1 import events_pb2 as pb
from city.metering.v1 import events_pb2 as metering
from city.parking.v1 import events_pb2 as parking
from citykit.bus.events import cloud_event, event_type
from citykit.bus.port import Message, Record
from citykit.package import commitment
from services.forecasting.store.observations import Chunk

PARKING_TOPIC = "city.parking.states.v1"
METERING_TOPIC = "city.metering.readings.v1"
EVENTS_TOPIC = "city.forecasting.events.v1"
GROUP = "forecasting"
SALT_BYTES = 32
_MILLI = 1_000


def model_trained(model: str, group: str, card: bytes, salt: bytes, now: int) -> Message:
    """For the log forecasting.events; its content is the model's card."""
    return cloud_event(
        topic=EVENTS_TOPIC, key=group, event=pb.ModelTrained(model=model, group=group), source="forecasting", id=model, time=now,
        commitment=commitment(salt, card),
    )  # fmt: skip


def chunks(records: Sequence[Record]) -> list[Chunk]:
    """One for each record that brings observations; other kinds of events bring none."""
    return [chunk for chunk in map(_chunk, records) if chunk is not None and chunk.observations]


def _chunk(record: Record) -> Chunk | None:
    kind = event_type(record)
    if kind == metering.PackageAccepted.DESCRIPTOR.full_name:
        return _energy(metering.PackageAccepted.FromString(record.value))
    if kind == parking.StatesObserved.DESCRIPTOR.full_name:
        return _occupancy(parking.StatesObserved.FromString(record.value))
    return None


def _energy(event: metering.PackageAccepted) -> Chunk:
    held = list(event.quarantined) or [""] * len(event.slot_times)
    rows = zip(event.slot_times, event.energy_wh, held, strict=True)
    return Chunk(f"metering/{event.meter_point}", tuple((time, wh * _MILLI, 0) for time, wh, why in rows if not why))


def _occupancy(event: parking.StatesObserved) -> Chunk:
    rows = zip(event.times, event.occupied, strict=True)
    capacity = event.capacity * _MILLI
    return Chunk(f"parking/{event.lot}", tuple((time, count * _MILLI, capacity) for time, count in rows))
