"""Erasure: cuts every link from a person to accounts and payments when identity says so. Consumes identity's topic.

What was posted stays: the law keeps books, and a pseudonymous account says nothing of a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from city.identity.v1 import events_pb2
from citykit.bus.events import event_type
from citykit.bus.port import Record
from citykit.store.port import Store, Unit
from services.payments.store.payments import erase

GROUP = "payments-erasure"
AUDIENCE = "payments"
_ERASED = events_pb2.SubjectErased.DESCRIPTOR.full_name


@dataclass(frozen=True)
class Erasure:
    """Consumer of `SubjectErased`."""

    store: Store

    async def handle(self, records: Sequence[Record]) -> None:
        """Each record once; the effect and its mark are one transaction."""
        for record in records:
            if event_type(record) == _ERASED:
                await self.store.write(partial(_erase, record))


def _erase(record: Record, unit: Unit) -> None:
    event = events_pb2.SubjectErased()
    event.ParseFromString(record.value)
    if event.audience == AUDIENCE and unit.first_time(record, GROUP):
        erase(unit, event.subject)
