"""What `make up` is asked for, where it puts things, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault, SettingsError
from citykit.keys import read_root_key
from citykit.network import read_addresses
from citykit.settings import read_settings, settings_file
from infra import up
from infra.parts import HOLDERS, Part, Wanted, described, kept_port, read_wanted, renew, services_settings
from infra.supervisor import Supervisor
from services.registry import SERVICES


def test_words_in_the_environment_choose_and_unknown_ones_say_what_there_is(tmp_path: Path) -> None:
    wanted = read_wanted({"PARTS": "kafka,postgres", "BROKERS": "3", "LEDGER": ""}, tmp_path, tmp_path)
    assert (wanted.parts, wanted.brokers, wanted.ledger) == (("kafka", "postgres"), 3, "dev")
    assert read_wanted({}, tmp_path, tmp_path).parts == ("kafka", "postgres", "ledger")
    for name, value, told in (
        ("PARTS", "kafka,rabbit", "kafka, postgres, ledger"),
        ("BROKERS", "2", "1, 3"),
        ("LEDGER", "chain", "dev, raft1, raft3, bft4"),
    ):
        with pytest.raises(SettingsError, match=told):
            read_wanted({name: value}, tmp_path, tmp_path)


def test_ports_stay_and_differ(tmp_path: Path) -> None:
    first = {name: kept_port(tmp_path, name) for name in ("a", "b")}
    assert len(set(first.values())) == 2
    assert {name: kept_port(tmp_path, name) for name in ("a", "b")} == first


def test_what_services_share_can_be_read_back_as_settings(tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, tmp_path)
    renew(wanted)
    settings = read_settings(services_settings(wanted)).services
    assert read_addresses(settings.addresses).keys() == {*SERVICES, "simulation"}
    assert len(read_root_key(Path(settings.root_key_file))) == 32
    assert (tmp_path / "certificates" / "metering" / "tls.crt").exists()
    assert "gateway" not in HOLDERS
    assert renew(wanted) == []


def test_a_start_writes_the_settings_and_says_where_things_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    part = Part(
        "kafka",
        [list],
        {"CITY_KAFKA_BOOTSTRAP": "127.0.0.1:1,127.0.0.1:2"},
        "Kafka there",
        lambda: done.append("topics"),
    )
    monkeypatch.setattr(up, "prepare", lambda wanted: [part])
    said: list[str] = []
    supervisor = Supervisor(tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    up.start(Wanted(tmp_path, tmp_path), supervisor, said.append)
    supervisor.stop()
    kept = settings_file(tmp_path / "settings.env")
    assert kept["CITY_KAFKA_BOOTSTRAP"] == "127.0.0.1:1,127.0.0.1:2"
    assert done == ["topics"]
    assert said[-1] == "Kafka there"
    assert described(tmp_path / "settings.env") == "real: Kafka there"
    assert (tmp_path / "settings.env").stat().st_mode & 0o077 == 0


def test_nothing_to_stop_and_something_that_runs_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert up.main(["down", "--state", str(tmp_path)]) == 0
    assert "nothing runs" in capsys.readouterr().out
    monkeypatch.setattr(up, "running", lambda state: 1)
    assert up.main(["up", "--state", str(tmp_path)]) == 3
    assert "`make down` stops them" in capsys.readouterr().err


def test_what_a_killed_supervisor_left_is_ended(tmp_path: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)], start_new_session=True
    )
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        (tmp_path / "logs").mkdir()
        document = {"left": {"pid": left.pid}, "stranger": {"pid": stranger.pid}, "gone": {"pid": 2**22 + 1}}
        (tmp_path / "logs" / "processes.json").write_text(json.dumps(document), encoding="utf-8")
        assert up.stop_orphans(tmp_path) == ["left"]
        assert left.poll() is not None or left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        os.killpg(stranger.pid, signal.SIGKILL)
        stranger.wait()


def test_a_supervisor_in_the_background_ends_with_what_went_wrong(tmp_path: Path) -> None:
    failed = subprocess.Popen([sys.executable, "-c", "print('kafka: no Java')"], stdout=subprocess.DEVNULL)
    log = tmp_path / "up.log"
    log.write_text("kafka: no Java\n", encoding="utf-8")
    failed.wait(30)
    with pytest.raises(EnvironmentFault, match="see above"):
        up._follow(failed, tmp_path, log)
