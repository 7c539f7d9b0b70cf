"""`city db` on PostgreSQL: check, migrate, base backup, and a restore to a moment before a disaster, with proofs that still hold."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from city.metering.v1 import metering_service_pb2 as pb
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.testing.polling import until
from infra.certificates import ensure_certificates
from infra.native import Native, cache_folder, free_port
from infra.postgres import Admin, Archive, Tls, install, programs, provision
from services.__main__ import main
from services.notary.check import check_logs
from services.testing import SERVER, database_of
from tests.system.test_metering_city import RESIDENT, RealCity, _bearer, billed, real_city, verify

SERVICES = ("identity", "metering", "notary")


@dataclass(frozen=True)
class Cluster:
    admin: Admin
    state: Path

    @property
    def archive(self) -> Path:
        return self.state / "archive"


@contextmanager
def cluster(state: Path, tls: Tls | None = None) -> Iterator[Cluster]:
    """A server of its own on `state`, with an archive."""
    port = free_port()
    install(cache_folder())
    [program] = programs(cache_folder(), state, port, services=(), tls=tls, archive=Archive(state / "archive"))
    native = Native(program, state)
    native.start()
    try:
        native.wait()
        yield Cluster(Admin(port, state / "passwords"), state)
    finally:
        native.stop()


def led_to(there: Cluster, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """The settings of commands and of the tests' cities."""
    monkeypatch.setenv(SERVER, f"{there.admin.port}:{there.admin.passwords}")
    monkeypatch.setenv("CITY_POSTGRES_PORT", str(there.admin.port))
    monkeypatch.setenv("CITY_POSTGRES_DATABASE", database)
    monkeypatch.setenv("CITY_POSTGRES_PASSWORD_FILE", str(there.admin.passwords / "city_{service}"))


@asynccontextmanager
async def with_a_bill(state: Path) -> AsyncIterator[tuple[RealCity, str]]:
    async with real_city(state) as there:
        bill = await billed(there)
        token = resident(there)

        async def provable() -> bool:
            answer = await there.metering.GetBill(pb.GetBillRequest(bill=bill.id), metadata=token)
            return bool(answer.bill.provable)

        await until(provable, "the bill is provable")
        await there.city.settle()
        yield there, bill.id


def resident(there: RealCity) -> Any:
    return _bearer(there.city.token(role="resident", subject=f"{RESIDENT}-0", audience="metering"))


async def bundle_of(there: RealCity, bill: str) -> bytes:
    answer = await there.metering.GetBillBundle(pb.GetBillBundleRequest(bill=bill), metadata=resident(there))
    return bytes(answer.bundle_json)


async def holds(bundle: bytes, trust: Path, folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_bytes(bundle)
    code, output = await verify(path, trust)
    assert code == 0, output


async def test_a_restore_to_a_moment_brings_back_what_was_and_proofs_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, trust = tmp_path / "city", tmp_path / "trust.json"
    database = database_of(state)
    with cluster(tmp_path / "first") as first:
        led_to(first, monkeypatch, database)
        provision(replace(first.admin, database=database), SERVICES)
        assert await city("db", "backup", str(tmp_path / "backup")) == 0
        async with with_a_bill(state) as (there, bill):
            before = await bundle_of(there, bill)
            found = await NotaryServiceStub(there.city.dial("notary")).GetTrust(notary.GetTrustRequest())
            trust.write_text(found.json, encoding="utf-8")
        await holds(before, trust, tmp_path)
        with replace(first.admin, database=database).connect() as admin:
            moment = admin.execute("SELECT clock_timestamp()").fetchone()
            admin.execute("SELECT pg_sleep(0.01)")
            admin.execute("DELETE FROM metering.bills")
            admin.execute("DELETE FROM metering.packages")
            admin.execute("DROP TABLE notary.anchors CASCADE")
    assert moment is not None
    second = tmp_path / "second"
    restoring = ["--data", str(second / "data"), "--archive", str(first.archive), "--until", moment[0].isoformat()]
    assert await city("db", "restore", str(tmp_path / "backup"), *restoring) == 0
    (first.state / "passwords").rename(second / "passwords")
    with cluster(second) as restored:
        led_to(restored, monkeypatch, database)
        async with real_city(state) as there:
            await there.city.settle()
            after = await bundle_of(there, bill)
            assert json.loads(after)["bill"] == json.loads(before)["bill"]
        assert check_logs(state).findings == ()
        await holds(before, trust, tmp_path)
        await holds(after, trust, tmp_path)
        assert await city("db", "check", "--state", str(state), *chosen()) == 0


def chosen() -> list[str]:
    return [part for name in SERVICES for part in ("--service", name)]


async def city(*argv: str) -> int:
    return await asyncio.to_thread(main, argv)


async def test_a_backup_over_tls_checks_the_issuer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_certificates(tmp_path / "ours", ["postgres"])
    ensure_certificates(tmp_path / "theirs", ["postgres"])
    own = tmp_path / "ours" / "postgres"
    with cluster(tmp_path / "server", Tls(own / "tls.crt", own / "tls.key", own / "ca.crt")) as there:
        led_to(there, monkeypatch, "postgres")
        monkeypatch.setenv("CITY_POSTGRES_TLS_ROOT", str(tmp_path / "theirs" / "postgres" / "ca.crt"))
        assert await city("db", "backup", str(tmp_path / "refused")) == 3
        assert "certificate verify failed" in capsys.readouterr().err
        assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").iterdir())
        monkeypatch.setenv("CITY_POSTGRES_TLS_ROOT", str(own / "ca.crt"))
        assert await city("db", "backup", str(tmp_path / "backup")) == 0
    assert await city("db", "restore", str(tmp_path / "backup"), "--data", str(tmp_path / "data")) == 0
    assert (tmp_path / "data" / "PG_VERSION").read_text().strip() == "18"


async def test_check_and_migrate_say_what_is_and_what_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster(tmp_path / "server") as there:
        led_to(there, monkeypatch, "city")
        provision(there.admin, SERVICES)
        assert await city("db", "check", "--json", *chosen()) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["service"], row["version"]) for row in rows] == [(name, "") for name in SERVICES]
        assert all(row["pending"] and row["outbox"] == -1 for row in rows)
        assert await city("db", "migrate", "--dry-run", *chosen()) == 0
        assert "rolled back" in capsys.readouterr().out
        with there.admin.connect() as admin:
            assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'metering'").fetchone() == (0,)
        assert await city("db", "migrate", *chosen()) == 0
        assert await city("db", "migrate", *chosen()) == 0
        assert "up to date" in capsys.readouterr().out
        assert await city("db", "check", *chosen()) == 0
        with there.admin.connect() as admin:
            admin.execute("UPDATE metering.schema_version SET version_num = 'metering_9999'")
            admin.execute("DROP TABLE identity.people CASCADE")
        capsys.readouterr()
        assert await city("db", "check", *chosen()) == 1
        said = capsys.readouterr().out
        assert "metering: WRONG: it is at revision metering_9999" in said and "Start that version" in said
        assert "identity: WRONG: the tables people are missing: restore a backup" in said
        assert await city("db", "migrate", "--service", "metering") == 2
        monkeypatch.setenv("CITY_POSTGRES_PORT", "1")
        assert await city("db", "check", "--service", "notary") == 1


async def test_a_damaged_backup_and_a_place_in_use_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster(tmp_path / "server") as there:
        led_to(there, monkeypatch, "city")
        assert await city("db", "backup", str(tmp_path / "backup")) == 0
        assert await city("db", "backup", str(tmp_path / "backup")) == 2
        assert await city("db", "restore", str(tmp_path / "backup"), "--data", str(there.state / "data")) == 3
    assert "move it away first" in capsys.readouterr().err
    victim = max((tmp_path / "backup" / "base" / "base").rglob("*"), key=lambda path: path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(os.path.getsize(victim) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    assert await city("db", "restore", str(tmp_path / "backup"), "--data", str(tmp_path / "new")) == 3
    assert not (tmp_path / "new").exists()
    assert "is not as it was" in capsys.readouterr().err
