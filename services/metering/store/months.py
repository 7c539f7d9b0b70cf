"""Monthly partitions of the readings, where PostgreSQL keeps them. A SQLite file has none. Called by `store.packages` and `app.archiving`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from citykit.store.driver import change, rows

_NAME = re.compile(r"readings_(\d{4})_(\d{2})")
_KNOWN = "months of readings"
_PARTITIONS = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'readings'::regclass ORDER BY c.relname"
)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC."""

    year: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    @property
    def table(self) -> str:
        return f"readings_{self.year:04d}_{self.number:02d}"

    @property
    def start(self) -> int:
        """Unix seconds of its first moment."""
        return int(datetime(self.year, self.number, 1, tzinfo=UTC).timestamp())

    @property
    def end(self) -> int:
        """Unix seconds of the next month's first moment."""
        return self.later(1).start

    def later(self, months: int) -> Month:
        """The month so many months later; earlier where negative."""
        count = 12 * self.year + self.number - 1 + months
        return Month(count // 12, count % 12 + 1)


def month_of(time: int) -> Month:
    day = datetime.fromtimestamp(time, UTC)
    return Month(day.year, day.month)


def is_partitioned(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def make_room(connection: Connection, times: Collection[int]) -> None:
    """Makes the partitions these slots fall into, where they are missing. Costs a look into a set for known ones.

    The connection remembers months it found there, not those it made: they may yet be rolled back.
    """
    if not is_partitioned(connection):
        return
    known: set[Month] = connection.info.setdefault(_KNOWN, set())
    for month in _between(times) - known:
        if rows(connection, "SELECT to_regclass(?)", (month.table,))[0][0] is not None:
            known.add(month)
        else:
            _make(connection, month)


def _between(times: Collection[int]) -> set[Month]:
    if not times:
        return set()
    first, last = month_of(min(times)), month_of(max(times))
    if first == last:
        return {first}
    return {month_of(time) for time in times}


def _make(connection: Connection, month: Month) -> None:
    """Attached, not made in place: so nobody who reads waits."""
    change(connection, f"CREATE TABLE {month.table} (LIKE readings INCLUDING DEFAULTS)")
    change(
        connection,
        f"ALTER TABLE readings ATTACH PARTITION {month.table} FOR VALUES FROM ({month.start}) TO ({month.end})",
    )


def months(connection: Connection) -> list[Month]:
    """Those with a partition, the oldest first."""
    if not is_partitioned(connection):
        return []
    names = [_NAME.fullmatch(name) for (name,) in rows(connection, _PARTITIONS)]
    return sorted(Month(int(name[1]), int(name[2])) for name in names if name)


def drop(connection: Connection, month: Month) -> None:
    """Takes a month's partition away, with its rows."""
    change(connection, f"DROP TABLE {month.table}")
