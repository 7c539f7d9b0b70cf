"""Erasure: takes a resident out of reservations and destroys documents and salts when identity says so. Consumes identity's topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from citykit.bus.port import Record
from citykit.erasure import erased_subject
from citykit.store.port import Store, Unit
from services.parking.app.board import Board
from services.parking.app.reservations import Reservations
from services.parking.app.tariffs import Permits
from services.parking.domain.reservation import CONFIRMED, HELD, Reservation
from services.parking.store import access, documents, reservations, tariffs

GROUP = "parking-erasure"
AUDIENCE = "parking"


@dataclass(frozen=True)
class Erasure:
    """Consumer of `SubjectErased`. What is not begun is cancelled by the tariff's rule; what is in use ends as it would; money follows."""

    store: Store
    board: Board
    permits: Permits
    reservations: Reservations

    async def handle(self, records: Sequence[Record]) -> None:
        """Each record once; the effect and its mark are one transaction."""
        for record in records:
            if subject := erased_subject(record, AUDIENCE):
                await self._erase(record, subject)

    async def _erase(self, record: Record, subject: str) -> None:
        for one in await self.store.write(partial(self._erased, record, subject)):
            self.board.put(one)
        self.permits.forget(subject)

    def _erased(self, record: Record, subject: str, unit: Unit) -> list[Reservation]:
        if not unit.first_time(record, GROUP):
            return []
        theirs = reservations.of_subject(unit.connection, subject)
        over = [self.reservations.cancelled(unit, one) for one in theirs if one.state in (HELD, CONFIRMED)]
        ids = [one.id for one in theirs]
        documents.erase(unit, ids)
        access.erase_documents(unit, ids)
        tariffs.erase_permits(unit, subject)
        reservations.erase(unit, ids)
        return over
