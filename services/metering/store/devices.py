"""Devices, their keys and meter points: metering's own read model of identity. Called by `app.fleet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, insert, select, update

from citykit.store.port import Unit
from services.metering.store.tables import DEVICE_KEYS, DEVICES, METER_POINTS


@dataclass(frozen=True, slots=True)
class Key:
    """A device key and the first sequence it signs."""

    from_sequence: int
    public_key: bytes
    algorithm: str
    transaction: str


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """What identity told of a device; `last_sequence` is set once it is revoked."""

    device: str
    from_time: int
    last_sequence: int | None
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class MeterPointRow:
    id: str
    device: str
    max_slot_wh: int
    zone: str


def put_device(unit: Unit, row: DeviceRow) -> None:
    """Replaces what is known of the device."""
    for table in (DEVICES, DEVICE_KEYS):
        unit.execute(delete(table).where(table.c.device == row.device))
    unit.execute(insert(DEVICES).values(device=row.device, from_time=row.from_time, last_sequence=row.last_sequence))
    columns = ("device", "from_sequence", "public_key", "algorithm", "ledger_transaction")
    unit.insert_many(
        DEVICE_KEYS,
        columns,
        [(row.device, k.from_sequence, k.public_key, k.algorithm, k.transaction) for k in row.keys],
    )


def devices(connection: Connection) -> list[DeviceRow]:
    """Every known device."""
    keys: dict[str, list[Key]] = {}
    for row in connection.execute(select(DEVICE_KEYS).order_by(DEVICE_KEYS.c.device, DEVICE_KEYS.c.from_sequence)):
        key = Key(row.from_sequence, row.public_key, row.algorithm, row.ledger_transaction)
        keys.setdefault(row.device, []).append(key)
    rows = connection.execute(select(DEVICES))
    return [DeviceRow(row.device, row.from_time, row.last_sequence, tuple(keys.get(row.device, ()))) for row in rows]


def device_keys(connection: Connection, device: str) -> list[Key]:
    """Keys of a device in order of the first sequence they sign."""
    query = select(DEVICE_KEYS).where(DEVICE_KEYS.c.device == device).order_by(DEVICE_KEYS.c.from_sequence)
    return [Key(r.from_sequence, r.public_key, r.algorithm, r.ledger_transaction) for r in connection.execute(query)]


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
