"""Where the project's files are; read by every check."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("citykit", "services", "simulation", "verifier", "infra", "operators", "tools")
SOURCES = (*CODE, "tests")


def tracked() -> list[Path]:
    """Every file of the project that git knows or would add, in order."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - git
    paths = (ROOT / name for name in sorted(set(names.split("\0"))) if name)
    return [path for path in paths if path.is_file()]


def python_files(*folders: str) -> list[Path]:
    """The Python files below the folders, without generated ones."""
    wanted = tuple(ROOT / folder for folder in folders)
    return [path for path in tracked() if path.suffix == ".py" and any(path.is_relative_to(top) for top in wanted)]


def text_files() -> Iterator[tuple[str, str]]:
    """(path, text) of every file people write or read: not generated, no lock, no licence."""
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("gen/") or name == "LICENSE":
            continue
        try:
            yield name, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
