"""A native program is killed with all it started: what lives on would hold its ports and its memory against the next start."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from infra.native import Native, Program, descendants

_STARTS_ONE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_what_it_started_in_another_session_is_killed_too(tmp_path: Path) -> None:
    log = tmp_path / "parent.log"
    program = Program(
        "parent", [sys.executable, "-c", _STARTS_ONE], lambda: log.read_text(encoding="ascii").endswith("\n")
    )
    native = Native(program, tmp_path)
    native.start()
    native.wait()
    child = psutil.Process(int(log.read_text(encoding="ascii")))
    assert [one.pid for one in descendants(native.pid)] == [child.pid]
    native.kill()
    assert not child.is_running() and not native.runs()
    native.kill()
    assert descendants(child.pid) == []
