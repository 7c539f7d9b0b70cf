"""Servers of another kind: one that takes TLS only, and one whose disk is full."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from infra.native import Native, Program, cache_folder, free_port
from infra.postgres import Admin, Tls, install, programs

ROLES = ("suite",)
_DISK_MB = 24


def opened(place: PostgresSettings) -> SqlStore:
    return open_postgres("suite", METADATA, MIGRATIONS, StoreSettings(), place)


def add(name: str) -> Callable[[Unit], object]:
    return lambda work: work.execute(insert(THINGS).values(name=name, amount=1))


@contextmanager
def running(program: Program, folder: Path) -> Iterator[Native]:
    native = Native(program, folder)
    native.start()
    try:
        native.wait()
        yield native
    finally:
        native.stop()


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


def small_disk(program: Program, folder: Path) -> Program:
    """The same program with a little file system of its own at `folder`, which vanishes with it."""
    at = list(program.argv).index("--")
    space: Sequence[str] = (*program.argv[:at], "--mount", "--keep-caps", "--")
    command = f'mount -t tmpfs -o size={_DISK_MB}m,mode=700 tmpfs "{folder}" && mkdir "{folder}/space" && exec "$@"'
    return replace(program, argv=(*space, "sh", "-c", command, "sh", *program.argv[at + 1 :]))


def fill(path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(1 << 16))


async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    """The tables lie in a tablespace on a file system of 24 MB; something else fills it, and is then taken away."""
    install(cache_folder())
    disk, state, port = tmp_path / "disk", tmp_path / "server", free_port()
    disk.mkdir()
    [program] = programs(cache_folder(), state, port, services=ROLES)
    if "--" not in program.argv:
        unshare = shutil.which("unshare")
        assert unshare, "this test needs unshare"
        program = replace(program, argv=(unshare, "--user", "--map-current-user", "--", *program.argv))
    place = PostgresSettings(port=port, password_file=str(state / "passwords" / "city_{service}"), start_s=5.0)
    with running(small_disk(program, disk), state) as native:
        with Admin(port, state / "passwords").connect() as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}/space'")
            admin.execute("GRANT CREATE ON TABLESPACE small TO city_suite")
            admin.execute("ALTER ROLE city_suite SET default_tablespace = small")
        store = opened(place)
        await store.write(add("kept"))
        seen = Path(f"/proc/{native.pid}/root{disk}/ballast")
        fill(seen)
        wide = [("x" * 300 + str(number), number) for number in range(20_000)]
        with pytest.raises(Unavailable, match="no disk space"):
            await store.write(lambda work: work.insert_many(THINGS, ("name", "amount"), wide))
        assert await store.read(lambda c: [row.name for row in c.execute(THINGS.select())]) == ["kept"]
        seen.unlink()

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
