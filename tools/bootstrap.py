"""Installs the locked environment into `.venv`; called by `make` with the system's python, so standard library only.

`python3 tools/bootstrap.py run|dev`. The uv that does the work is the one on the PATH, or else a pinned one put into `.uv/`.
A stamp in `.venv` makes the second call a no-op that needs no network. Exit codes: 0 installed, 3 the environment is at fault.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
UV_HOME = ROOT / ".uv"
UV_LOCK = ROOT / "tools" / "requirements-uv.lock"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
STAMP = VENV / ".provable-city.json"
OLDEST_UV = (0, 5)
FREE_MIB = {"run": 400, "dev": 900}
ENVIRONMENT = 3

_CAUSES = (
    (
        r"dns error|lookup address|name resolution|sending request|onnection refused|unreachable|timed? ?out|NewConnectionError"
        r"|No matching distribution|Could not find a version",
        "the Python package index cannot be reached: check the network (and the proxy or mirror of your pip settings), "
        "then run the same command again",
    ),
    (r"No space left|os error 28", "the disk is full: free some space and run the same command again"),
    (
        r"[Hh]ash mismatch|DO NOT MATCH",
        "a package is not the one that was locked; do not use it, and tell the maintainers",
    ),
)


class Fault(Exception):
    """The environment is at fault; the message says what to do."""


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in LOCKS:
        print("usage: python3 tools/bootstrap.py run|dev", file=sys.stderr)
        return 2
    try:
        with _alone():
            install(arguments[0])
    except Fault as fault:
        print(f"setup: {fault}", file=sys.stderr)
        return ENVIRONMENT
    except OSError as error:
        print(f"setup: {error.strerror or error}: {error.filename or ROOT}", file=sys.stderr)
        return ENVIRONMENT
    return 0


def install(wanted: str) -> None:
    """Brings `.venv` to the lock, unless it is there; what holds the dev set keeps it."""
    kind = "dev" if wanted == "dev" or held() == "dev" else "run"
    if stamped() == stamp(kind):
        return
    free = shutil.disk_usage(ROOT).free >> 20
    if free < FREE_MIB[kind]:
        raise Fault(
            f"{free} MiB are free here and {FREE_MIB[kind]} are needed: free some space and run the same command again"
        )
    environment = {**os.environ, **index_settings(), "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(VENV)}
    uv = find_uv() or install_uv()
    if not usable():
        call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], environment)
    print(f"Installing the locked environment ({kind}) into .venv ...", flush=True)
    STAMP.unlink(missing_ok=True)
    call([uv, "pip", "sync", "--quiet", "--require-hashes", str(LOCKS[kind])], environment)
    call([uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)], environment)
    STAMP.write_text(json.dumps(stamp(kind)), encoding="utf-8")


def stamp(kind: str) -> dict[str, str]:
    """What the environment was made from: a difference means installing again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [project[name] for name in ("build-system", "project")] + [project["tool"]["hatch"]]
    digest = hashlib.sha256(LOCKS[kind].read_bytes() + json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return {"kind": kind, "inputs": digest, "root": str(ROOT)}


def stamped() -> dict[str, str] | None:
    """The stamp of a whole installation, or None."""
    try:
        found = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and usable() else None


def held() -> str:
    """Which set `.venv` holds, whole or not."""
    return "dev" if (VENV / "bin" / "pytest").exists() else "run"


def usable() -> bool:
    """Whether `.venv` has a python that starts here, new enough; a moved checkout or a removed python makes it none."""
    python = VENV / "bin" / "python"
    config = VENV / "bin" / "activate"
    return python.exists() and config.exists() and str(VENV) in config.read_text(encoding="utf-8")


def find_uv() -> str | None:
    """The pinned uv, or a recent one on the PATH."""
    ours = UV_HOME / "bin" / "uv"
    for candidate in (str(ours) if ours.exists() else None, shutil.which("uv")):
        if candidate and uv_version(candidate) >= OLDEST_UV:
            return candidate
    return None


def uv_version(program: str) -> tuple[int, int]:
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - uv
    except OSError:
        return (0, 0)
    found = re.match(r"uv (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def install_uv() -> str:
    """Puts the pinned uv into `.uv/`, with the pip at hand or one in an environment of its own."""
    print("Fetching uv, the installer, into .uv ...", flush=True)
    shutil.rmtree(UV_HOME, ignore_errors=True)
    options = ["install", "--quiet", "--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(UV_LOCK)]
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if importlib.util.find_spec("pip"):
        call([sys.executable, "-m", "pip", *options, "--target", str(UV_HOME)], environment)
    elif importlib.util.find_spec("ensurepip"):
        call([sys.executable, "-m", "venv", str(UV_HOME)], environment)
        call([str(UV_HOME / "bin" / "python"), "-m", "pip", *options], environment)
    else:
        raise Fault(
            f"{sys.executable} has neither pip nor venv: install one of them (Debian, Ubuntu: apt install python3-venv) "
            "or uv, then run the same command again"
        )
    return str(UV_HOME / "bin" / "uv")


def index_settings() -> dict[str, str]:
    """The mirror and the certificates that pip is set to, in uv's words; uv's own settings win."""
    if not importlib.util.find_spec("pip"):
        return {}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return translate(listed.stdout, os.environ)


def translate(listing: str, environment: Mapping[str, str]) -> dict[str, str]:
    """pip's `config list` to uv's variables; what comes from the environment is listed as `:env:` and wins."""
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    found: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        match = re.fullmatch(r"(?::env:|global|install)\.([a-z-]+)='(.*)'", line.strip())
        if match and match[1] in names:
            found[names[match[1]]] = match[2]
    return {name: value for name, value in found.items() if name not in environment}


def call(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a step; its failure is a fault with the likely cause."""
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603 - our own steps
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    print(output[-2_000:], file=sys.stderr)
    raise Fault(
        cause(output) or f"`{Path(command[0]).name} {command[1]}` failed with exit code {done.returncode}; see above"
    )


def cause(output: str) -> str | None:
    """What a failed step's output points to."""
    return next((advice for pattern, advice in _CAUSES if re.search(pattern, output)), None)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One installation at a time; a second waits for the first."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another setup is at work in this checkout; waiting for it ...", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
