"""Where the devices' chains stand, in a service's own tables: placing packages within one unit of work. Called by a service's store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Connection, Table, Update, bindparam, select, update

from citykit.onramp.chain import FIRST, Head, Known, Refusal, place
from citykit.store.port import Unit


@dataclass(frozen=True, slots=True)
class ChainTables:
    """A service's tables of chains.

    Attributes:
        heads: device, sequence, hash and, as its fourth column, the time of the newest reading.
        packages: device, sequence, hash, previous and whatever else.
    """

    heads: Table
    packages: Table


@dataclass(slots=True)
class Chain:
    """A device's chain, as the unit of work sees it. `last_time` is that of the newest reading, -1 before the first."""

    device: str
    head: Head
    last_time: int
    new: bool
    moved: bool = False
    known: dict[int, Known] = field(default_factory=dict)

    def take(self, sequence: int, hash_: bytes, previous: bytes, last_time: int) -> None:
        """Adds a package that was placed."""
        self.known[sequence] = Known(hash_, previous)
        self.moved = True
        self.last_time = max(self.last_time, last_time)
        if sequence > self.head.sequence:
            self.head = Head(sequence, hash_)


def chains(connection: Connection, tables: ChainTables, devices: Iterable[str]) -> dict[str, Chain]:
    """The chain of each device."""
    names = set(devices)
    found = connection.execute(select(tables.heads).where(tables.heads.c.device.in_(names)))
    stored = {row[0]: Chain(row[0], Head(row[1], row[2]), row[3], new=False) for row in found}
    return {name: stored.get(name) or Chain(name, FIRST, -1, new=True) for name in names}


def placement(
    connection: Connection, tables: ChainTables, chain: Chain, sequence: int, hash_: bytes, previous: bytes
) -> str | Refusal:
    """NEXT, LATE, DUPLICATE, or why the package is refused (`chain.place`)."""
    known = chain.known if sequence > chain.head.sequence else _near(connection, tables, chain, sequence)
    return place(chain.head, known, sequence, hash_, previous)


def _near(connection: Connection, tables: ChainTables, chain: Chain, sequence: int) -> dict[int, Known]:
    columns = tables.packages.c
    query = select(columns.sequence, columns.hash, columns.previous).where(
        columns.device == chain.device, columns.sequence.in_((sequence - 1, sequence, sequence + 1))
    )
    return {row.sequence: Known(row.hash, row.previous) for row in connection.execute(query)} | chain.known


def set_heads(unit: Unit, tables: ChainTables, found: Iterable[Chain]) -> None:
    """Writes the heads that moved."""
    moved = [chain for chain in found if chain.moved]
    columns = [column.name for column in tables.heads.c]
    fresh = [(c.device, c.head.sequence, c.head.hash, c.last_time) for c in moved if c.new]
    unit.insert_many(tables.heads, columns, fresh)
    changed = [
        {"of": c.device, "sequence": c.head.sequence, "hash": c.head.hash, columns[3]: c.last_time}
        for c in moved
        if not c.new
    ]
    if changed:
        unit.execute(_set_head(tables.heads, columns[3]), changed)


@cache
def _set_head(table: Table, last: str) -> Update:
    changes: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in ("sequence", "hash", last)}
    return update(table).where(table.c.device == bindparam("of")).values(changes)


def heads(connection: Connection, tables: ChainTables, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
    """(device, sequence, hash) of the devices that have sent something."""
    columns = tables.heads.c
    query = select(columns.device, columns.sequence, columns.hash).where(columns.device.in_(devices))
    return [(row.device, row.sequence, row.hash) for row in connection.execute(query)]
