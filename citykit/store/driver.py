"""Statements that go to the driver itself, past SQLAlchemy, the same text on SQLite and PostgreSQL. For stores' hot paths.

What every mutation of every service does must cost microseconds; SQLAlchemy Core costs tens of them a statement. Statements mark
parameters with `?` and hold no other `?`; `ON CONFLICT`, `RETURNING` and plain SQL mean the same in both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table

_COPY_FROM = 8
"""Rows from which COPY costs PostgreSQL less than a statement for each."""


def rows(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """Runs a statement and returns its rows as tuples."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return driver.execute(statement, parameters).fetchall()
    found: list[Any] = driver.execute(_marked(statement), parameters).fetchall()
    return found


def change(connection: Connection, statement: str, parameters: Sequence[Any] = ()) -> int:
    """Runs a statement without rows; returns how many rows it changed."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return driver.execute(statement, parameters).rowcount
    changed: int = driver.execute(_marked(statement), parameters).rowcount
    return changed


def change_many(connection: Connection, statement: str, values: Sequence[Sequence[Any]]) -> None:
    """Runs a statement once for each row of parameters."""
    if not values:
        return
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.executemany(statement, values)
    elif len(values) == 1:
        driver.execute(_marked(statement), values[0])
    else:
        with driver.cursor() as cursor:
            cursor.executemany(_marked(statement), values)


def insert_many(
    connection: Connection, table: Table, columns: Sequence[str], values: Sequence[tuple[Any, ...]]
) -> None:
    """The driver's bulk path: `executemany` of SQLite; COPY of PostgreSQL, or one statement for a few rows."""
    if not values:
        return
    names = tuple(columns)
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.executemany(_insert(table.name, names), values)
    elif len(values) < _COPY_FROM:
        driver.execute(_marked(_insert(table.name, names, len(values))), [item for row in values for item in row])
    else:
        with driver.cursor() as cursor, cursor.copy(_copy(table.name, names)) as copy:
            for row in values:
                copy.write_row(row)


def upsert(
    connection: Connection,
    table: Table,
    keys: Sequence[str],
    row: Mapping[str, Any],
    first: Mapping[str, Any] | None = None,
) -> None:
    """Inserts the row; where its keys are there, the other columns of that row are set.

    Args:
        first: columns that are given a value when the row is new, and kept when it is not.
    """
    new = {**row, **(first or {})}
    kept = (*keys, *(first or ()))
    change(connection, _upsert(table.name, tuple(new), tuple(keys), kept), tuple(new.values()))


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Inserts the row unless one that excludes it is there; says whether it did."""
    return change(connection, _insert(table.name, tuple(row)) + " ON CONFLICT DO NOTHING", tuple(row.values())) == 1


def one_of(column: str, count: int) -> str:
    """`column IN (?, ?, …)`."""
    return f"{column} IN ({_marks(count)})"


@lru_cache(maxsize=4_096)
def _marked(statement: str) -> str:
    """The statement as psycopg reads it."""
    return statement.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=1_024)
def _marks(count: int) -> str:
    return ",".join("?" * count)


def _names(columns: Iterable[str]) -> str:
    return ",".join(f'"{column}"' for column in columns)


@lru_cache(maxsize=512)
def _insert(table: str, columns: tuple[str, ...], count: int = 1) -> str:
    values = ", ".join([f"({_marks(len(columns))})"] * count)
    return f'INSERT INTO "{table}" ({_names(columns)}) VALUES {values}'  # noqa: S608 - names come from table definitions


@lru_cache(maxsize=512)
def _upsert(table: str, columns: tuple[str, ...], keys: tuple[str, ...], kept: tuple[str, ...]) -> str:
    rest = [column for column in columns if column not in kept]
    changes = ",".join(f'"{column}" = excluded."{column}"' for column in rest)
    action = f"DO UPDATE SET {changes}" if rest else "DO NOTHING"
    return f"{_insert(table, columns)} ON CONFLICT ({_names(keys)}) {action}"


@lru_cache(maxsize=512)
def _copy(table: str, columns: tuple[str, ...]) -> str:
    return f'COPY "{table}" ({_names(columns)}) FROM STDIN'
