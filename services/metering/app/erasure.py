"""Erasure: destroys a resident's rows and salts when identity says so; every log still verifies. Consumes identity's topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from city.identity.v1 import events_pb2
from citykit.bus.events import event_type
from citykit.bus.port import Record
from citykit.clock import Clock, unix
from citykit.store.port import Store, Unit
from services.metering.app.meters import Meters
from services.metering.app.people import People
from services.metering.domain.slots import SLOT_S
from services.metering.store.contracts import contracts_of_subject
from services.metering.store.erasure import erase_appeals, erase_contract, erase_span

GROUP = "metering-erasure"
AUDIENCE = "metering"
_ERASED = events_pb2.SubjectErased.DESCRIPTOR.full_name


@dataclass(frozen=True)
class Erasure:
    """Consumer of `SubjectErased`."""

    store: Store
    people: People
    meters: Meters
    clock: Clock

    async def handle(self, records: Sequence[Record]) -> None:
        """Each record once; the effect and its mark are one transaction."""
        for record in records:
            if event_type(record) == _ERASED:
                for device in await self.store.write(partial(self._erase, record)):
                    self.meters.forget(device)

    def _erase(self, record: Record, unit: Unit) -> list[str]:
        event = events_pb2.SubjectErased()
        event.ParseFromString(record.value)
        if event.audience != AUDIENCE or not unit.first_time(record, GROUP):
            return []
        devices: list[str] = []
        for row in contracts_of_subject(unit.connection, event.subject):
            span = self.people.span_of(row)
            end = min(span.to_time, unix(self.clock) + SLOT_S)
            devices += erase_span(unit, row.meter_point, span.from_time, end)
            erase_contract(unit, row.id)
        erase_appeals(unit, event.subject)
        return devices
