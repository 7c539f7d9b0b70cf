"""Reservations and the promises of their bays. The table of promises is the guard: the database refuses to give a bay twice. Called by `app`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, or_, select, update

from citykit.store import driver
from citykit.store.port import Unit
from services.parking.domain.reservation import (
    ACTIVE,
    CONFIRMED,
    CONFIRMING,
    ENDED,
    ENTRY,
    HELD,
    NO_SHOW,
    SLOT_S,
    Reservation,
    Use,
)
from services.parking.store.tables import ACCESS, PROMISES, RESERVATIONS

_COLUMNS = (
    "id", "subject", "lot", "bay", "from_time", "to_time", "hold_until", "quote_minor", "currency", "tariff",
    "tariff_version", "permit_basis_points", "plate", "state", "version", "mandate", "entry_time", "exit_time", "price_minor",
)  # fmt: skip
_ALL = (*_COLUMNS, "access_number", "access_device", "access_sequence")
_BAY_USED = (HELD, CONFIRMING, CONFIRMED, ACTIVE, ENDED, NO_SHOW)


@dataclass(frozen=True, slots=True)
class Promise:
    """The quarters of an hour (numbers) of one bay that one reservation has."""

    reservation: str
    lot: str
    bay: str
    slots: range


_HOLDS_OF = "SELECT count(*) FROM reservations WHERE subject = ? AND (state = ? OR (state = ? AND hold_until >= ?))"
_TAKEN = "SELECT reservation FROM promises WHERE lot = ? AND bay = ? AND slot BETWEEN ? AND ? LIMIT 1"


class Promised(Exception):
    """The bay is promised to somebody else in one of these quarters of an hour: to whom is in `promise`."""

    def __init__(self, promise: Promise) -> None:
        super().__init__()
        self.promise = promise


def add(unit: Unit, one: Reservation, now: int) -> None:
    """A new reservation with its promises.

    Raises:
        Promised: nothing may be kept of the unit then.
    """
    values = {**_values(one), "made_at": now, "provable": 0}
    unit.insert_many(RESERVATIONS, tuple(values), [tuple(values.values())])
    promise(unit, one, one.slots)


def promise(unit: Unit, one: Reservation, slots: range) -> None:
    """Gives the bay to the reservation.

    Raises:
        Promised: nothing may be kept of the unit then.
    """
    if before := driver.rows(unit.connection, _TAKEN, (one.lot, one.bay, slots.start, slots.stop - 1)):
        raise Promised(_promise_of(unit.connection, before[0][0]))
    unit.insert_many(
        PROMISES, ("lot", "bay", "slot", "reservation"), [(one.lot, one.bay, slot, one.id) for slot in slots]
    )


def release(unit: Unit, reservation: str, from_time: int = 0) -> None:
    """Takes back what was promised of quarters of an hour that begin at `from_time` or later."""
    first = -(-from_time // SLOT_S)
    unit.execute(delete(PROMISES).where(PROMISES.c.reservation == reservation, PROMISES.c.slot >= first))


def save(unit: Unit, one: Reservation) -> None:
    """A reservation as it is after a change."""
    values = _values(one)
    unit.execute(update(RESERVATIONS).where(RESERVATIONS.c.id == values.pop("id")).values(**values))


def get(connection: Connection, id_: str) -> Reservation | None:
    found = connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.id == id_)).one_or_none()
    return None if found is None else _read(found)


def open_holds(connection: Connection, subject: str, now: int) -> int:
    """Bays the person keeps without obligation."""
    return int(driver.rows(connection, _HOLDS_OF, (subject, CONFIRMING, HELD, now))[0][0])


def holds_past(connection: Connection, now: int, limit: int) -> list[Reservation]:
    """Bays kept for somebody whose time is up, the oldest first."""
    query = select(RESERVATIONS).where(RESERVATIONS.c.state.in_((HELD, CONFIRMING)), RESERVATIONS.c.hold_until < now)
    return [_read(row) for row in connection.execute(query.order_by(RESERVATIONS.c.hold_until).limit(limit))]


def confirmed_past(connection: Connection, now: int, late: int, limit: int) -> list[Reservation]:
    """Confirmed ones whose end has passed and nobody is known to have come, the latest last.

    Args:
        late: those with a document to enter with are left out until their end lies before this.
    """
    given = (
        select(ACCESS.c.reservation).where(ACCESS.c.reservation == RESERVATIONS.c.id, ACCESS.c.act == ENTRY).exists()
    )
    due = (RESERVATIONS.c.state == CONFIRMED, RESERVATIONS.c.to_time < now, or_(RESERVATIONS.c.to_time < late, ~given))
    query = select(RESERVATIONS).where(*due).order_by(RESERVATIONS.c.to_time).limit(limit)
    return [_read(row) for row in connection.execute(query)]


def of_subject(connection: Connection, subject: str) -> list[Reservation]:
    query = select(RESERVATIONS).where(RESERVATIONS.c.subject == subject)
    return [_read(row) for row in connection.execute(query)]


def page(
    connection: Connection, subject: str, after: tuple[int, str] | None, limit: int
) -> list[tuple[Reservation, int, bool]]:
    """(reservation, when it was made, provable) of a person, newest first.

    Args:
        after: (made at, id) of the last one of the page before.
    """
    query = select(RESERVATIONS).where(RESERVATIONS.c.subject == subject)
    if after is not None:
        made, id_ = after
        same = (RESERVATIONS.c.made_at == made) & (RESERVATIONS.c.id > id_)
        query = query.where((RESERVATIONS.c.made_at < made) | same)
    rows = connection.execute(query.order_by(RESERVATIONS.c.made_at.desc(), RESERVATIONS.c.id).limit(limit))
    return [(_read(row), row.made_at, bool(row.provable)) for row in rows]


def is_provable(connection: Connection, id_: str) -> bool:
    return bool(connection.execute(select(RESERVATIONS.c.provable).where(RESERVATIONS.c.id == id_)).scalar_one())


def unproven(connection: Connection, states: Collection[str], limit: int) -> list[str]:
    """Those that are over and were not yet found provable, the oldest first; erased ones are left out."""
    over = (RESERVATIONS.c.provable == 0, RESERVATIONS.c.state.in_(states), RESERVATIONS.c.subject != "")
    query = select(RESERVATIONS.c.id).where(*over).order_by(RESERVATIONS.c.made_at).limit(limit)
    return [row.id for row in connection.execute(query)]


def set_provable(unit: Unit, id_: str, provable: bool) -> None:
    unit.execute(update(RESERVATIONS).where(RESERVATIONS.c.id == id_).values(provable=int(provable)))


def promises(connection: Connection, from_slot: int) -> list[Promise]:
    """Every promise that reaches `from_slot` or later: what the board is made of at a start."""
    first, last = func.min(PROMISES.c.slot).label("first"), func.max(PROMISES.c.slot).label("last")
    query = select(PROMISES.c.reservation, PROMISES.c.lot, PROMISES.c.bay, first, last)
    query = query.group_by(PROMISES.c.reservation, PROMISES.c.lot, PROMISES.c.bay).having(last >= from_slot)
    return [
        Promise(row.reservation, row.lot, row.bay, range(row.first, row.last + 1)) for row in connection.execute(query)
    ]


def _promise_of(connection: Connection, reservation: str) -> Promise:
    slot, rows = PROMISES.c.slot, PROMISES.c.reservation == reservation
    query = select(PROMISES.c.lot, PROMISES.c.bay, func.min(slot).label("first"), func.max(slot).label("last"))
    row = connection.execute(query.where(rows).group_by(PROMISES.c.lot, PROMISES.c.bay)).one()
    return Promise(reservation, row.lot, row.bay, range(row.first, row.last + 1))


def hold_ends(connection: Connection) -> dict[str, int]:
    """Reservation -> until when it is held or being confirmed."""
    query = select(RESERVATIONS.c.id, RESERVATIONS.c.hold_until).where(RESERVATIONS.c.state.in_((HELD, CONFIRMING)))
    return {row.id: row.hold_until for row in connection.execute(query)}


def double_bookings(connection: Connection) -> int:
    """Reservations that begin while an earlier one of the same bay still had it. Counted from what was reserved, not from promises."""
    table = RESERVATIONS.c
    whole = (table.exit_time + SLOT_S - 1) // SLOT_S * SLOT_S
    early = (table.state == ENDED) & (whole < table.to_time)
    end = case((early, whole), else_=table.to_time)
    until = func.max(end).over(
        partition_by=(table.lot, table.bay), order_by=(table.from_time, table.id), rows=(None, -1)
    )
    columns = (table.from_time, end.label("ends"), until.label("until"))
    rows = select(*columns).where(table.state.in_(_BAY_USED)).subquery()
    meets = (rows.c.until > rows.c.from_time) & (rows.c.ends > rows.c.from_time)  # left at once: not used
    return int(connection.execute(select(func.count()).select_from(rows).where(meets)).scalar_one())


def by_state(connection: Connection) -> dict[str, int]:
    query = select(RESERVATIONS.c.state, func.count().label("reservations")).group_by(RESERVATIONS.c.state)
    return {row.state: row.reservations for row in connection.execute(query)}


def erase(unit: Unit, ids: Sequence[str]) -> None:
    """Takes the person and the plate out."""
    unit.execute(update(RESERVATIONS).where(RESERVATIONS.c.id.in_(ids)).values(subject="", plate="", provable=0))


def _values(one: Reservation) -> dict[str, Any]:
    use = one.access or Use(0, "", 0)
    values = {name: getattr(one, name) for name in _COLUMNS}
    return {**values, "access_number": use.number, "access_device": use.device, "access_sequence": use.sequence}


def _read(row: Row[Any]) -> Reservation:
    use = Use(row.access_number, row.access_device, row.access_sequence) if row.access_number else None
    return Reservation(**{name: row._mapping[name] for name in _COLUMNS}, access=use)
