"""`city db` on SQLite files: check, migrate with a dry run, backup beside a running city, restore."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from services.__main__ import main
from services.testing import SERVER, embedded_city

SERVICES = ("metering", "notary")
CHOSEN = [part for name in SERVICES for part in ("--service", name)]


def ran(state: Path, *argv: str) -> int:
    return main(["db", *argv, "--state", str(state), *CHOSEN])


@pytest.fixture(autouse=True)
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVER, raising=False)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """Of a city that ran once."""
    async with embedded_city(tmp_path / "city", services=SERVICES):
        pass
    return tmp_path / "city"


def test_check_says_versions_and_what_is_wrong(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(state, "check", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["service"], row["pending"], row["outbox"], row["problems"]) for row in rows] == [
        ("metering", [], 0, []),
        ("notary", [], 0, []),
    ]
    with closing(sqlite3.connect(state / "metering" / "metering.db")) as database:
        database.execute("UPDATE schema_version SET version_num = 'metering_9999'")
        database.commit()
    with closing(sqlite3.connect(state / "notary" / "notary.db")) as database:
        database.execute("DROP TABLE anchors")
    assert ran(state, "check") == 1
    said = capsys.readouterr().out
    assert "metering: WRONG: it is at revision metering_9999" in said and "Start that version" in said
    assert "notary: WRONG: the tables anchors are missing" in said
    assert ran(state, "migrate") == 2


def test_a_dry_run_changes_nothing_and_migrate_does(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = state / "metering" / "metering.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE archived_months")
        connection.execute("DROP TABLE archive_erasures")
        connection.execute("UPDATE schema_version SET version_num = 'metering_0002'")
        connection.commit()
    assert ran(state, "migrate", "--dry-run") == 0
    assert "metering: would run (it did, and was rolled back) metering_0003" in capsys.readouterr().out
    assert ran(state, "check") == 0
    assert "pending: metering_0003" in capsys.readouterr().out
    assert ran(state, "migrate") == 0
    assert "metering: ran metering_0003" in capsys.readouterr().out
    assert ran(state, "migrate") == 0
    assert "metering: up to date at metering_0003" in capsys.readouterr().out


async def test_a_backup_beside_a_running_city_is_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, copy = tmp_path / "city", tmp_path / "copy"
    async with embedded_city(state, services=SERVICES) as city:
        await city.process.stores["notary"].write(lambda unit: unit.answer("r1", "Do", b"f", b"before"))
        assert ran(state, "backup", str(copy)) == 0
        assert ran(state, "backup", str(copy)) == 2
        await city.process.stores["notary"].write(lambda unit: unit.answer("r2", "Do", b"f", b"after"))
    assert sorted(path.name for path in copy.iterdir()) == ["metering.db", "notary.db"]
    assert ran(state, "restore", str(copy)) == 3
    assert "move it" in capsys.readouterr().err
    for name in SERVICES:
        (state / name / f"{name}.db").unlink()
    assert ran(state, "restore", str(copy)) == 0
    async with embedded_city(state, services=SERVICES) as city:
        kept = city.process.stores["notary"]
        assert await kept.write(lambda unit: unit.answered("r1", "Do", b"f")) == b"before"
        assert await kept.write(lambda unit: unit.answered("r2", "Do", b"f")) is None


def test_what_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(tmp_path, "check") == 1
    assert "name the city's state directory" in capsys.readouterr().out
    assert ran(tmp_path, "backup", str(tmp_path / "copy")) == 2
    (tmp_path / "empty").mkdir()
    assert ran(tmp_path, "restore", str(tmp_path / "empty")) == 2
    assert "holds no backup" in capsys.readouterr().err


def test_a_moment_needs_its_zone_and_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy" / "base").mkdir(parents=True)
    to = ["restore", str(tmp_path / "copy")]
    data = ["--data", str(tmp_path / "data")]
    assert ran(tmp_path, *to) == 2
    assert "--data" in capsys.readouterr().err
    assert ran(tmp_path, *to, *data, "--until", "2026-01-31T12:00:00+00:00") == 2
    assert "--archive" in capsys.readouterr().err
    for wrong in ("2026-01-31T12:00:00", "noon"):
        assert ran(tmp_path, *to, *data, "--archive", str(tmp_path), "--until", wrong) == 2
        assert "with its zone" in capsys.readouterr().err
    assert ran(tmp_path, *to, *data) == 2
    assert "holds no base backup" in capsys.readouterr().err
