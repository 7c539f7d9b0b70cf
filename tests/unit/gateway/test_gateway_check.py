"""The verifier's subprocess: bounded in time, number and output; its answer read strictly; its files removed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from citykit.errors import ResourceExhausted, Unavailable
from services.gateway.app import check as check_module
from services.gateway.app.check import Checker

FINE = """
import json, pathlib, sys
assert sys.argv[1:] == ["bundle.json", "--trust", "trust.json", "--json"], sys.argv
detail = pathlib.Path("bundle.json").read_text() + pathlib.Path("trust.json").read_text()
print(json.dumps({"bundles": [{"steps": [{"step": "inclusion", "ok": True, "detail": detail}]}]}))
"""


def checker(tmp_path: Path, code: str) -> Checker:
    return Checker(tmp_path / "check", (sys.executable, "-c", code))


async def test_bundle_and_trust_reach_the_verifier_and_nothing_stays(tmp_path: Path) -> None:
    checked = await checker(tmp_path, FINE).check(b"bundle ", b"trust")
    assert checked.ok
    assert [(step.step, step.detail) for step in checked.steps] == [("inclusion", "bundle trust")]
    assert list((tmp_path / "check").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ('print(\'{"steps":[{"step":"total","ok":false}]}\'); raise SystemExit(1)', "a failed step"),
        ('print(\'{"steps":[{"step":"total","ok":true}]}\'); raise SystemExit(1)', "exit code 1"),
        ('print(\'{"steps":[{"step":"total","ok":1}]}\')', "ok that is not true"),
        ("print('{\"steps\":[]}')", "no step at all"),
    ],
)
async def test_ok_only_if_every_step_and_the_exit_code_say_so(tmp_path: Path, code: str, why: str) -> None:
    assert not (await checker(tmp_path, code).check(b"", b"")).ok, why


@pytest.mark.parametrize(
    "code", ["", "print('garbage')", "print('[]')", "print('{}')", "print('{\"steps\":{}}')", "raise SystemExit(2)"]
)
async def test_an_unreadable_answer_is_never_ok(tmp_path: Path, code: str) -> None:
    with pytest.raises(Unavailable, match="could not be read"):
        await checker(tmp_path, code).check(b"", b"")


async def test_a_slow_verifier_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "TIMEOUT_S", 0.2)
    code = f"import os, pathlib, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(3600)"
    with pytest.raises(Unavailable, match="no answer in"):
        await checker(tmp_path, code).check(b"", b"")
    if (tmp_path / "pid").exists():
        assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


async def test_a_chatty_verifier_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="more than 1 MiB"):
        await checker(tmp_path, "while True: print('x' * 65536)").check(b"", b"")


async def test_checks_are_limited_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "WAITING_MAX", 0)
    monkeypatch.setattr(check_module, "AT_ONCE", 1)
    gate = tmp_path / "gate"
    slow = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n{FINE}"
    running = checker(tmp_path, slow)
    first = asyncio.create_task(running.check(b"", b""))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="too many checks"):
        await running.check(b"", b"")
    gate.touch()
    assert (await first).ok
    assert (await running.check(b"", b"")).ok


async def test_no_setting_of_the_city_reaches_the_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITY_GENERAL_MODE", "demo")
    code = "import json, os; print(json.dumps({'steps': [{'step': str(sorted(os.environ)), 'ok': True}]}))"
    checked = await checker(tmp_path, code).check(b"", b"")
    assert "CITY_" not in checked.steps[0].step


def test_what_a_killed_process_left_is_removed_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / "check" / "tmp1" / "bundle.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    checker(tmp_path, "").clear()
    assert not (tmp_path / "check").exists()
