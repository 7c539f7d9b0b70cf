"""What a service keeps of the city's devices and their keys, in tables of its own: a read model of identity. Called by `registry`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, MetaData, String, Table, delete, insert, select

from citykit.store.port import Unit

_KEY_COLUMNS = ("device", "from_sequence", "public_key", "algorithm", "ledger_transaction")


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
class DeviceTables:
    """A service's two tables of devices."""

    devices: Table
    keys: Table


def device_tables(metadata: MetaData) -> DeviceTables:
    """Declares the tables `devices` and `device_keys`; the service's migrations make them."""
    devices = Table(
        "devices",
        metadata,
        Column("device", String, primary_key=True),
        Column("from_time", BigInteger, nullable=False),
        Column("last_sequence", BigInteger),
    )
    keys = Table(
        "device_keys",
        metadata,
        Column("device", String, primary_key=True),
        Column("from_sequence", BigInteger, primary_key=True),
        Column("public_key", LargeBinary, nullable=False),
        Column("algorithm", String, nullable=False),
        Column("ledger_transaction", String, nullable=False),
    )
    return DeviceTables(devices, keys)


def put_device(unit: Unit, tables: DeviceTables, row: DeviceRow) -> None:
    """Replaces what is known of the device."""
    for table in (tables.devices, tables.keys):
        unit.execute(delete(table).where(table.c.device == row.device))
    values = {"device": row.device, "from_time": row.from_time, "last_sequence": row.last_sequence}
    unit.execute(insert(tables.devices).values(values))
    rows = [(row.device, k.from_sequence, k.public_key, k.algorithm, k.transaction) for k in row.keys]
    unit.insert_many(tables.keys, _KEY_COLUMNS, rows)


def every_device(connection: Connection, tables: DeviceTables) -> list[DeviceRow]:
    """Every known device."""
    keys: dict[str, list[Key]] = {}
    for row in connection.execute(select(tables.keys).order_by(tables.keys.c.device, tables.keys.c.from_sequence)):
        key = Key(row.from_sequence, row.public_key, row.algorithm, row.ledger_transaction)
        keys.setdefault(row.device, []).append(key)
    rows = connection.execute(select(tables.devices))
    return [DeviceRow(row.device, row.from_time, row.last_sequence, tuple(keys.get(row.device, ()))) for row in rows]


def device_keys(connection: Connection, tables: DeviceTables, device: str) -> list[Key]:
    """Keys of a device in order of the first sequence they sign."""
    query = select(tables.keys).where(tables.keys.c.device == device).order_by(tables.keys.c.from_sequence)
    return [Key(r.from_sequence, r.public_key, r.algorithm, r.ledger_transaction) for r in connection.execute(query)]
