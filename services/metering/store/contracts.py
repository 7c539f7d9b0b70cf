"""Contracts of residents and published tariffs. Called by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from citykit.store.port import Unit
from services.metering.store.tables import CONTRACTS, TARIFFS


@dataclass(frozen=True, slots=True)
class ContractRow:
    """`to_date` is exclusive and empty while the contract runs."""

    id: str
    meter_point: str
    subject: str
    tariff: str
    from_date: str
    to_date: str

    def overlaps(self, from_date: str, to_date: str) -> bool:
        """Whether it holds on a day of [from_date, to_date)."""
        return self.from_date < to_date and (not self.to_date or self.to_date > from_date)


@dataclass(frozen=True, slots=True)
class TariffRow:
    id: str
    version: int
    valid_from: str
    document: bytes
    transaction: str


def add_contract(unit: Unit, row: ContractRow) -> None:
    unit.execute(insert(CONTRACTS).values(**_values(row)))


def end_contract(unit: Unit, id_: str, to_date: str) -> None:
    unit.execute(update(CONTRACTS).where(CONTRACTS.c.id == id_).values(to_date=to_date))


def contract(connection: Connection, id_: str) -> ContractRow | None:
    row = connection.execute(select(CONTRACTS).where(CONTRACTS.c.id == id_)).one_or_none()
    return _contract(row) if row is not None else None


def contracts_of_subject(connection: Connection, subject: str) -> list[ContractRow]:
    """A resident's contracts, oldest first."""
    query = select(CONTRACTS).where(CONTRACTS.c.subject == subject).order_by(CONTRACTS.c.from_date, CONTRACTS.c.id)
    return [_contract(row) for row in connection.execute(query)]


def contracts_at(connection: Connection, meter_point: str) -> list[ContractRow]:
    """Every contract of a meter point, oldest first."""
    query = select(CONTRACTS).where(CONTRACTS.c.meter_point == meter_point).order_by(CONTRACTS.c.from_date)
    return [_contract(row) for row in connection.execute(query)]


def contracts_between(connection: Connection, from_date: str, to_date: str) -> list[ContractRow]:
    """Contracts that hold on a day of [from_date, to_date), by meter point."""
    running = or_(CONTRACTS.c.to_date == "", CONTRACTS.c.to_date > from_date)
    query = select(CONTRACTS).where(and_(CONTRACTS.c.from_date < to_date, running))
    return [
        _contract(row) for row in connection.execute(query.order_by(CONTRACTS.c.meter_point, CONTRACTS.c.from_date))
    ]


def add_tariff(unit: Unit, row: TariffRow) -> None:
    """Keeps a tariff the ledger has; a second time changes nothing."""
    values = {
        "id": row.id,
        "version": row.version,
        "valid_from": row.valid_from,
        "document": row.document,
        "ledger_transaction": row.transaction,
    }
    if tariff(unit.connection, row.id, row.version) is None:
        unit.execute(insert(TARIFFS).values(**values))


def tariff(connection: Connection, id_: str, version: int) -> TariffRow | None:
    row = connection.execute(select(TARIFFS).where(TARIFFS.c.id == id_, TARIFFS.c.version == version)).one_or_none()
    return _tariff(row) if row is not None else None


def tariffs(connection: Connection) -> Sequence[TariffRow]:
    """Every published tariff."""
    return [_tariff(row) for row in connection.execute(select(TARIFFS).order_by(TARIFFS.c.id, TARIFFS.c.version))]


def tariff_on(connection: Connection, id_: str, day: str) -> TariffRow | None:
    """The newest version of a tariff that is valid on a day."""
    query = select(TARIFFS).where(TARIFFS.c.id == id_, TARIFFS.c.valid_from <= day)
    row = connection.execute(query.order_by(TARIFFS.c.version.desc()).limit(1)).one_or_none()
    return _tariff(row) if row is not None else None


def _values(row: ContractRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("id", "meter_point", "subject", "tariff", "from_date", "to_date")}


def _contract(row: Row[Any]) -> ContractRow:
    return ContractRow(row.id, row.meter_point, row.subject, row.tariff, row.from_date, row.to_date)


def _tariff(row: Row[Any]) -> TariffRow:
    return TariffRow(row.id, row.version, row.valid_from, bytes(row.document), row.ledger_transaction)
