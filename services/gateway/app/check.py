"""Runs the verifier over a bundle in a process of its own: a demonstration, since the server under check runs it.

Called by POST /api/v1/bills/{id}/check. At most two at once, eight waiting, 30 s each, 1 MiB of output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from citykit.errors import ResourceExhausted, Unavailable

AT_ONCE = 2
WAITING_MAX = 8
TIMEOUT_S = 30.0
OUTPUT_MAX = 1_048_576
COMMAND = "python -m verifier bundle.json --trust trust.json"
CAVEAT = (
    "The server under check ran this check: a demonstration. To be sure, download the two files, take the trust file from "
    "somewhere else than this server, and run the command on your own machine."
)


@dataclass(frozen=True)
class Step:
    """One line of the verifier: what was checked, whether it holds, and what was found."""

    step: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Checked:
    """The verifier's answer. `ok` is true only when it left with exit code 0 and every step holds."""

    ok: bool
    steps: tuple[Step, ...]


class Checker:
    """Runs checks, a bounded number of them. `directory` holds the files of a check only while it runs."""

    def __init__(self, directory: Path, command: tuple[str, ...] = (sys.executable, "-m", "verifier")) -> None:
        self._directory = directory
        self._command = command
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._inside = 0

    def clear(self) -> None:
        """Removes what a killed process left behind. Called once at the start."""
        shutil.rmtree(self._directory, ignore_errors=True)

    async def check(self, bundle: bytes, trust: bytes) -> Checked:
        """Checks one bundle.

        Raises:
            ResourceExhausted: too many checks wait already.
            Unavailable: the verifier gave no answer in time, or none that can be read.
        """
        if self._inside >= AT_ONCE + WAITING_MAX:
            raise ResourceExhausted("too many checks run at once; try again in a few seconds", retry_after_s=5)
        self._inside += 1
        try:
            async with self._slots:
                return await self._in_directory(bundle, trust)
        finally:
            self._inside -= 1

    async def _in_directory(self, bundle: bytes, trust: bytes) -> Checked:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            await asyncio.to_thread(_write, Path(folder), bundle, trust)
            return await self._run(Path(folder))

    async def _run(self, folder: Path) -> Checked:
        process = await asyncio.create_subprocess_exec(
            *self._command, "bundle.json", "--trust", "trust.json", "--json",
            cwd=folder, env=_environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output = await _bounded(process)
                return _read(output, await process.wait())
        except TimeoutError:
            raise Unavailable(f"the verifier gave no answer in {TIMEOUT_S:.0f} s; run it yourself: {COMMAND}") from None
        finally:
            await _end(process)


def _environment() -> dict[str, str]:
    """Only what a Python process needs: no setting of the city, no secret of its environment reaches the verifier."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _write(folder: Path, bundle: bytes, trust: bytes) -> None:
    (folder / "bundle.json").write_bytes(bundle)
    (folder / "trust.json").write_bytes(trust)


async def _bounded(process: asyncio.subprocess.Process) -> bytes:
    output = b""
    while chunk := await _more(process):
        output += chunk
        if len(output) > OUTPUT_MAX:
            raise Unavailable("the verifier printed more than 1 MiB; run it yourself: " + COMMAND)
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        while await _more(process):
            pass  # what it had printed already: only a pipe read to its end is closed
        await process.wait()


async def _more(process: asyncio.subprocess.Process) -> bytes:
    return await cast(asyncio.StreamReader, process.stdout).read(65_536)


def _read(output: bytes, exit_code: int) -> Checked:
    try:
        document = json.loads(output)
        steps = tuple(_step(item) for item in _steps(document))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Unavailable(f"the verifier's answer could not be read (exit code {exit_code}): {COMMAND}") from None
    return Checked(ok=exit_code == 0 and bool(steps) and all(step.ok for step in steps), steps=steps)


def _steps(document: Any) -> list[Any]:
    """The steps of the verifier's document about one bundle."""
    bundles = document.get("bundles")
    found = bundles[0]["steps"] if bundles else document["steps"]
    if not isinstance(found, list):
        raise TypeError
    return found


def _step(item: dict[str, Any]) -> Step:
    return Step(step=str(item["step"]), ok=item["ok"] is True, detail=str(item.get("detail", "")))
