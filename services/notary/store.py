"""The notary's tables: the committed sizes, how far the bus was read, the anchors, and where each commitment stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, MetaData, String, Table, desc, select

from citykit.bus.port import Record
from citykit.store.driver import insert_new, upsert
from citykit.store.port import Unit

METADATA = MetaData()
LOGS = Table("logs", METADATA, Column("log", String, primary_key=True), Column("size", BigInteger, nullable=False))
POSITIONS = Table(
    "positions",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
ANCHORS = Table(
    "anchors",
    METADATA,
    Column("log", String, primary_key=True),
    Column("size", BigInteger, primary_key=True),
    Column("root", LargeBinary, nullable=False),
    Column("ledger_transaction", String, nullable=False),
    Column("at", BigInteger, nullable=False),
)
ENTRIES = Table(
    "entries",
    METADATA,
    Column("prefix", BigInteger, primary_key=True, autoincrement=False),
    Column("log", String, primary_key=True),
    Column("position", BigInteger, primary_key=True),
)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head on the ledger; `at` in city time."""

    log: str
    size: int
    root: bytes
    transaction: str
    at: int


def prefix_of(commitment: bytes) -> int:
    """The first 8 bytes as a signed integer: the index's key; equal prefixes are told apart by the entries themselves."""
    return int.from_bytes(commitment[:8], "big", signed=True)


def sizes(connection: Connection) -> dict[str, int]:
    return {row.log: row.size for row in connection.execute(select(LOGS))}


def positions(connection: Connection) -> dict[tuple[str, int], int]:
    return {(row.topic, row.partition): row.position for row in connection.execute(select(POSITIONS))}


def newest_anchors(connection: Connection) -> dict[str, Anchor]:
    """The newest anchor of each log."""
    found: dict[str, Anchor] = {}
    for row in connection.execute(select(ANCHORS).order_by(ANCHORS.c.log, ANCHORS.c.size)):
        found[row.log] = Anchor(row.log, row.size, row.root, row.ledger_transaction, row.at)
    return found


def anchor_of_size(connection: Connection, log: str, size: int) -> Anchor | None:
    row = connection.execute(select(ANCHORS).where(ANCHORS.c.log == log, ANCHORS.c.size == size)).one_or_none()
    return None if row is None else Anchor(row.log, row.size, row.root, row.ledger_transaction, row.at)


def newest_anchor(connection: Connection, log: str) -> Anchor | None:
    query = select(ANCHORS).where(ANCHORS.c.log == log).order_by(desc(ANCHORS.c.size)).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Anchor(row.log, row.size, row.root, row.ledger_transaction, row.at)


def candidates(connection: Connection, log: str, prefixes: Sequence[int]) -> dict[int, list[int]]:
    """Prefix -> entries that may hold it."""
    found: dict[int, list[int]] = {}
    query = select(ENTRIES.c.prefix, ENTRIES.c.position).where(ENTRIES.c.log == log)
    for start in range(0, len(prefixes), 500):
        for row in connection.execute(query.where(ENTRIES.c.prefix.in_(prefixes[start : start + 500]))):
            found.setdefault(row.prefix, []).append(row.position)
    return found


def save_growth(unit: Unit, log: str, start: int, entries: Sequence[bytes], records: Sequence[Record]) -> None:
    """The commit point of an integration: size, index and bus position together."""
    rows = sorted((prefix_of(entry), log, start + number) for number, entry in enumerate(entries))
    unit.insert_many(ENTRIES, ("prefix", "log", "position"), rows)
    upsert(unit.connection, LOGS, ("log",), {"log": log, "size": start + len(entries)})
    if records:
        last = records[-1]
        place = {"topic": last.topic, "partition": last.partition, "position": last.offset + 1}
        upsert(unit.connection, POSITIONS, ("topic", "partition"), place)


def save_anchor(unit: Unit, anchor: Anchor) -> None:
    row = {
        "log": anchor.log,
        "size": anchor.size,
        "root": anchor.root,
        "ledger_transaction": anchor.transaction,
        "at": anchor.at,
    }
    insert_new(unit.connection, ANCHORS, row)
