"""Which files the checks look at."""

from __future__ import annotations

from tools.project import ROOT, python_files, text_files, tracked


def test_every_file_of_the_project_and_nothing_installed() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in tracked()}
    assert {"Makefile", "pyproject.toml", "tools/project.py", "gen/city/__init__.py"} <= names
    assert not any(name.startswith((".venv/", ".uv/", ".city/", ".cache/")) for name in names)


def test_python_files_of_the_folders_asked_for() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in python_files("tools", "verifier")}
    assert {"tools/check.py", "verifier/__init__.py"} <= found
    assert {name.split("/")[0] for name in found} == {"tools", "verifier"}


def test_texts_are_what_people_write() -> None:
    names = {name for name, _ in text_files()}
    assert "CONTRIBUTING.md" in names
    assert not any(name == "LICENSE" or name.startswith("gen/") for name in names)
