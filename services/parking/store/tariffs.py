"""Published tariffs and permits. Called by `app`."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from sqlalchemy import Connection, delete, select

from citykit.store.driver import insert_new
from citykit.store.port import Unit
from services.parking.store.tables import PERMITS, TARIFFS


@dataclass(frozen=True, slots=True)
class TariffRow:
    """A published version; `document` is canonical JSON."""

    id: str
    version: int
    document: bytes
    transaction: str


@dataclass(frozen=True, slots=True)
class PermitRow:
    """Leaves a share of the price to pay. `lots`: space-separated, empty for all."""

    id: str
    subject: str
    lots: str
    from_time: int
    to_time: int
    price_basis_points: int

    def holds(self, lot: str, time: int) -> bool:
        return self.from_time <= time < self.to_time and (not self.lots or lot in self.lots.split(" "))


_PERMIT_COLUMNS = tuple(item.name for item in fields(PermitRow))


def add_tariff(unit: Unit, row: TariffRow) -> None:
    """The same version again is no change: the ledger has seen to it that the content is the same."""
    values = {"id": row.id, "version": row.version, "document": row.document, "ledger_transaction": row.transaction}
    insert_new(unit.connection, TARIFFS, values)


def tariffs(connection: Connection) -> list[TariffRow]:
    rows = connection.execute(select(TARIFFS).order_by(TARIFFS.c.id, TARIFFS.c.version))
    return [TariffRow(row.id, row.version, bytes(row.document), row.ledger_transaction) for row in rows]


def tariff(connection: Connection, id_: str, version: int) -> TariffRow | None:
    query = select(TARIFFS).where(TARIFFS.c.id == id_, TARIFFS.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else TariffRow(row.id, row.version, bytes(row.document), row.ledger_transaction)


def add_permit(unit: Unit, row: PermitRow) -> None:
    unit.insert_many(PERMITS, _PERMIT_COLUMNS, [astuple(row)])


def permits(connection: Connection) -> list[PermitRow]:
    return [PermitRow(*row) for row in connection.execute(select(PERMITS))]


def erase_permits(unit: Unit, subject: str) -> None:
    unit.execute(delete(PERMITS).where(PERMITS.c.subject == subject))
