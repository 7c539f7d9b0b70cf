"""The installer: what it skips, what it refuses, what it says."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tools import bootstrap

ROOT = Path(__file__).resolve().parents[3]


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, so that no test touches the real environment."""
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "stamp.json")
    locks = {"run": tmp_path / "requirements.lock", "dev": tmp_path / "requirements-dev.lock"}
    monkeypatch.setattr(bootstrap, "LOCKS", locks)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    monkeypatch.setattr(bootstrap, "index_settings", dict)
    return tmp_path


@pytest.fixture
def calls(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The steps the installer takes; making the environment makes its folder."""
    seen: list[list[str]] = []

    def call(command: Sequence[str], environment: Mapping[str, str]) -> None:
        seen.append(list(command))
        assert environment["UV_PYTHON_DOWNLOADS"] == "never"
        if command[1] == "venv":
            make_venv(checkout)

    monkeypatch.setattr(bootstrap, "call", call)
    return seen


def make_venv(checkout: Path) -> None:
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    (binaries / "python").touch()
    (binaries / "activate").write_text(f"VIRTUAL_ENV='{checkout / '.venv'}'\n", encoding="utf-8")


def test_installs_once_and_then_needs_nothing(calls: list[list[str]]) -> None:
    bootstrap.install("run")
    assert [step[1:3] for step in calls] == [["venv", "--quiet"], ["pip", "sync"], ["pip", "install"]]
    bootstrap.install("run")
    assert len(calls) == 3


def test_both_installs_are_held_to_the_locked_hashes(calls: list[list[str]]) -> None:
    bootstrap.install("run")
    assert "--require-hashes" in calls[1]
    assert {"--no-deps", "--no-build-isolation"} <= set(calls[2])


def test_run_keeps_the_dev_set(calls: list[list[str]], checkout: Path) -> None:
    bootstrap.install("dev")
    (checkout / ".venv" / "bin" / "pytest").touch()
    done = len(calls)
    bootstrap.install("run")
    assert len(calls) == done
    (checkout / "requirements-dev.lock").write_text("changed", encoding="utf-8")
    bootstrap.install("run")
    assert calls[done][-1].endswith("requirements-dev.lock")


def test_a_changed_lock_installs_again_into_the_same_environment(calls: list[list[str]], checkout: Path) -> None:
    bootstrap.install("run")
    (checkout / "requirements.lock").write_text("changed", encoding="utf-8")
    bootstrap.install("run")
    assert [step[1] for step in calls[3:]] == ["pip", "pip"]


def test_a_moved_checkout_gets_a_new_environment(calls: list[list[str]], checkout: Path) -> None:
    bootstrap.install("run")
    (checkout / ".venv" / "bin" / "activate").write_text("VIRTUAL_ENV='/elsewhere/.venv'\n", encoding="utf-8")
    bootstrap.install("run")
    assert calls[3][1] == "venv"


def test_a_broken_install_leaves_no_stamp(
    calls: list[list[str]], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.install("run")
    (checkout / "requirements.lock").write_text("changed", encoding="utf-8")

    def fail(command: Sequence[str], environment: Mapping[str, str]) -> None:
        raise bootstrap.Fault("no network")

    monkeypatch.setattr(bootstrap, "call", fail)
    with pytest.raises(bootstrap.Fault, match="no network"):
        bootstrap.install("run")
    assert bootstrap.stamped() is None


def test_a_full_disk_is_said_before_anything_is_written(
    calls: list[list[str]], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(1 << 40, 1 << 40, 100 << 20))
    with pytest.raises(bootstrap.Fault, match="100 MiB are free here and 400 are needed: free some space"):
        bootstrap.install("run")
    assert not calls
    assert not (checkout / ".venv").exists()


def test_a_fault_of_the_environment_is_exit_code_3(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "find_uv", lambda: None)
    monkeypatch.setattr(bootstrap, "UV_HOME", checkout / ".uv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bootstrap.main(["run"]) == 3
    assert "neither pip nor venv: install one of them" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["everything"]) == 2
    assert "run|dev" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("error: dns error: failed to lookup address information", "cannot be reached"),
        ("ERROR: No matching distribution found for uv", "cannot be reached"),
        ("error: No space left on device (os error 28)", "disk is full"),
        ("error: Hash mismatch for `rich==13.9`", "not the one that was locked"),
    ],
)
def test_likely_causes(output: str, advice: str) -> None:
    assert advice in (bootstrap.cause(output) or "")


def test_an_unknown_failure_has_no_made_up_cause() -> None:
    assert bootstrap.cause("error: the moon is full") is None


def test_a_failed_step_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(bootstrap.Fault, match="`false away` failed with exit code 1"):
        bootstrap.call(["false", "away"], {"PATH": "/usr/bin:/bin"})


def test_the_mirror_and_certificates_of_pip_are_used_and_uv_settings_win() -> None:
    listing = (
        ":env:.cert='/certs/mine.pem'\nglobal.cert='/certs/all.pem'\nglobal.index-url='mirror'\nglobal.timeout='9'\n"
    )
    assert bootstrap.translate(listing, {}) == {"SSL_CERT_FILE": "/certs/mine.pem", "UV_DEFAULT_INDEX": "mirror"}
    assert bootstrap.translate(listing, {"UV_DEFAULT_INDEX": "own"}) == {"SSL_CERT_FILE": "/certs/mine.pem"}


def test_versions_of_uv(tmp_path: Path) -> None:
    program = tmp_path / "uv"
    program.write_text("#!/bin/sh\necho 'uv 0.13.9 (somewhere)'\n", encoding="utf-8")
    program.chmod(0o755)
    assert bootstrap.uv_version(str(program)) == (0, 13)
    assert bootstrap.uv_version(str(tmp_path / "none")) == (0, 0)
