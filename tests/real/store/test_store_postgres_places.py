"""Servers of another kind: one that takes TLS only, and one whose disk is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import insert

from citykit.errors import EnvironmentFault, Unavailable
from citykit.settings import PostgresSettings, StoreSettings
from citykit.store.port import Unit
from citykit.store.postgres import open_postgres
from citykit.store.sql_store import SqlStore
from citykit.testing.polling import until
from citykit.testing.store_suite import METADATA, MIGRATIONS, THINGS
from infra.certificates import ensure_certificates
from infra.native import cache_folder, free_port
from infra.postgres import Admin, Tls, install, programs
from tests.real.store.small_disk import on_a_small_disk, running

ROLES = ("suite",)


def opened(place: PostgresSettings) -> SqlStore:
    return open_postgres("suite", METADATA, MIGRATIONS, StoreSettings(), place)


def add(name: str) -> Callable[[Unit], object]:
    return lambda work: work.execute(insert(THINGS).values(name=name, amount=1))


async def test_tls_only_and_the_issuer_is_checked(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "ours", ["postgres"])
    ensure_certificates(tmp_path / "theirs", ["postgres"])
    own = tmp_path / "ours" / "postgres"
    port = free_port()
    tls = Tls(own / "tls.crt", own / "tls.key", own / "ca.crt")
    install(cache_folder())
    [program] = programs(cache_folder(), tmp_path / "server", port, services=ROLES, tls=tls)
    place = PostgresSettings(
        port=port,
        password_file=str(tmp_path / "server" / "passwords" / "city_{service}"),
        tls_root=str(own / "ca.crt"),
        start_s=5.0,
    )
    with running(program, tmp_path / "server"):
        store = opened(place)
        await store.write(add("a"))
        kept = await store.read(
            lambda c: c.exec_driver_sql("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").one()
        )
        await store.close()
        assert tuple(kept) == (True, "TLSv1.3")
        with pytest.raises(EnvironmentFault, match="takes TLS only: set CITY_POSTGRES_TLS_ROOT"):
            opened(replace(place, tls_root=""))
        with pytest.raises(EnvironmentFault, match="certificate does not hold: check CITY_POSTGRES_TLS_ROOT"):
            opened(replace(place, tls_root=str(tmp_path / "theirs" / "postgres" / "ca.crt")))
        with pytest.raises(EnvironmentFault, match="names no readable certificate"):
            opened(replace(place, tls_root=str(tmp_path / "none.crt")))
        with Admin(port, tmp_path / "server" / "passwords", root=own / "ca.crt").connect() as admin:
            assert admin.execute("SELECT count(*) FROM suite.things").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            Admin(port, tmp_path / "server" / "passwords").connect()


async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    """The tables lie on a file system of 24 MB; something else fills it, and is then taken away."""
    with on_a_small_disk(tmp_path, ROLES, megabytes=24) as disk:
        place = PostgresSettings(
            port=disk.admin.port, password_file=str(disk.admin.passwords / "city_{service}"), start_s=5.0
        )
        store = opened(place)
        await store.write(add("kept"))
        disk.fill()
        wide = [("x" * 300 + str(number), number) for number in range(20_000)]
        with pytest.raises(Unavailable, match="no disk space"):
            await store.write(lambda work: work.insert_many(THINGS, ("name", "amount"), wide))
        assert await store.read(lambda c: [row.name for row in c.execute(THINGS.select())]) == ["kept"]
        disk.ballast.unlink()

        async def taken() -> bool:
            try:
                await store.write(lambda work: work.insert_many(THINGS, ("name", "amount"), wide))
            except Unavailable:
                return False
            return True

        await until(taken, "it writes again")
        count = await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM things").scalar_one())
        await store.close()
        assert count == 20_001
