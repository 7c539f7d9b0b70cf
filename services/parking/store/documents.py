"""The document of each change of a reservation, with the opening of its commitment. Called by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from citykit.store.port import Unit
from services.parking.store.tables import DOCUMENTS


@dataclass(frozen=True, slots=True)
class DocumentRow:
    reservation: str
    version: int
    document: bytes
    salt: bytes


def add(unit: Unit, row: DocumentRow) -> None:
    columns = ("reservation", "version", "document", "salt")
    unit.insert_many(DOCUMENTS, columns, [(row.reservation, row.version, row.document, row.salt)])


def of(connection: Connection, reservation: str) -> list[DocumentRow]:
    """Every version, in order; none where they were erased."""
    query = select(DOCUMENTS).where(DOCUMENTS.c.reservation == reservation).order_by(DOCUMENTS.c.version)
    return [DocumentRow(*row) for row in connection.execute(query)]


def newest(connection: Connection, reservation: str) -> bytes | None:
    query = select(DOCUMENTS.c.document).where(DOCUMENTS.c.reservation == reservation)
    return connection.execute(query.order_by(DOCUMENTS.c.version.desc()).limit(1)).scalar_one_or_none()


def erase(unit: Unit, reservations: Sequence[str]) -> None:
    """Destroys documents and salts: what stands in the log can no longer be linked to anybody."""
    unit.execute(delete(DOCUMENTS).where(DOCUMENTS.c.reservation.in_(reservations)))
