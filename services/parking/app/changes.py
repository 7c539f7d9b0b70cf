"""Writes a change of a reservation down: the row, its promises, its document with salt, and the event. Called by the other use cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citykit.ids import Randomness
from citykit.package import commitment
from citykit.store.port import Unit
from services.parking import events
from services.parking.domain.price import Line
from services.parking.domain.reservation import Reservation, used_until
from services.parking.store import documents, reservations
from services.parking.store.documents import DocumentRow

SALT_BYTES = 32


@dataclass(frozen=True)
class Changes:
    """`randomness` gives the salts."""

    randomness: Randomness

    def begin(self, unit: Unit, one: Reservation, lines: Sequence[Line], now: int) -> None:
        """A new hold.

        Raises:
            Promised: somebody has the bay.
        """
        reservations.add(unit, one, now)
        self._tell(unit, one, "held", lines, now)

    def keep(self, unit: Unit, one: Reservation, change: str, lines: Sequence[Line], now: int) -> Reservation:
        """A change of one that is stored; returns it. What is no longer needed of its bay is given back."""
        reservations.save(unit, one)
        if not one.promised:
            reservations.release(unit, one.id, used_until(one) if one.exit_time else 0)
        self._tell(unit, one, change, lines, now)
        return one

    def _tell(self, unit: Unit, one: Reservation, change: str, lines: Sequence[Line], now: int) -> None:
        document = events.reservation_document(one, change, list(lines), now)
        salt = self.randomness(SALT_BYTES)
        if one.subject:  # of an erased person no opening is kept
            documents.add(unit, DocumentRow(one.id, one.version, document, salt))
        unit.publish(events.reservation_changed(one, change, commitment(salt, document), now))
