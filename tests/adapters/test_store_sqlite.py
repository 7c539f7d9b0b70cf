"""The embedded store passes the suite; and what is its own: newer databases, a full disk, a full queue."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import insert

from citykit.bus.port import Record
from citykit.errors import EnvironmentFault, FailedPrecondition, ResourceExhausted, Unavailable
from citykit.settings import StoreSettings
from citykit.store.port import Unit
from citykit.store.sqlite import SqliteStore, open_sqlite
from citykit.testing.store_suite import METADATA, MIGRATIONS, THINGS, Reopen, StoreSuite


def opened(path: Path, **settings: int) -> SqliteStore:
    return open_sqlite(path, METADATA, MIGRATIONS, StoreSettings(**settings))


def _add(name: str) -> Callable[[Unit], object]:
    return lambda work: work.execute(insert(THINGS).values(name=name, amount=1))


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        stores: list[SqliteStore] = []

        async def again() -> SqliteStore:
            for store in stores:
                await store.close()
            stores[:] = [opened(tmp_path / "suite.db", outbox_max=100)]
            return stores[0]

        yield again
        for store in stores:
            await store.close()


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path / "x.db")
    await store.close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE schema_version SET version_num = 'things_0999'")
    connection.close()
    with pytest.raises(FailedPrecondition, match="newer version"):
        opened(tmp_path / "x.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(EnvironmentFault, match="cannot be opened"):
        opened(tmp_path / "x.db")


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    store = opened(tmp_path / "x.db")
    await store.write(lambda work: work.execute(insert(THINGS).values(name="kept", amount=1)))
    await store.write(lambda work: work.connection.exec_driver_sql("PRAGMA max_page_count=40"))
    with pytest.raises(Unavailable, match="disk"):
        await store.write(
            lambda work: work.insert_many(THINGS, ("name", "amount"), [("x" * 300 + str(n), n) for n in range(2000)])
        )
    await store.write(lambda work: work.connection.exec_driver_sql("PRAGMA max_page_count=100000"))
    await store.write(lambda work: work.execute(insert(THINGS).values(name="after", amount=2)))
    names = await store.read(lambda c: [row.name for row in c.execute(THINGS.select())])
    await store.close()
    assert names == ["kept", "after"]


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    store = opened(tmp_path / "x.db", queue_max=5)
    writes = [store.write(_add(str(n))) for n in range(200)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    refused = [result for result in results if isinstance(result, ResourceExhausted)]
    kept = await store.read(lambda c: len(c.execute(THINGS.select()).all()))
    await store.close()
    assert kept + len(refused) == 200
    assert refused


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = opened(tmp_path / "x.db")
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.write(lambda work: None)


async def test_request_ids_and_events_are_forgotten_after_their_days(tmp_path: Path) -> None:
    now = 1_000_000.0
    store = open_sqlite(tmp_path / "x.db", METADATA, MIGRATIONS, StoreSettings(request_days=1), lambda: now)
    record = Record("topic", 0, 7, "key", b"", {})
    await store.write(lambda work: work.answer("r1", "Do", b"f", b"answer"))
    assert await store.write(lambda work: work.first_time(record, "g"))
    now += 86_000
    assert await store.prune() == 0
    now += 1_000
    assert await store.prune() == 2
    assert await store.write(lambda work: work.answered("r1", "Do", b"f")) is None
    await store.close()
