"""Fabric's programs as processes: how their answers and faults are read, and that only our own are ever stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault, NotFound
from infra.fabric import CommandFailed, find, network, stop_network, wait_until
from infra.fabric.binaries import NEEDED
from infra.fabric.running import Running
from infra.native import Program
from services.__main__ import ENVIRONMENT, main

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def folder_of(tmp_path: Path, version: str = "v3.1.5") -> Path:
    """A folder with programs of the right names; `peer version` answers, everything else fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        script = folder / name
        script.write_text(
            f'#!/bin/sh\ncase "$1" in version) echo " Version: {version}";; say) echo said; echo aside >&2;;'
            ' *) echo "no: $1" >&2; exit 4;; esac\n'
        )
        script.chmod(0o755)
    return folder


class TestBinaries:
    def test_what_is_printed_is_the_answer_and_what_is_said_aside_is_not(self, tmp_path: Path) -> None:
        assert find(folder_of(tmp_path)).call("peer", ["say"]) == "said\n"

    def test_a_refusal_is_quoted(self, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed, match="osnadmin channel list ended with 4: no: channel") as raised:
            find(folder_of(tmp_path)).call("osnadmin", ["channel", "list"])
        assert raised.value.output == "no: channel\n"

    def test_another_line_of_versions_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault, match=r"holds Fabric 2\.5; this network speaks 3\.1"):
            find(folder_of(tmp_path, "v2.5.9"))

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path)
        (folder / "osnadmin").unlink()
        with pytest.raises(EnvironmentFault, match=r"no folder with osnadmin$"):
            find(folder)


class TestRunning:
    def test_a_program_is_known_to_whoever_looks_later(self, tmp_path: Path) -> None:
        first, later = Running(tmp_path), Running(tmp_path)
        first.start(Program("sleeper", SLEEPER, lambda: True))
        assert later.names() == ["sleeper"]
        pid = later.pid("sleeper")
        later.start(Program("sleeper", SLEEPER, lambda: True))
        assert later.pid("sleeper") == pid
        later.stop("sleeper")
        assert (later.names(), later.pid("sleeper")) == ([], 0)
        first.stop("sleeper")

    def test_one_that_is_killed_is_gone(self, tmp_path: Path) -> None:
        running = Running(tmp_path)
        running.start(Program("sleeper", SLEEPER, lambda: True))
        running.kill("sleeper")
        assert not running.runs("sleeper")
        with pytest.raises(EnvironmentFault, match="does not run"):
            running.wait(Program("sleeper", SLEEPER, lambda: True))

    def test_a_stranger_with_the_same_id_is_left_alone(self, tmp_path: Path) -> None:
        stranger = subprocess.Popen(SLEEPER)
        try:
            note = {"sleeper": {"pid": stranger.pid, "started": 1.0}}
            (tmp_path / "running.json").write_text(json.dumps(note))
            running = Running(tmp_path)
            assert not running.runs("sleeper")
            running.kill("sleeper")
            running.stop("sleeper")
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_one_that_ends_at_once_is_told_with_its_log(self, tmp_path: Path) -> None:
        running = Running(tmp_path)
        program = Program("short", [sys.executable, "-c", "print('why it ended')"], lambda: False)
        running.start(program)
        with pytest.raises(EnvironmentFault, match="why it ended"):
            running.wait(program)
        assert (running.names(), running.known()) == ([], ["short"])
        running.stop("short")
        assert running.known() == []


class TestCommand:
    def test_without_the_programs_it_ends_with_3_and_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("FABRIC_BIN", raising=False)
        assert main(["ledger", "network", "up", "--state", str(tmp_path / "state")]) == ENVIRONMENT
        said = capsys.readouterr().err
        assert said == f"city: not run: FABRIC_BIN names no folder with {', '.join(NEEDED)}\n"
        assert not (tmp_path / "state").exists()

    def test_there_is_nothing_to_look_at_before_it_is_made(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="network up"):
            stop_network(tmp_path)

    def test_a_folder_keeps_its_profile(self, tmp_path: Path) -> None:
        programs = folder_of(tmp_path)
        network(tmp_path / "state", "raft1", programs).plan.save()
        with pytest.raises(Exception, match="profile raft1; delete the folder"):
            network(tmp_path / "state", "bft4", programs)

    def test_status_of_a_network_that_is_down_is_1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        programs, state = folder_of(tmp_path), tmp_path / "state"
        monkeypatch.setenv("FABRIC_BIN", str(programs))
        network(state, "raft1").plan.save()
        assert main(["ledger", "network", "status", "--json", "--state", str(state)]) == 1
        status = json.loads(capsys.readouterr().out)
        assert {node["healthy"] for node in status["nodes"]} == {False}
        assert main(["ledger", "network", "deploy", "--state", str(state)]) == ENVIRONMENT
        assert "network up" in capsys.readouterr().err
        assert main(["ledger", "network", "down", "--delete", "--state", str(state)]) == 0
        assert not state.exists()


def test_what_does_not_come_is_told_with_the_last_fault() -> None:
    def never() -> bool:
        raise OSError("connection refused")

    with pytest.raises(EnvironmentFault, match=r"in vain; last: connection refused"):
        wait_until(never, "it", within_s=0.1)
