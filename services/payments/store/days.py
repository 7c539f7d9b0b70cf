"""Reports of days. Called by `app.reconciliation`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, select, update

from citykit import canonical
from citykit.store.driver import upsert
from citykit.store.port import Unit
from services.payments.domain.reconciliation import Difference, Report
from services.payments.store.tables import DAYS


@dataclass(frozen=True, slots=True)
class DayRow:
    """`transaction` is empty until the ledger has closed the day."""

    day: str
    report: Report
    made_at: int
    transaction: str


def keep(row: DayRow, unit: Unit) -> None:
    """Keeps a day's report in the place of an earlier one."""
    values = {"day": row.day, "report": canonical.encode(asdict(row.report)), "made_at": row.made_at}
    upsert(unit.connection, DAYS, ("day",), values, {"ledger_transaction": row.transaction})


def closed(day: str, transaction: str, unit: Unit) -> None:
    unit.execute(update(DAYS).where(DAYS.c.day == day).values(ledger_transaction=transaction))


def day(connection: Connection, name: str) -> DayRow | None:
    row = connection.execute(select(DAYS).where(DAYS.c.day == name)).one_or_none()
    return None if row is None else DayRow(row.day, _report(bytes(row.report)), row.made_at, row.ledger_transaction)


def last_closed(connection: Connection) -> str | None:
    """The newest day the ledger has closed."""
    found: str | None = connection.execute(
        select(func.max(DAYS.c.day)).where(DAYS.c.ledger_transaction != "")
    ).scalar_one()
    return found


def _report(data: bytes) -> Report:
    values = canonical.decode(data)
    differences = tuple(Difference(**item) for item in values.pop("differences"))
    return Report(**{**values, "differences": differences, "waiting": tuple(values["waiting"])})
