"""Observations as they came, a chunk a message; read back in order at start. A later value of the same half hour replaces the earlier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

from sqlalchemy import Connection, delete, select, update

from citykit.store.port import Unit
from services.forecasting.store.tables import CHUNKS

_OBSERVATION = Struct(">qqq")
_PRUNE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """(time, value, capacity) of one series: unix seconds and thousandths of its unit; capacity 0 where unknown."""

    series: str
    observations: tuple[tuple[int, int, int], ...]


def add(unit: Unit, chunks: Sequence[Chunk]) -> None:
    rows = [(one.series, one.observations[-1][0], _packed(one)) for one in chunks if one.observations]
    unit.insert_many(CHUNKS, ("series", "last_time", "observations"), rows)


def every(connection: Connection) -> Iterator[Chunk]:
    """All chunks in the order they came."""
    for row in connection.execute(select(CHUNKS.c.series, CHUNKS.c.observations).order_by(CHUNKS.c.number)):
        yield Chunk(row.series, tuple(_OBSERVATION.iter_unpack(row.observations)))


def forget(unit: Unit, series: str, from_time: int, to_time: int) -> int:
    """Destroys a series' observations in [from_time, to_time); returns how many there were."""
    rows = unit.execute(select(CHUNKS.c.number, CHUNKS.c.observations).where(CHUNKS.c.series == series))
    gone = 0
    for row in rows:
        before = tuple(_OBSERVATION.iter_unpack(row.observations))
        kept = tuple(one for one in before if not from_time <= one[0] < to_time)
        gone += len(before) - len(kept)
        if not kept:
            unit.execute(delete(CHUNKS).where(CHUNKS.c.number == row.number))
        elif len(kept) < len(before):
            changed = {"observations": _packed(Chunk(series, kept)), "last_time": kept[-1][0]}
            unit.execute(update(CHUNKS).where(CHUNKS.c.number == row.number).values(**changed))
    return gone


def prune(unit: Unit, oldest: int) -> None:
    """Forgets chunks that ended before `oldest`, at most 10,000 a call."""
    some = select(CHUNKS.c.number).where(CHUNKS.c.last_time < oldest).limit(_PRUNE_MAX)
    unit.execute(delete(CHUNKS).where(CHUNKS.c.number.in_(some)))


def _packed(chunk: Chunk) -> bytes:
    return b"".join(_OBSERVATION.pack(*one) for one in chunk.observations)
