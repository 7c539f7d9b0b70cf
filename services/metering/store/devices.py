"""Meter points and the devices at them. Called by `app.fleet` and `app.agreements`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, select, update

from citykit.store.port import Unit
from services.metering.store.tables import METER_POINTS


@dataclass(frozen=True, slots=True)
class MeterPointRow:
    id: str
    device: str
    max_slot_wh: int
    zone: str


def put_meter_points(unit: Unit, rows: Sequence[MeterPointRow]) -> int:
    """Registers or changes meter points; returns how many are new."""
    known = set(unit.connection.execute(select(METER_POINTS.c.id)).scalars())
    new = [(row.id, row.device, row.max_slot_wh, row.zone) for row in rows if row.id not in known]
    for row in rows:
        if row.id in known:
            change = {"device": row.device, "max_slot_wh": row.max_slot_wh, "zone": row.zone}
            unit.execute(update(METER_POINTS).where(METER_POINTS.c.id == row.id).values(**change))
    unit.insert_many(METER_POINTS, ("id", "device", "max_slot_wh", "zone"), new)
    return len(new)


def meter_points(connection: Connection) -> list[MeterPointRow]:
    """Every meter point."""
    return [_meter_point(row) for row in connection.execute(select(METER_POINTS).order_by(METER_POINTS.c.id))]


def meter_point(connection: Connection, id_: str) -> MeterPointRow | None:
    row = connection.execute(select(METER_POINTS).where(METER_POINTS.c.id == id_)).one_or_none()
    return _meter_point(row) if row is not None else None


def meter_point_of(connection: Connection, device: str) -> str | None:
    """The meter point another registration gave the device to."""
    return connection.execute(select(METER_POINTS.c.id).where(METER_POINTS.c.device == device)).scalar_one_or_none()


def _meter_point(row: Row[tuple[str, str, int, str]]) -> MeterPointRow:
    return MeterPointRow(row.id, row.device, row.max_slot_wh, row.zone)
