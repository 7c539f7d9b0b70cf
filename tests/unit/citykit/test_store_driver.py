"""Statements that go past SQLAlchemy: the same text, as SQLite and as PostgreSQL's driver read it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, create_engine

from citykit.store import driver

THINGS = Table(
    "things", MetaData(), Column("name", String, primary_key=True), Column("a", Integer), Column("b", Integer)
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        THINGS.create(connection)
        yield connection
    engine.dispose()


def test_rows_and_changes(connection: Connection) -> None:
    driver.insert_many(connection, THINGS, ("name", "a", "b"), [("x", 1, 2), ("y", 3, 4)])
    driver.insert_many(connection, THINGS, ("name", "a", "b"), [])
    assert driver.change(connection, "UPDATE things SET a = ? WHERE name = ?", (9, "x")) == 1
    driver.change_many(connection, "UPDATE things SET b = ? WHERE name = ?", [(7, "x"), (8, "y")])
    driver.change_many(connection, "UPDATE things SET b = ? WHERE name = ?", [])
    query = f"SELECT name, a, b FROM things WHERE {driver.one_of('name', 2)} ORDER BY name"
    assert driver.rows(connection, query, ("x", "y")) == [("x", 9, 7), ("y", 3, 8)]


def test_an_upsert_sets_the_rest_and_keeps_what_is_for_new_rows_only(connection: Connection) -> None:
    driver.upsert(connection, THINGS, ("name",), {"name": "x", "a": 1}, {"b": 5})
    driver.upsert(connection, THINGS, ("name",), {"name": "x", "a": 2}, {"b": 6})
    assert driver.rows(connection, "SELECT name, a, b FROM things") == [("x", 2, 5)]
    driver.upsert(connection, THINGS, ("name",), {"name": "x"})
    assert driver.rows(connection, "SELECT name, a, b FROM things") == [("x", 2, 5)]


def test_a_new_row_is_inserted_once(connection: Connection) -> None:
    assert driver.insert_new(connection, THINGS, {"name": "x", "a": 1, "b": 1})
    assert not driver.insert_new(connection, THINGS, {"name": "x", "a": 2, "b": 2})
    assert driver.rows(connection, "SELECT a FROM things") == [(1,)]


def test_a_row_that_breaks_a_constraint_is_the_drivers_own_error(connection: Connection) -> None:
    driver.insert_many(connection, THINGS, ("name", "a", "b"), [("x", 1, 2)])
    with pytest.raises(sqlite3.IntegrityError):
        driver.insert_many(connection, THINGS, ("name", "a", "b"), [("x", 1, 2)])


class Recorded:
    """What psycopg is told, in the place of a connection of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.rowcount = 1

    def execute(self, statement: str, parameters: Any = ()) -> Recorded:
        self.told.append((statement, tuple(parameters)))
        return self

    def executemany(self, statement: str, values: Any) -> None:
        self.told.append((statement, list(values)))

    def fetchall(self) -> list[Any]:
        return []

    def cursor(self) -> Any:
        return closing_of(self)

    def copy(self, statement: str) -> Any:
        self.told.append((statement, "copy"))
        return closing_of(self)

    def write_row(self, row: Any) -> None:
        self.told.append(("row", row))

    def close(self) -> None: ...


def closing_of(item: Recorded) -> Any:
    return closing(item)


class Pooled:
    def __init__(self, recorded: Recorded) -> None:
        self.connection = self
        self.driver_connection = recorded


def test_the_same_text_as_the_other_driver_reads_it() -> None:
    recorded = Recorded()
    connection: Any = Pooled(recorded)
    driver.rows(connection, "SELECT a FROM things WHERE name = ? AND a % 2 = ?", ("x", 1))
    driver.change_many(connection, "UPDATE things SET a = ?", [(1,)])
    driver.insert_many(connection, THINGS, ("name", "a"), [("x", 1)])
    driver.insert_many(connection, THINGS, ("name", "a"), [(str(n), n) for n in range(8)])
    driver.upsert(connection, THINGS, ("name",), {"name": "x", "a": 1})
    told = [statement for statement, _ in recorded.told if statement != "row"]
    assert told == [
        "SELECT a FROM things WHERE name = %s AND a %% 2 = %s",
        "UPDATE things SET a = %s",
        'INSERT INTO "things" ("name","a") VALUES (%s,%s)',
        'COPY "things" ("name","a") FROM STDIN',
        'INSERT INTO "things" ("name","a") VALUES (%s,%s) ON CONFLICT ("name") DO UPDATE SET "a" = excluded."a"',
    ]
