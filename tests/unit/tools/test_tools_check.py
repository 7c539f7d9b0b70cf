"""`make check` itself, and the proto linter's rule about skipping."""

from __future__ import annotations

from functools import partial

import pytest

from tools import check, protos
from tools.project import ROOT


def test_each_check_is_named_and_a_failure_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, check.Check] = {"words": list, "types": partial(list, ("a.py:1: wrong",))}
    monkeypatch.setattr(check, "CHECKS", found)
    assert check.main(["words"]) == 0
    assert "all checks hold" in capsys.readouterr().out
    assert check.main(["words", "types"]) == 1
    output = capsys.readouterr().out
    assert "    a.py:1: wrong" in output
    assert "failed: types" in output


def test_an_unknown_check_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["spelling"]) == 2
    assert "no check 'spelling'; there are format, lint" in capsys.readouterr().err


def test_a_programs_findings_are_its_lines() -> None:
    assert check.program("ruff", "--version") == []
    assert "brew" in " ".join(check.program("ruff", "brew"))


def test_without_npm_the_linter_is_skipped_aloud_but_never_in_ci(capsys: pytest.CaptureFixture[str]) -> None:
    assert protos.absent(ci=False) == []
    assert "skipped: no npm here" in capsys.readouterr().out
    assert "CI may not skip" in protos.absent(ci=True)[0]


def test_what_a_failed_program_says_is_told() -> None:
    assert protos.told(["sh", "-c", "echo wrong; exit 3"], ROOT) == ["wrong"]
    assert protos.told(["sh", "-c", "exit 3"], ROOT) == ["sh failed with exit code 3"]
    assert protos.told(["true"], ROOT) == []
