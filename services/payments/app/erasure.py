"""Erasure: cuts every link from a person to accounts and payments when identity says so. Consumes identity's topic.

What was posted stays: the law keeps books, and a pseudonymous account says nothing of a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from citykit.bus.port import Record
from citykit.erasure import erased_subject
from citykit.store.port import Store, Unit
from services.payments.store.payments import erase

GROUP = "payments-erasure"
AUDIENCE = "payments"


@dataclass(frozen=True)
class Erasure:
    """Consumer of `SubjectErased`."""

    store: Store

    async def handle(self, records: Sequence[Record]) -> None:
        """Each record once; the effect and its mark are one transaction."""
        for record in records:
            if subject := erased_subject(record, AUDIENCE):
                await self.store.write(partial(_erase, record, subject))


def _erase(record: Record, subject: str, unit: Unit) -> None:
    if unit.first_time(record, GROUP):
        erase(unit, subject)
