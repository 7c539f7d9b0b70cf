"""The programs of Fabric, from the folder that FABRIC_BIN names. This project neither holds nor builds them (docs/ARCHITECTURE.md)."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import EnvironmentFault

FABRIC_BIN = "FABRIC_BIN"
NEEDED = ("peer", "orderer", "configtxgen", "cryptogen", "osnadmin")
_CALL_S = 120.0
_TAIL = 1_500
_VERSION = re.compile(r"Version: v?(\d+\.\d+)")
_SUPPORTED = "3.1"


class CommandFailed(EnvironmentFault):
    """A program of Fabric refused; `output` is what it said."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True)
class Binaries:
    """The folder with the programs, checked by `find`."""

    folder: Path

    def path(self, tool: str) -> str:
        return str(self.folder / tool)

    def call(
        self, tool: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        """Runs one program to its end and returns what it printed on stdout.

        Raises:
            CommandFailed: it ended with another code than 0, or not within two minutes.
        """
        words = f"{tool} {' '.join(arguments[:3])}"
        try:
            done = subprocess.run(  # noqa: S603 - our own command lines
                [self.path(tool), *arguments],
                env={**os.environ, **(env or {})},
                cwd=cwd,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CALL_S,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{words} did not end within {_CALL_S:.0f} s", "") from None
        said = done.stdout + done.stderr
        if done.returncode:
            raise CommandFailed(f"{words} ended with {done.returncode}: {said.strip()[-_TAIL:]}", said)
        return done.stdout

    def version(self) -> str:
        """Major and minor version of the peer, such as 3.1."""
        found = _VERSION.search(self.call("peer", ["version"]))
        return found[1] if found else "unknown"


def missing(folder: str | Path | None) -> tuple[str, ...]:
    """The programs that are not in the folder; all of them where there is no folder."""
    if not folder or not Path(folder).is_dir():
        return NEEDED
    return tuple(tool for tool in NEEDED if not os.access(Path(folder) / tool, os.X_OK))


def not_run(folder: str | Path | None) -> str:
    """The one line that says why nothing ran on a real network; empty where the programs are there."""
    lacking = missing(folder)
    if not lacking:
        return ""
    return f"not run: {FABRIC_BIN} names no folder with {', '.join(lacking)}"


def find(folder: str | Path | None = None) -> Binaries:
    """The programs of the folder, or of FABRIC_BIN.

    Raises:
        EnvironmentFault: one is missing, or they are of another version line than 3.1.
    """
    named = folder or os.environ.get(FABRIC_BIN, "")
    line = not_run(named)
    if line:
        raise EnvironmentFault(line)
    binaries = Binaries(Path(named).resolve())
    version = binaries.version()
    if version != _SUPPORTED:
        raise EnvironmentFault(f"not run: {FABRIC_BIN} holds Fabric {version}; this network speaks {_SUPPORTED}")
    return binaries
