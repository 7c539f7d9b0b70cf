"""What is PostgreSQL's own: a server that is killed or away, a second writer, wrong settings at the start, limits of time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, text

from citykit.bus.port import Message
from citykit.errors import EnvironmentFault, FailedPrecondition, Unavailable
from citykit.settings import PostgresSettings, StoreSettings
from citykit.store.port import Unit
from citykit.store.postgres import open_postgres
from citykit.store.postgres.connections import Place
from citykit.store.postgres.database import PostgresDatabase
from citykit.store.postgres.groups import PostgresGroups, TakenOver
from citykit.store.sql_store import SqlStore
from citykit.testing.polling import until
from citykit.testing.store_suite import METADATA, MIGRATIONS, THINGS
from tests.real.store.serving import Server


def opened(place: PostgresSettings, **settings: int) -> SqlStore:
    return open_postgres("suite", METADATA, MIGRATIONS, StoreSettings(**settings), place)


@asynccontextmanager
async def store_on(place: PostgresSettings, **settings: int) -> AsyncIterator[SqlStore]:
    store = opened(place, **settings)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def administrator(server: Server, place: PostgresSettings) -> Iterator[psycopg.Connection[Any]]:
    with replace(server.admin, database=place.database).connect() as connection:
        yield connection


def add(name: str) -> Callable[[Unit], object]:
    return lambda work: work.execute(insert(THINGS).values(name=name, amount=1))


async def names(store: SqlStore) -> list[str]:
    return sorted(await store.read(lambda c: [row.name for row in c.execute(THINGS.select())]))


def message(number: int) -> Message:
    return Message("topic", "key", number.to_bytes(4, "big"), {})


async def kept_after(store: SqlStore, name: str) -> None:
    """Writes once the store takes it; what was refused before was not kept."""

    async def taken() -> bool:
        try:
            await store.write(add(name))
        except Unavailable:
            return False
        return True

    await until(taken, "the store writes again")


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
async def test_a_server_that_was_away_is_used_again(server: Server, kill: bool) -> None:
    async with store_on(server.database(["suite"])) as store:
        await store.write(add("before"))
        assert await names(store) == ["before"]
        server.native.kill() if kill else server.native.stop()
        with pytest.raises(Unavailable, match="nothing was changed"):
            await store.write(add("lost"))
        with pytest.raises(Unavailable):
            await names(store)
        with pytest.raises(Unavailable):
            await store.outbox(10)
        server.native.start()
        server.native.wait()
        await kept_after(store, "after")
        assert await names(store) == ["after", "before"]
        assert await store.outbox(10) == []


async def test_writes_under_kills_are_kept_exactly_as_they_were_answered(server: Server) -> None:
    """Whoever was told "kept" is in the table, whoever was told "not kept" is not, through five kills at load."""
    async with store_on(server.database(["suite"])) as store:
        answers: dict[str, bool] = {}
        ends = asyncio.Event()

        async def client(number: int) -> None:
            count = 0
            while not ends.is_set():
                name = f"{number}-{count}"
                count += 1
                try:
                    await store.write(add(name))
                    answers[name] = True
                except Unavailable as error:
                    assert error.reason == "store-unavailable"
                    answers[name] = False
                    await asyncio.sleep(0.02)

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for _ in range(5):
            before = sum(answers.values())
            await until(lambda before=before: sum(answers.values()) > before + 200, "some were kept")  # type: ignore[misc]
            await asyncio.to_thread(server.restart, kill=True)
        ends.set()
        await asyncio.gather(*clients)
        assert await names(store) == sorted(name for name, kept in answers.items() if kept)
        assert not all(answers.values())


async def test_a_commit_whose_answer_was_lost_is_settled(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection dies after the server committed and before it says so: the unit is told it was kept, once it is known."""
    place = server.database(["suite"])
    async with store_on(place) as store:
        await store.write(add("first"))
        committer = groups_of(store)
        connection = committer._connection
        assert connection is not None
        dying = [True]

        def commit() -> None:
            type(connection).commit(connection)
            if dying.pop():
                driver: Any = connection.connection.driver_connection
                driver.close()
                driver.execute("SELECT 1")

        monkeypatch.setattr(connection, "commit", commit)
        await store.write(add("kept"))
        assert await names(store) == ["first", "kept"]
        await store.write(add("more"))
        assert await names(store) == ["first", "kept", "more"]


async def test_a_commit_that_never_arrived_is_settled(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store_on(server.database(["suite"])) as store:
        committer = groups_of(store)
        connection = committer._connection
        assert connection is not None

        def commit() -> None:
            driver: Any = connection.connection.driver_connection
            driver.close()
            driver.execute("SELECT 1")

        monkeypatch.setattr(connection, "commit", commit)
        with pytest.raises(Unavailable, match="nothing was changed"):
            await store.write(add("lost"))
        await store.write(add("kept"))
        assert await names(store) == ["kept"]


def groups_of(store: SqlStore) -> PostgresGroups:
    committer = store._writer._committer
    assert isinstance(committer, PostgresGroups)
    return committer


async def test_a_second_process_is_refused_while_the_first_writes(server: Server) -> None:
    place = server.database(["suite"])
    async with store_on(place) as store:
        with pytest.raises(EnvironmentFault, match="another process writes"):
            opened(replace(place, start_s=0.3))
        await store.write(add("a"))
    async with store_on(place) as store:
        assert await names(store) == ["a"]


async def test_a_second_process_takes_its_turn_when_the_first_ends(server: Server) -> None:
    place = server.database(["suite"])
    first = opened(place)
    waiting = asyncio.create_task(asyncio.to_thread(opened, place))
    await first.write(add("a"))
    await first.close()
    second = await waiting
    await second.write(add("b"))
    assert await names(second) == ["a", "b"]
    await second.close()


async def test_a_process_that_was_taken_over_never_writes_again(server: Server) -> None:
    """The first loses its connection and with it the lock; another takes over in between."""
    place = server.database(["suite"])
    first = opened(place)
    with administrator(server, place) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'city suite write'"
        )
    async with store_on(place) as second:
        await second.write(add("second"))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await first.write(add("first"))
    with pytest.raises(TakenOver, match="another process writes"):
        await until(lambda: over(first), "it notices")
    await first.close()
    async with store_on(place) as third:
        assert await names(third) == ["second"]


async def over(store: SqlStore) -> bool:
    try:
        await store.write(add("again"))
    except TakenOver:
        raise
    except Unavailable:
        return False
    raise AssertionError("it wrote")


def test_a_migration_that_would_hold_others_up_gives_up(server: Server) -> None:
    place = server.database(["suite"], migration_lock_s=0.3)
    with administrator(server, place) as admin, admin.transaction():
        admin.execute("CREATE TABLE suite.kit_version (version_num varchar(32) PRIMARY KEY)")
        admin.execute("ALTER TABLE suite.kit_version OWNER TO city_suite")
        with pytest.raises(EnvironmentFault, match=r"could not be migrated .*CITY_POSTGRES_MIGRATION_LOCK_S"):
            opened(place)
    with administrator(server, place) as admin:
        admin.execute("DROP TABLE suite.kit_version")


async def test_a_newer_database_is_refused(server: Server) -> None:
    place = server.database(["suite"])
    await opened(place).close()
    with administrator(server, place) as admin:
        admin.execute("UPDATE suite.schema_version SET version_num = 'things_0999'")
    with pytest.raises(FailedPrecondition, match="newer version"):
        opened(place)


def test_wrong_credentials_stop_the_start(server: Server, tmp_path: Path) -> None:
    place = server.database(["suite"])
    wrong = tmp_path / "wrong"
    wrong.write_text("not-it")
    wrong.chmod(0o600)
    with pytest.raises(EnvironmentFault, match="password is wrong: set CITY_POSTGRES_PASSWORD_FILE"):
        opened(replace(place, password_file=str(wrong)))
    wrong.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="chmod 600"):
        opened(replace(place, password_file=str(wrong)))
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        opened(replace(place, password_file=str(tmp_path / "none")))
    with pytest.raises(EnvironmentFault, match="asks for a password"):
        opened(replace(place, password_file=""))


def test_a_place_that_is_not_there_stops_the_start(server: Server) -> None:
    place = server.database(["suite"])
    with pytest.raises(EnvironmentFault, match=r"was not reached within .*make up PARTS=postgres"):
        opened(replace(place, port=1, start_s=0.2))
    with pytest.raises(EnvironmentFault, match="make the database"):
        opened(replace(place, database="none"))
    with pytest.raises(EnvironmentFault, match="does not speak TLS"):
        opened(replace(place, tls_root="/etc/ssl/certs/ca-certificates.crt"))


def test_a_role_reaches_its_own_schema_only(server: Server) -> None:
    place = server.database(["suite", "other"])
    secret = (server.admin.passwords / "city_other").read_text()
    with administrator(server, place) as admin:
        admin.execute("CREATE TABLE suite.own (n int)")
    with psycopg.connect(
        host="127.0.0.1", port=place.port, dbname=place.database, user="city_other", password=secret, autocommit=True
    ) as other:
        for statement in (
            "SELECT * FROM suite.own",
            "CREATE TABLE suite.more (n int)",
            "CREATE TABLE public.more (n int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(statement)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=place.port, dbname=place.database, user="city_suite", password=secret)


async def test_a_statement_that_takes_too_long_is_ended_alone(server: Server) -> None:
    place = server.database(["suite"], statement_s=0.3)
    async with store_on(place) as store:
        slow = store.write(lambda work: work.execute(text("SELECT pg_sleep(5)")))
        ended, kept, _ = await asyncio.gather(
            slow, store.write(add("a")), store.write(add("b")), return_exceptions=True
        )
        assert isinstance(ended, Unavailable)
        assert "CITY_POSTGRES_STATEMENT_S" in str(ended)
        assert kept is None or not isinstance(kept, BaseException)
        assert await names(store) == ["a", "b"]
        with pytest.raises(Unavailable, match="CITY_POSTGRES_STATEMENT_S"):
            await store.read(lambda c: c.execute(text("SELECT pg_sleep(5)")))


async def test_a_lock_that_is_not_had_ends_the_unit_alone(server: Server) -> None:
    place = server.database(["suite"], lock_s=0.3)
    async with store_on(place) as store:
        with administrator(server, place) as admin, admin.transaction():
            admin.execute("LOCK TABLE suite.things")
            with pytest.raises(Unavailable, match="CITY_POSTGRES_LOCK_S"):
                await store.write(add("a"))
        await store.write(add("b"))
        assert await names(store) == ["b"]


async def test_reads_use_no_more_connections_than_the_settings_say(server: Server) -> None:
    place = server.database(["suite"])
    async with store_on(place, readers=3) as store:
        gate = threading.Barrier(3, timeout=10)

        def count(connection: Any) -> int:
            gate.wait()
            query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'city suite read'")
            return int(connection.execute(query).scalar_one())

        assert max(await asyncio.gather(*(store.read(count) for _ in range(30)))) == 3


async def test_a_reader_cannot_write(server: Server) -> None:
    async with store_on(server.database(["suite"])) as store:
        with pytest.raises(Exception, match="read-only"):
            await store.read(lambda c: c.execute(insert(THINGS).values(name="x", amount=1)))


async def test_a_relay_takes_nothing_while_another_has_something_older(server: Server) -> None:
    place = server.database(["suite"])
    async with store_on(place) as store:
        await store.write(lambda work: work.publish_many([message(n) for n in range(10)]))
        database = PostgresDatabase(Place("suite", place), 1)
        other = SqlStore(database, store._writer, StoreSettings(), lambda: 0.0, 10)
        first = await store.outbox(4)
        assert [number for number, _ in first] == [1, 2, 3, 4]
        assert await other.outbox(4) == []
        await store.published([number for number, _ in first])
        assert [number for number, _ in await other.outbox(4)] == [5, 6, 7, 8]
        assert await store.outbox(4) == []
        await other.published([5, 6, 7, 8])
        assert [number for number, _ in await store.outbox(4)] == [9, 10]
        database.close()


async def test_a_relay_whose_connection_broke_removes_what_it_published(server: Server) -> None:
    place = server.database(["suite"])
    async with store_on(place) as store:
        await store.write(lambda work: work.publish_many([message(n) for n in range(3)]))
        batch = await store.outbox(10)
        with administrator(server, place) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'city suite relay'"
            )
        with pytest.raises(Unavailable):
            await store.published([number for number, _ in batch])
        assert [number for number, _ in await store.outbox(10)] == [number for number, _ in batch]
        await store.published([number for number, _ in batch])
        assert await store.outbox_size() == 0
