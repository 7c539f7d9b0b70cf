"""What dies is started again; what does not last is given up; what is stopped stays stopped."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from citykit.errors import EnvironmentFault
from citykit.testing.polling import until
from infra import supervisor as supervising
from infra.native import Program
from infra.supervisor import Supervisor, processes


def sleeper(name: str) -> Program:
    return Program(name, [sys.executable, "-c", "import time; time.sleep(600)"], lambda: True, stop_s=5.0)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_what_is_killed_is_started_again_and_stands_in_the_file(tmp_path: Path) -> None:
    said: list[str] = []
    found = Supervisor(tmp_path, said.append)
    found.start([sleeper("one")])
    found.start([sleeper("two")])
    before = processes(tmp_path)
    assert before.keys() == {"one", "two"}
    os.killpg(before["two"], signal.SIGKILL)
    await until(lambda: processes(tmp_path)["two"] != before["two"], "two was started again")
    assert processes(tmp_path)["one"] == before["one"]
    assert found.restarts() == {"one": 0, "two": 1}
    assert said == ["two ended; it is started again"]
    running = processes(tmp_path).values()
    found.stop()
    assert processes(tmp_path) == {}
    assert not any(map(alive, running))


async def test_what_never_lasts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(supervising, "STARTS_MAX", 3)
    flag = tmp_path / "flag"
    code = f"import pathlib, time; p = pathlib.Path({str(flag)!r}); time.sleep(0 if p.exists() else 600)"
    found = Supervisor(tmp_path)
    found.start([Program("short", [sys.executable, "-c", code], lambda: True, stop_s=5.0)])
    flag.touch()
    os.killpg(processes(tmp_path)["short"], signal.SIGKILL)
    await until(lambda: found.fault is not None, "it was given up")
    assert found.fault is not None and "short ended 3 times" in found.fault.message
    found.stop()


def test_a_program_that_does_not_become_ready_leaves_nothing_running(tmp_path: Path) -> None:
    broken = Program("broken", [sys.executable, "-c", "print('no such thing')"], lambda: False, ready_s=20.0)
    found = Supervisor(tmp_path)
    found.start([sleeper("one")])
    pid = processes(tmp_path)["one"]
    with pytest.raises(EnvironmentFault, match="no such thing"):
        found.start([broken])
    assert not alive(pid)
    assert processes(tmp_path) == {}


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = Supervisor(tmp_path)
    found.start([sleeper("one")])
    pid = processes(tmp_path)["one"]
    with pytest.raises(EnvironmentFault, match=r"absent cannot be started .*No such file.*nowhere"):
        found.start([Program("absent", [str(tmp_path / "nowhere")], lambda: True)])
    assert not alive(pid)


def test_a_power_cut_ends_everything_at_once(tmp_path: Path) -> None:
    found = Supervisor(tmp_path)
    found.start([sleeper("one")])
    pid = processes(tmp_path)["one"]
    found.kill()
    assert not alive(pid)
    assert processes(tmp_path / "elsewhere") == {}
