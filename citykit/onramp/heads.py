"""Where the devices' chains stand, in a service's own tables: placing packages within one unit of work. Called by a service's store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from sqlalchemy import Connection, Table, select

from citykit.onramp.chain import FIRST, Head, Known, Refusal, place
from citykit.store.driver import change_many, one_of, rows
from citykit.store.port import Unit

_IN_MAX = 500


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
    stored: dict[str, Chain] = {}
    for some in _parts(sorted(names)):
        found = rows(connection, _select_heads(tables.heads, len(some)), some)
        stored |= {row[0]: Chain(row[0], Head(row[1], row[2]), row[3], new=False) for row in found}
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
    changed = [(c.head.sequence, c.head.hash, c.last_time, c.device) for c in moved if not c.new]
    change_many(unit.connection, _update_head(tables.heads), changed)


def _parts(names: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(names), _IN_MAX):
        yield names[at : at + _IN_MAX]


# One statement for each table and count: they are on the hot path of every package.
@lru_cache(maxsize=1_024)
def _select_heads(table: Table, count: int) -> str:
    names = ", ".join(column.name for column in table.c)
    return f"SELECT {names} FROM {table.name} WHERE {one_of('device', count)}"  # noqa: S608 - names of our tables


@cache
def _update_head(table: Table) -> str:
    last = list(table.c)[3].name
    return f"UPDATE {table.name} SET sequence = ?, hash = ?, {last} = ? WHERE device = ?"  # noqa: S608 - as above


def heads(connection: Connection, tables: ChainTables, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
    """(device, sequence, hash) of the devices that have sent something."""
    columns = tables.heads.c
    query = select(columns.device, columns.sequence, columns.hash).where(columns.device.in_(devices))
    return [(row.device, row.sequence, row.hash) for row in connection.execute(query)]
