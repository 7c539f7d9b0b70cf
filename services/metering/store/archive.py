"""Old months of readings in Parquet files, read through DuckDB; and one source of readings over both. Called by `store` and `app.archiving`.

Everything before the horizon is in the archive, everything from it on is in the table. The files are named by rows of the database, so
what a snapshot sees and the files it reads belong together; a file and a partition stay some time after nothing names them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from hashlib import file_digest
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    FromClause,
    String,
    bindparam,
    column,
    delete,
    func,
    insert,
    select,
    union_all,
)

from citykit.errors import Damaged
from citykit.store.driver import rows
from citykit.store.port import Unit
from services.metering.store.months import Month, is_partitioned
from services.metering.store.tables import ARCHIVE_ERASURES, ARCHIVED_MONTHS, READINGS

MONTH_ARCHIVED = "month-archived"
"""Why a reading that comes after its month went to the archive is set aside."""
_HORIZON = "horizon of readings"
COLUMNS = ("meter_point", "slot", "energy_wh", "device", "sequence", "held")
_TYPES = ("VARCHAR", "BIGINT", "BIGINT", "VARCHAR", "BIGINT", "VARCHAR")
_CSV = ", ".join(f"'{name}': '{kind}'" for name, kind in zip(COLUMNS, _TYPES, strict=True))


@dataclass(frozen=True, slots=True)
class Archived:
    """A month in the archive. `energy_wh` is the sum over all its `rows`; `archived_at` is machine time."""

    month: str
    from_time: int
    to_time: int
    rows: int
    energy_wh: int
    file: str
    sha256: str
    archived_at: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a month's partition holds: `mark` changes with any row."""

    rows: int
    energy_wh: int
    mark: int


def archived(connection: Connection) -> list[Archived]:
    """The months in the archive, the oldest first."""
    found = connection.execute(select(ARCHIVED_MONTHS).order_by(ARCHIVED_MONTHS.c.from_time))
    return [Archived(*row) for row in found]


def horizon(connection: Connection) -> int:
    """Before this time readings are in the archive; 0 where nothing is."""
    if not is_partitioned(connection):
        return 0
    return int(rows(connection, "SELECT COALESCE(MAX(to_time), 0) FROM archived_months")[0][0])


def damage(connection: Connection) -> list[str]:
    """What is wrong with the files, each with what to do. Reads every one."""
    if not is_partitioned(connection):
        return []
    return [
        f"the archive of {item.month} is not as it was written: put {item.file} back from a backup"
        for item in archived(connection)
        if not Path(item.file).is_file() or _digest(Path(item.file)) != item.sha256
    ]


def writers_horizon(connection: Connection) -> int:
    """The same for who writes: the one writing connection knows when it changes."""
    if _HORIZON not in connection.info:
        connection.info[_HORIZON] = horizon(connection)
    found: int = connection.info[_HORIZON]
    return found


def source(connection: Connection, meter_point: str, from_time: int, to_time: int) -> FromClause:
    """The readings of a meter point in [from_time, to_time): the table itself, or a union with what the archive has of them."""
    edge = horizon(connection)
    if from_time >= edge:
        return READINGS
    old = _old_rows(connection, meter_point, from_time, min(to_time, edge))
    live = select(*(READINGS.c[name] for name in COLUMNS)).where(
        READINGS.c.meter_point == meter_point, READINGS.c.slot >= edge, READINGS.c.slot < to_time
    )
    return union_all(live, select(_given(old))).subquery("every_reading")


def _given(old: Sequence[tuple[Any, ...]]) -> FromClause:
    kinds = [String if kind == "VARCHAR" else BigInteger for kind in _TYPES]
    values = list(zip(*old, strict=True)) or [()] * len(COLUMNS)
    arrays = [bindparam(None, list(some), type_=ARRAY(kind)) for some, kind in zip(values, kinds, strict=True)]
    names = [column(name, kind()) for name, kind in zip(COLUMNS, kinds, strict=True)]
    return func.unnest(*arrays).table_valued(*names, name="archived").render_derived()


def _old_rows(connection: Connection, meter_point: str, from_time: int, to_time: int) -> list[tuple[Any, ...]]:
    gone = _erased(connection, meter_point)
    keep = "".join(" AND NOT slot BETWEEN ? AND ?" for _ in gone)
    spans = [edge for start, end in gone for edge in (start, end - 1)]
    query = f"SELECT {', '.join(COLUMNS)} FROM {{files}} WHERE meter_point = ? AND slot >= ? AND slot < ?{keep}"  # noqa: S608
    return ask(connection, from_time, to_time, query, (meter_point, from_time, to_time, *spans))


def _erased(connection: Connection, meter_point: str) -> list[tuple[int, int]]:
    table = ARCHIVE_ERASURES.c
    query = select(table.from_time, table.to_time).where(table.meter_point == meter_point)
    return [(row.from_time, row.to_time) for row in connection.execute(query)]


def load(connection: Connection, from_time: int, to_time: int) -> dict[int, tuple[int, int]]:
    """slot -> (Wh, meters) of what counts in the archive in [from_time, to_time)."""
    gone = connection.execute(select(ARCHIVE_ERASURES)).all()
    keep = "".join(" AND NOT (meter_point = ? AND slot BETWEEN ? AND ?)" for _ in gone)
    spans = [value for row in gone for value in (row.meter_point, row.from_time, row.to_time - 1)]
    query = (
        f"SELECT slot, sum(energy_wh)::BIGINT, count(*) FROM {{files}} WHERE held = '' AND slot >= ? AND slot < ?{keep}"  # noqa: S608
        " GROUP BY slot"
    )
    found = ask(connection, from_time, to_time, query, (from_time, to_time, *spans))
    return {slot: (wh, meters) for slot, wh, meters in found}


def ask(
    connection: Connection, from_time: int, to_time: int, query: str, values: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Asks the files of the months in [from_time, to_time).

    Raises:
        Damaged: a file is not there or cannot be read.
    """
    files = [item.file for item in archived(connection) if item.from_time < to_time and item.to_time > from_time]
    if not files:
        return []
    return _duck(query.format(files=f"read_parquet({files!r})"), values)


def _duck(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    try:
        with closing(duckdb.connect()) as duck:
            return duck.execute(statement, values).fetchall()
    except duckdb.Error as error:
        raise Damaged(
            f"the archive of readings cannot be read ({type(error).__name__}); put the folder back from a backup",
            reason="archive-damaged",
        ) from error


def content(connection: Connection, month: Month) -> Content:
    """Of a month's partition."""
    sums = "count(*), COALESCE(sum(energy_wh), 0), COALESCE(sum(hashtextextended(r::text, 0)), 0)"
    return Content(*rows(connection, f"SELECT {sums} FROM {month.table} r")[0])  # noqa: S608 - a name of ours


def write_month(connection: Connection, month: Month, folder: Path, at: int) -> tuple[Archived, Content]:
    """Writes a month's rows to a file, synced and verified. Nothing names it yet.

    Raises:
        Damaged: the file does not hold what the partition holds.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = content(connection, month)
    text = folder / f"{month.name}.csv.part"
    driver: Any = connection.connection.driver_connection
    names = ", ".join(COLUMNS)
    query = f"COPY (SELECT {names} FROM {month.table} ORDER BY meter_point, slot) TO STDOUT (FORMAT csv)"  # noqa: S608 - as above
    with text.open("wb") as file, driver.cursor() as cursor, cursor.copy(query) as copy:
        for data in copy:
            file.write(data)
    rows_of = f"read_csv('{text}', header = false, columns = {{{_CSV}}}, allow_quoted_nulls = false, parallel = false)"
    try:
        return _written(month, folder, f"SELECT {names} FROM {rows_of}", there, at), there  # noqa: S608
    finally:
        text.unlink()


def _written(month: Month, folder: Path, rows_of: str, there: Content | None, at: int) -> Archived:
    target = folder / f"readings-{month.name}-{at}.parquet"
    part = target.with_suffix(".part")
    _duck(f"COPY ({rows_of}) TO '{part}' (FORMAT parquet, COMPRESSION zstd)")
    count, energy = _duck(f"SELECT count(*), COALESCE(sum(energy_wh), 0)::BIGINT FROM read_parquet('{part}')")[0]  # noqa: S608
    if there is not None and (count, energy) != (there.rows, there.energy_wh):
        raise Damaged(f"the archive of {month.name} does not hold what the table holds; it was not kept")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    digest = _digest(part)
    part.replace(target)
    return Archived(month.name, month.start, month.end, count, energy, str(target.resolve()), digest, at)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def without(item: Archived, month: Month, folder: Path, spans: Sequence[tuple[str, int, int]], at: int) -> Archived:
    """Writes a month's file again without what was erased."""
    conditions = " AND ".join(["NOT (meter_point = {} AND slot BETWEEN {} AND {})"] * len(spans))
    values = [part for name, start, end in spans for part in ("'" + name.replace("'", "''") + "'", start, end - 1)]
    where = conditions.format(*values)
    query = f"SELECT {', '.join(COLUMNS)} FROM read_parquet('{item.file}') WHERE {where} ORDER BY meter_point, slot"  # noqa: S608
    return _written(month, folder, query, None, at)


def keep(unit: Unit, item: Archived) -> None:
    """From this commit on the month is read from the archive."""
    unit.connection.info.pop(_HORIZON, None)
    unit.execute(delete(ARCHIVED_MONTHS).where(ARCHIVED_MONTHS.c.month == item.month))
    names = [field.name for field in fields(Archived)]
    unit.execute(insert(ARCHIVED_MONTHS).values(dict(zip(names, astuple(item), strict=True))))


def erase_later(unit: Unit, meter_point: str, from_time: int, to_time: int) -> None:
    """What the archive has of the span is not read from this commit on; the job takes it out of the files."""
    if from_time < horizon(unit.connection):
        row = {"meter_point": meter_point, "from_time": from_time, "to_time": to_time}
        unit.execute(delete(ARCHIVE_ERASURES).filter_by(**row))
        unit.execute(insert(ARCHIVE_ERASURES).values(row))


def erasures(connection: Connection) -> list[tuple[str, int, int]]:
    """(meter point, from, to) that the files may still hold."""
    return [(row.meter_point, row.from_time, row.to_time) for row in connection.execute(select(ARCHIVE_ERASURES))]


def erased(unit: Unit, spans: Sequence[tuple[str, int, int]]) -> None:
    """The files no longer hold these."""
    for meter_point, from_time, to_time in spans:
        unit.execute(delete(ARCHIVE_ERASURES).filter_by(meter_point=meter_point, from_time=from_time, to_time=to_time))
