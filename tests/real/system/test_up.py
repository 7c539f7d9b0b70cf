"""`make up` and `make down` as programs: what runs outlives its terminal, is started again when it dies, and stops on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.supervisor import processes

COMMAND = [sys.executable, "-m", "infra.up"]


def make(act: str, state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, act, "--state", str(state)], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "up"
    make("down", tmp_path / "up")


def test_a_database_goes_up_comes_back_and_goes_down(state: Path) -> None:
    up = make("up", state, PARTS="postgres")
    assert up.returncode == 0, up.stderr
    assert "PostgreSQL at 127.0.0.1:" in up.stdout
    assert str(state / "settings.env") in up.stdout
    assert "CITY_POSTGRES_PORT" in (state / "settings.env").read_text(encoding="utf-8")
    again = make("up", state, PARTS="postgres")
    assert (again.returncode, "run already" in again.stderr) == (3, True)
    before = processes(state / "logs")["postgres"]
    os.killpg(before, signal.SIGKILL)
    wait_for(lambda: processes(state / "logs")["postgres"] not in (0, before), "the database was started again")
    down = make("down", state)
    assert (down.returncode, down.stdout) == (0, "stopped\n")
    assert processes(state / "logs") == {}
    assert "nothing runs" in make("down", state).stdout


def test_a_supervisor_that_was_killed_leaves_nothing_in_the_way(state: Path) -> None:
    assert make("up", state, PARTS="postgres").returncode == 0
    supervisor = json.loads((state / "up.json").read_text(encoding="utf-8"))["pid"]
    left = processes(state / "logs")["postgres"]
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(supervisor), "the supervisor is gone")
    assert psutil.pid_exists(left)
    assert make("up", state, PARTS="postgres").returncode == 0
    assert processes(state / "logs")["postgres"] != left


def test_without_java_kafka_says_what_it_needs(state: Path) -> None:
    found = make("up", state, PARTS="kafka", PATH=str(Path(sys.executable).parent))
    assert found.returncode == 3
    assert "Java 17 or newer" in found.stderr
