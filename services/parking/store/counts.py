"""What sensors counted: the newest word of each, and the last count of each half hour. Called by `store.packages` and `app.states`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from citykit.store.driver import change_many
from citykit.store.port import Unit
from services.parking.domain.states import Count
from services.parking.store.tables import COUNTS, HALF_HOURS

_COUNT_COLUMNS = ("lot", "device", "time", "occupied", "since", "stuck")
_PUT_HALF_HOUR = (
    "INSERT INTO half_hours (lot, slot, time, occupied, capacity) VALUES (?, ?, ?, ?, ?) ON CONFLICT (lot, slot) DO UPDATE SET"
    " time = excluded.time, occupied = excluded.occupied, capacity = excluded.capacity WHERE half_hours.time <= excluded.time"
)


@dataclass(frozen=True, slots=True)
class HalfHour:
    """The last count of a half hour; `slot` is its start."""

    lot: str
    slot: int
    time: int
    occupied: int
    capacity: int


def newest(connection: Connection, lots: Collection[str] | None = None) -> dict[str, dict[str, Count]]:
    """Lot -> device -> its newest word; of some lots or of all."""
    query = select(COUNTS) if lots is None else select(COUNTS).where(COUNTS.c.lot.in_(lots))
    found: dict[str, dict[str, Count]] = {}
    for row in connection.execute(query):
        count = Count(row.device, row.time, row.occupied, row.since, bool(row.stuck))
        found.setdefault(row.lot, {})[row.device] = count
    return found


def put_newest(unit: Unit, lot: str, counts: Sequence[Count]) -> None:
    """Replaces what the sensors said before."""
    for one in counts:
        unit.execute(delete(COUNTS).where(COUNTS.c.lot == lot, COUNTS.c.device == one.device))
    rows = [(lot, one.device, one.time, one.occupied, one.since, int(one.stuck)) for one in counts]
    unit.insert_many(COUNTS, _COUNT_COLUMNS, rows)


def history(connection: Connection, lot: str, from_time: int) -> dict[int, int]:
    """Half hour -> cars counted, from a time on."""
    query = select(HALF_HOURS.c.slot, HALF_HOURS.c.occupied)
    rows = connection.execute(query.where(HALF_HOURS.c.lot == lot, HALF_HOURS.c.slot >= from_time))
    return {row.slot: row.occupied for row in rows}


def half_hours(connection: Connection, from_time: int) -> list[HalfHour]:
    """Of all lots, from a time on."""
    rows = connection.execute(select(HALF_HOURS).where(HALF_HOURS.c.slot >= from_time))
    return [HalfHour(row.lot, row.slot, row.time, row.occupied, row.capacity) for row in rows]


def put_half_hours(unit: Unit, found: Iterable[HalfHour]) -> None:
    """Keeps the later count of each half hour: one call for all, since a day of a city's counts brings thousands."""
    rows = [(one.lot, one.slot, one.time, one.occupied, one.capacity) for one in found]
    change_many(unit.connection, _PUT_HALF_HOUR, rows)


def forget_before(unit: Unit, time: int) -> None:
    """Half hours nobody compares with any more."""
    unit.execute(delete(HALF_HOURS).where(HALF_HOURS.c.slot < time))
