"""Makes the facts of the log metering.events: event, canonical document, salt, commitment. Called by the other use cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message as ProtobufMessage

from city.metering.v1 import events_pb2 as pb
from citykit.ids import Randomness, new_id
from citykit.package import commitment
from services.metering import events
from services.metering.domain.estimation import METHOD
from services.metering.store.packages import Fact

SALT_BYTES = 32


@dataclass(frozen=True)
class Facts:
    """Makes facts; `randomness` gives salts and ids."""

    randomness: Randomness

    def gap_found(self, device: str, after: int, before: int, now: int) -> Fact:
        event = pb.ChainGapFound(device=device, after_sequence=after, before_sequence=before)
        return self._fact(device, event, now, device=device, after=after, before=before)

    def device_quarantined(self, device: str, reason: str, now: int) -> Fact:
        event = pb.DeviceQuarantined(device=device, reason=reason)
        return self._fact(device, event, now, device=device, reason=reason)

    def device_released(self, device: str, decision: str, now: int) -> Fact:
        event = pb.DeviceReleased(device=device, decision=decision)
        return self._fact(device, event, now, device=device, decision=decision)

    def slots_estimated(self, meter_point: str, slots: list[int], now: int) -> Fact:
        event = pb.SlotsEstimated(meter_point=meter_point, slot_times=slots, method=METHOD)
        return self._fact(meter_point, event, now, meter_point=meter_point, slots=slots, method=METHOD)

    def _fact(self, key: str, event: ProtobufMessage, now: int, **details: Any) -> Fact:
        id_, salt = new_id("fact", self.randomness), self.randomness(SALT_BYTES)
        document = events.fact_document(event, now, **details)
        message = events.fact_message(key, event, id_, commitment(salt, document), now)
        return Fact(message, (id_, key, document, salt))
