"""Secrets made by provisioning, laid out as a pod mounts them, lead to a ledger and a database that take them: real processes on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault
from citykit.ledger.chaincode.convention import chaincode_name
from citykit.ledger.channel import open_channel_ledger
from citykit.settings import FabricSettings, PostgresSettings
from citykit.store.postgres.connections import Place
from infra.native import Native, Program, cache_folder, free_port, listens
from infra.postgres import Tls, install, programs, roles
from infra.postgres.roles import Admin, until_ready
from infra.provision import provision
from services.__main__ import main
from services.commands.provision import HOLDERS
from services.registry import contracts
from tests.unit.infra.fake_secrets import MemorySecrets, mount, wanted

ORIGIN = "provable.city/trial/log"
ROOT = "ab" * 32


@pytest.fixture(scope="module")
def secrets() -> MemorySecrets:
    store = MemorySecrets()
    provision(store, wanted(), lambda line: None)
    return store


@dataclass
class Ledger:
    """The peer, which its chaincodes serve."""

    peer: Native
    port: int


@pytest.fixture
def ledger(secrets: MemorySecrets, tmp_path: Path) -> Iterator[Ledger]:
    identity = mount(secrets, "ledger-peer", tmp_path / "identity") / "identity.tar"
    state, port = tmp_path / "state", free_port()
    places = {chaincode_name(one): free_port() for one in contracts()}
    chaincodes = [f"--chaincode={name}=127.0.0.1:{at}" for name, at in places.items()]
    serve = [sys.executable, "-m", "services", "serve"]
    cluster = {**os.environ, "CITY_GENERAL_MODE": "cluster"}
    with ExitStack() as stack:
        peer = Program(
            "ledger",
            [*serve, "ledger", "--trial", "--state", str(state), "--identity", str(identity), "--port", str(port), *chaincodes],
            lambda: (state / "profile.json").exists() and listens(port),
            env=cluster,
        )  # fmt: skip
        chaincode = Program(
            "chaincode",
            [*serve, "chaincode", "--places", str(state / "profile.json")],
            lambda: all(map(listens, places.values())),
            env=cluster,
        )
        natives = [Native(program, tmp_path / "logs") for program in (peer, chaincode)]
        for native in natives:
            native.start()
            stack.callback(native.stop)
            native.wait()
        yield Ledger(natives[0], port)


def as_pod(secrets: MemorySecrets, folder: Path, service: str, port: int) -> FabricSettings:
    """What a service's pod has mounted, and its settings."""
    items = {
        "member.pem": f"members/{service}.pem", "member.key": f"members/{service}.key",
        "ca.pem": "tls/ca.pem", "client.pem": "tls/client.pem", "client.key": "tls/client.key",
    }  # fmt: skip
    mount(secrets, f"ledger-{service}", folder, items)
    return FabricSettings(
        peer=f"localhost:{port}",
        members=str(folder / "members"),
        tls_ca=str(folder / "tls" / "ca.pem"),
        tls_cert=str(folder / "tls" / "client.pem"),
        tls_key=str(folder / "tls" / "client.key"),
    )


async def recorded(settings: FabricSettings, size: int) -> object:
    opened = await open_channel_ledger(settings, clock=time.time)
    try:
        head = {"origin": f"{ORIGIN}{size}", "size": size, "root": ROOT, "proof": []}
        await opened.submit("anchors", "record", {"heads": [head]}, submitter="notary", request_id=f"r{size}" * 8)
        return await opened.evaluate("anchors", "head", {"origin": f"{ORIGIN}{size}"})
    finally:
        await opened.close()


async def test_a_service_submits_with_what_its_pod_has_mounted(
    secrets: MemorySecrets, ledger: Ledger, tmp_path: Path
) -> None:
    settings = as_pod(secrets, tmp_path / "etc", "notary", ledger.port)
    assert await recorded(settings, 1)
    renewed = MemorySecrets()
    for name in ("ledger-peer", *(f"ledger-{name}" for name in HOLDERS)):
        renewed.put(name, secrets.data(name), ours=True)
    provision(renewed, wanted(groups=("ledger",), hosts=("ledger.example",)), lambda line: None)
    assert renewed.data("ledger-peer") != secrets.data("ledger-peer")
    ledger.peer.stop()
    (tmp_path / "identity" / "identity.tar").chmod(0o600)
    mount(renewed, "ledger-peer", tmp_path / "identity")
    ledger.peer.start()
    ledger.peer.wait()
    assert await recorded(settings, 2), "the member's certificate is of the same authority as before"
    assert (tmp_path / "state" / "tls" / "peer.pem").read_bytes() in renewed.data("ledger-peer")["identity.tar"]


def test_another_citys_identities_do_not_start_this_ledger(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.peer.stop()
    other = MemorySecrets()
    provision(other, wanted(groups=("ledger",)), lambda line: None)
    identity = mount(other, "ledger-peer", tmp_path / "other") / "identity.tar"
    chaincodes = [f"--chaincode={chaincode_name(one)}=127.0.0.1:{free_port()}" for one in contracts()]
    asked = ["serve", "ledger", "--trial", "--state", str(tmp_path / "state"), "--identity", str(identity), *chaincodes]
    assert main(asked) == 2
    assert "another authority than the identities given" in capsys.readouterr().err


# --- database -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(secrets: MemorySecrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """A server with its certificate and its administrator's password from secrets, and nothing of the city in it."""
    folder = tmp_path_factory.mktemp("database")
    own = mount(secrets, "postgres-tls", folder / "tls")
    for name in ("admin", *HOLDERS):
        mount(secrets, f"postgres-{name}", folder / "passwords" / name)
        mount(secrets, f"{name}-tls", folder / "tls-of" / name)
    state, port = folder / "server", free_port()
    (state / "passwords").mkdir(parents=True)
    given = folder / "passwords" / "admin" / "password"
    (state / "passwords" / "postgres").write_bytes(given.read_bytes())
    install(cache_folder())
    tls = Tls(own / "tls.crt", own / "tls.key", own / "ca.crt")
    [program] = programs(cache_folder(), state, port, services=(), tls=tls)
    native = Native(program, state)
    native.start()
    try:
        native.wait()
        yield Admin(port, folder / "passwords", root=own / "ca.crt", password_file=given)
    finally:
        native.stop()


def provision_database(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("CITY_POSTGRES_PORT", str(admin.port))
    monkeypatch.setenv("CITY_POSTGRES_HOST", "localhost")
    monkeypatch.setenv("CITY_POSTGRES_TLS_ROOT", str(admin.root))
    files = ["--admin-password-file", str(admin.password_file), "--passwords", str(admin.passwords)]
    return main(["provision", "database", *files])


def test_a_service_opens_its_schema_with_what_its_pod_has_mounted(
    database: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provision_database(database, monkeypatch) == 0
    assert provision_database(database, monkeypatch) == 0, "again, it finds what is there"
    settings = PostgresSettings(
        host="localhost",
        port=database.port,
        password_file=str(database.passwords / "{service}" / "password"),
        tls_root=str(database.passwords.parent / "tls-of" / "{service}" / "ca.crt"),
    )
    for service in HOLDERS:
        with Place(service, settings).connect("migrate") as connection:
            connection.execute("CREATE TABLE proof (number int)")
            assert connection.execute("SELECT current_schema(), current_user").fetchone() == (
                service,
                f"city_{service}",
            )


def test_a_managed_database_whose_administrator_is_no_superuser(database: Admin, tmp_path: Path) -> None:
    for name in ("manager", "suite"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(f"of {name}", encoding="utf-8")
    with database.connect("postgres") as server:
        server.execute("CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD 'of manager'")
    given = tmp_path / "manager" / "password"
    managed = replace(database, database="managed", user="manager", passwords=tmp_path, password_file=given)
    for _ in range(2):
        roles.provision(managed, ["suite"])
    place = PostgresSettings(
        port=database.port, database="managed", password_file=str(tmp_path / "{service}" / "password"),
        tls_root=str(database.root),
    )  # fmt: skip
    (tmp_path / "suite" / "password").chmod(0o600)
    with Place("suite", place).connect("migrate") as connection:
        connection.execute("CREATE TABLE proof (number int)")


def test_a_password_that_is_not_the_servers_is_said(database: Admin, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("not it", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match="refuses postgres: see that the administrator's password"):
        until_ready(replace(database, password_file=tmp_path / "password"), [], 30.0)
