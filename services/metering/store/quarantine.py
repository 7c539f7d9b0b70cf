"""Quarantine entries and appeals. Called by `app.quarantine`; entries are opened by `store.packages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from citykit.store.port import Unit
from services.metering.store.packages import ALREADY_MEASURED
from services.metering.store.tables import APPEALS, QUARANTINE, READINGS

OPEN, GRANTED, REFUSED = "open", "granted", "refused"


@dataclass(frozen=True, slots=True)
class EntryRow:
    number: int
    device: str
    meter_point: str
    reason: str
    explanation: str
    since: int
    readings: int
    open: bool


@dataclass(frozen=True, slots=True)
class AppealRow:
    id: str
    meter_point: str
    subject: str
    from_time: int
    to_time: int
    statement: str
    state: str
    decision_reason: str


def entries(connection: Connection, before: int | None, limit: int) -> list[EntryRow]:
    """Newest first; `before` is the number of the last entry of the page before."""
    query = select(QUARANTINE).order_by(QUARANTINE.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(QUARANTINE.c.number < before)
    rows = connection.execute(query)
    return [
        EntryRow(r.number, r.device, r.meter_point, r.reason, r.explanation, r.since, r.readings, bool(r.open))
        for r in rows
    ]


def release(unit: Unit, device: str) -> int:
    """Closes the open entries of a device; returns how many."""
    change = update(QUARANTINE).where(QUARANTINE.c.device == device, QUARANTINE.c.open == 1).values(open=0)
    return unit.connection.execute(change).rowcount


def count_held(connection: Connection, meter_point: str, from_time: int, to_time: int) -> int:
    """Readings set aside in the range that an appeal can bring back: not those that contradict what was measured first."""
    return len(connection.execute(select(READINGS.c.slot).where(*_held(meter_point, from_time, to_time))).all())


def let_count(unit: Unit, meter_point: str, from_time: int, to_time: int) -> list[str]:
    """Held readings of the range count from now on; returns the devices they are of."""
    inside = _held(meter_point, from_time, to_time)
    devices = unit.connection.execute(select(READINGS.c.device).where(*inside).distinct()).scalars().all()
    unit.execute(update(READINGS).where(*inside).values(held=""))
    return list(devices)


def _held(meter_point: str, from_time: int, to_time: int) -> tuple[Any, ...]:
    inside = READINGS.c.slot.between(from_time, to_time - 1)
    return (READINGS.c.meter_point == meter_point, inside, READINGS.c.held.not_in(("", ALREADY_MEASURED)))


def add_appeal(unit: Unit, row: AppealRow) -> None:
    names = ("id", "meter_point", "subject", "from_time", "to_time", "statement", "state", "decision_reason")
    unit.execute(insert(APPEALS).values(**{name: getattr(row, name) for name in names}))


def appeal(connection: Connection, id_: str) -> AppealRow | None:
    row = connection.execute(select(APPEALS).where(APPEALS.c.id == id_)).one_or_none()
    return _appeal(row) if row is not None else None


def appeals(connection: Connection, subject: str | None, after: str, limit: int) -> list[AppealRow]:
    """By id; of one resident or (None) of all."""
    query = select(APPEALS).where(APPEALS.c.id > after).order_by(APPEALS.c.id).limit(limit)
    if subject is not None:
        query = query.where(APPEALS.c.subject == subject)
    return [_appeal(row) for row in connection.execute(query)]


def decide(unit: Unit, id_: str, state: str, reason: str) -> None:
    unit.execute(update(APPEALS).where(APPEALS.c.id == id_).values(state=state, decision_reason=reason))


def _appeal(row: Row[Any]) -> AppealRow:
    return AppealRow(
        row.id, row.meter_point, row.subject, row.from_time, row.to_time, row.statement, row.state, row.decision_reason
    )
