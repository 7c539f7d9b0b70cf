"""Billing runs and bills. A run is a draft until the ledger's receipt is kept with it. Called by `app.billing` and `app.bundles`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, update

from citykit.store.port import Unit
from services.metering.store.tables import BILLS, CONTRACTS, LEAVES, RUNS


@dataclass(frozen=True, slots=True)
class RunRow:
    """`ledger_transaction` is empty while the run is a draft."""

    id: str
    from_date: str
    to_date: str
    tariff: str
    tariff_version: int
    root: bytes
    count: int
    total_minor: int
    ledger_transaction: str


@dataclass(frozen=True, slots=True)
class BillRow:
    """`corrects` is empty or the bill this one replaces."""

    id: str
    run: str
    position: int
    contract: str
    meter_point: str
    from_date: str
    to_date: str
    total_minor: int
    currency: str
    document: bytes
    salt: bytes
    corrects: str
    issued_at: int
    provable: int


_RUN_COLUMNS = tuple(item.name for item in fields(RunRow))
_BILL_COLUMNS = tuple(item.name for item in fields(BillRow))
_CORRECTING = BILLS.alias("correcting")


def add_run(unit: Unit, run: RunRow, bills: Sequence[BillRow], commitments: Sequence[bytes]) -> None:
    """Keeps a draft with its bills, so that a crash goes on with the same documents and salts."""
    unit.insert_many(RUNS, _RUN_COLUMNS, [astuple(run)])
    unit.insert_many(BILLS, _BILL_COLUMNS, [astuple(bill) for bill in bills])
    unit.insert_many(
        LEAVES, ("run", "position", "commitment"), [(run.id, n, leaf) for n, leaf in enumerate(commitments)]
    )


def close_run(unit: Unit, run: str, transaction: str) -> bool:
    """Keeps the receipt; False if it was kept before."""
    change = (
        update(RUNS).where(RUNS.c.id == run, RUNS.c.ledger_transaction == "").values(ledger_transaction=transaction)
    )
    return unit.connection.execute(change).rowcount == 1


def drafts(connection: Connection) -> list[RunRow]:
    """Runs the ledger has not confirmed."""
    return [
        _run(row) for row in connection.execute(select(RUNS).where(RUNS.c.ledger_transaction == "").order_by(RUNS.c.id))
    ]


def run(connection: Connection, id_: str) -> RunRow | None:
    row = connection.execute(select(RUNS).where(RUNS.c.id == id_)).one_or_none()
    return _run(row) if row is not None else None


def runs_of_period(connection: Connection, from_date: str, to_date: str) -> list[RunRow]:
    query = select(RUNS).where(RUNS.c.from_date == from_date, RUNS.c.to_date == to_date).order_by(RUNS.c.id)
    return [_run(row) for row in connection.execute(query)]


def leaves(connection: Connection, run_id: str) -> list[bytes]:
    """Commitments of a run's bills in order."""
    query = select(LEAVES.c.commitment).where(LEAVES.c.run == run_id).order_by(LEAVES.c.position)
    return [bytes(leaf) for leaf in connection.execute(query).scalars()]


def bills_of_run(connection: Connection, run_id: str) -> list[BillRow]:
    return [
        _bill(row) for row in connection.execute(select(BILLS).where(BILLS.c.run == run_id).order_by(BILLS.c.position))
    ]


def billed(connection: Connection, from_date: str, to_date: str) -> set[str]:
    """Contracts with a bill (draft or not) for a day of [from_date, to_date)."""
    query = select(BILLS.c.contract).where(BILLS.c.from_date < to_date, BILLS.c.to_date > from_date)
    return set(connection.execute(query).scalars())


def shown(connection: Connection, id_: str) -> tuple[BillRow, str] | None:
    """A bill of a closed run, and the bill that corrects it or ""."""
    row = connection.execute(_shown().where(BILLS.c.id == id_)).one_or_none()
    return (_bill(row), row.corrected_by or "") if row is not None else None


def page(
    connection: Connection, subject: str | None, after: tuple[int, str] | None, limit: int
) -> list[tuple[BillRow, str]]:
    """Bills of closed runs, newest first; of one resident or (None) of all.

    Args:
        after: (issued_at, id) of the last bill of the page before.
    """
    query = _shown()
    if subject is not None:
        query = query.where(BILLS.c.contract.in_(select(CONTRACTS.c.id).where(CONTRACTS.c.subject == subject)))
    if after is not None:
        older = (BILLS.c.issued_at < after[0]) | ((BILLS.c.issued_at == after[0]) & (BILLS.c.id > after[1]))
        query = query.where(older)
    rows = connection.execute(query.order_by(BILLS.c.issued_at.desc(), BILLS.c.id).limit(limit))
    return [(_bill(row), row.corrected_by or "") for row in rows]


def gaps(connection: Connection) -> tuple[int, int]:
    """(contracts with bills, bills that do not begin where the contract's bill before ended). Corrections replace and do not count."""
    before = func.lag(BILLS.c.to_date).over(partition_by=BILLS.c.contract, order_by=BILLS.c.from_date)
    closed = (RUNS.c.id == BILLS.c.run) & (RUNS.c.ledger_transaction != "")
    rows = (
        select(BILLS.c.contract, BILLS.c.from_date, before.label("before"))
        .join(RUNS, closed)
        .where(BILLS.c.corrects == "")
        .subquery()
    )
    contracts = connection.execute(select(func.count(rows.c.contract.distinct()))).scalar_one()
    apart = select(func.count()).select_from(rows).where(rows.c.before != rows.c.from_date)
    return int(contracts), int(connection.execute(apart).scalar_one())


def broken_runs(connection: Connection) -> tuple[int, int]:
    """(closed runs, those of them without a commitment for each of their bills)."""
    closed = RUNS.c.ledger_transaction != ""
    kept = select(func.count()).where(LEAVES.c.run == RUNS.c.id).scalar_subquery()
    runs = connection.execute(select(func.count()).select_from(RUNS).where(closed)).scalar_one()
    broken = select(func.count()).select_from(RUNS).where(closed, kept != RUNS.c.count)
    return int(runs), int(connection.execute(broken).scalar_one())


def unproven(connection: Connection, limit: int) -> list[BillRow]:
    """Bills of closed runs that were not yet found provable, oldest first."""
    query = _shown().where(BILLS.c.provable == 0).order_by(BILLS.c.issued_at, BILLS.c.id).limit(limit)
    return [_bill(row) for row in connection.execute(query)]


def set_provable(ids: Sequence[str], unit: Unit) -> None:
    unit.execute(update(BILLS).where(BILLS.c.id.in_(ids)).values(provable=1))


def _shown() -> Select[Any]:
    corrected_by = select(_CORRECTING.c.id).where(_CORRECTING.c.corrects == BILLS.c.id).limit(1).scalar_subquery()
    closed = (RUNS.c.id == BILLS.c.run) & (RUNS.c.ledger_transaction != "")
    return select(BILLS, corrected_by.label("corrected_by")).join(RUNS, closed)


def _run(row: Row[Any]) -> RunRow:
    return RunRow(*(row._mapping[name] for name in _RUN_COLUMNS))


def _bill(row: Row[Any]) -> BillRow:
    return BillRow(*(row._mapping[name] for name in _BILL_COLUMNS))
