"""Native programs on loopback: started, waited for until they are truly ready, stopped, killed. Used by every part, `make up` and the tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from citykit.errors import EnvironmentFault

_POLL_S = 0.05
_GONE_S = 10.0
_TAIL_BYTES = 2_000
_PORTS, _PORT_TRIES = range(20_000, 32_000), 1_000


@dataclass(frozen=True)
class Program:
    """One process of a part.

    Attributes:
        ready: true once the program serves; asked again and again, may raise OSError while it does not.
        ready_s: after this long it is given up.
        stop_signal: what asks it to end; SIGKILL follows after `stop_s`.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ready_s: float = 60.0
    stop_s: float = 15.0
    stop_signal: signal.Signals = signal.SIGTERM


class Native:
    """A program that was started, with its output in `<folder>/<name>.log`."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.log = folder / f"{program.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 where it does not run."""
        return self._process.pid if self.runs() and self._process else 0

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the program without waiting for it. It gets a process group of its own, so a Ctrl-C is the supervisor's alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command lines
                list(self.program.argv),
                cwd=self.program.cwd,
                env={**os.environ, **self.program.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Returns once the program is ready.

        Raises:
            EnvironmentFault: it ended, or was not ready in time; with the end of its log.
        """
        end = time.monotonic() + self.program.ready_s
        while not self._is_ready():
            if not self.runs():
                raise EnvironmentFault(
                    f"{self.program.name} ended while it started; its log {self.log} ends:\n{self.tail()}"
                )
            if time.monotonic() > end:
                self.kill()
                raise EnvironmentFault(
                    f"{self.program.name} was not ready within {self.program.ready_s:.0f} s; its log {self.log} ends:\n{self.tail()}"
                )
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Its stop signal, then SIGKILL after `stop_s`. Nothing happens where it does not run."""
        if self._process is None or not self.runs():
            return
        self._signal(self.program.stop_signal)
        try:
            self._process.wait(self.program.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the program and all it started, in whatever session, as a crash of its machine is: nothing of it holds a port or memory."""
        if self._process is not None:
            started = descendants(self._process.pid) if self.runs() else []
            self._signal(signal.SIGKILL)
            for child in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.wait()
            psutil.wait_procs(started, timeout=_GONE_S)

    def tail(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""

    def _is_ready(self) -> bool:
        try:
            return self.runs() and self.program.ready()
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return


def descendants(pid: int) -> list[psutil.Process]:
    """What a process started, and what those did; none where it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def free_port() -> int:
    """A TCP port of loopback that nobody uses now, and that no outgoing connection will take: those come from 32,768 on."""
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EnvironmentFault(f"no free port was found from {_PORTS.start} to {_PORTS.stop}; stop what uses them")


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of loopback."""
    with socket.socket() as asked:
        asked.settimeout(1.0)
        return asked.connect_ex(("127.0.0.1", port)) == 0


def cache_folder() -> Path:
    """Where installed parts are kept: `${XDG_CACHE_HOME:-~/.cache}/provable-city`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "provable-city"
