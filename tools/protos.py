"""Lints the protos with buf, which comes locked from the npm registry into `.cache/buf`. Called by `make check`.

A machine without npm skips it and says so; under CI=true that is a failure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.project import ROOT

LOCKED = ROOT / "tools" / "buf"
CACHE = ROOT / ".cache" / "buf"
BUF = CACHE / "node_modules" / ".bin" / "buf"
_TIMEOUT_S = 180


def check() -> list[str]:
    """A line per thing the linter or its installation says."""
    if not any((ROOT / "protos").rglob("*.proto")):
        return []
    npm = shutil.which("npm")
    if npm is None:
        return absent(os.environ.get("CI") == "true")
    return installed(npm) or told([str(BUF), "lint"], ROOT)


def absent(ci: bool) -> list[str]:
    if ci:
        return ["protos/: npm is missing and CI may not skip the linter: apt-get install npm"]
    print("    skipped: no npm here, so no buf; CI lints the protos")
    return []


def installed(npm: str) -> list[str]:
    """Installs the locked buf unless it is there."""
    lock = (LOCKED / "package-lock.json").read_bytes()
    stamp = CACHE / "installed"
    digest = hashlib.sha256(lock).hexdigest()
    if BUF.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest:
        return []
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, CACHE / name)
    failed = told([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], CACHE)
    if not failed:
        stamp.write_text(digest, encoding="ascii")
    return failed


def told(command: Sequence[str], folder: Path) -> list[str]:
    """What a failed program says; nothing when it succeeds."""
    done = subprocess.run(  # noqa: S603 - npm and buf, with our own arguments
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode == 0:
        return []
    name = Path(command[0]).name
    return (done.stdout + done.stderr).strip().splitlines() or [f"{name} failed with exit code {done.returncode}"]
