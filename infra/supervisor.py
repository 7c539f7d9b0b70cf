"""Keeps native programs running: starts them, starts again what dies, stops them in reverse. Used by `make up`, `city run` and tests.

What runs stands in `<folder>/processes.json`, so that others can find it (and the crash suite kill it).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.native import Native, Program

LOOK_S = 0.1
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 10.0
STARTS_MAX = 20
"""Starts in a row that did not last, three minutes at least: a service waits so long for its broker. Then it is given up, and everything with it."""
LASTED_S = 30.0
FILE = "processes.json"


@dataclass
class _Kept:
    """A program, how often it was started again, and when it may be next."""

    native: Native
    restarts: int = 0
    in_a_row: int = 0
    started_at: float = field(default_factory=time.monotonic)
    not_before: float = 0.0


class Supervisor:
    """One set of programs.

    Args:
        folder: for logs and `processes.json`.
        say: one line for whoever started it.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._folder = folder
        self._say = say
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._watching: threading.Thread | None = None
        self.fault: EnvironmentFault | None = None

    def start(self, programs: Iterable[Program]) -> None:
        """Starts programs beside each other and returns once all are ready; from then on they are kept running.

        Raises:
            EnvironmentFault: one did not become ready; everything is stopped then.
        """
        begun = [Native(program, self._folder) for program in programs]
        try:
            with self._lock:
                for native in begun:
                    self._begin(native)
                    self._kept[native.program.name] = _Kept(native)
            for native in begun:
                native.wait()
        except EnvironmentFault:
            self.stop()
            raise
        self._write()
        if self._watching is None:
            self._watching = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watching.start()

    def stop(self) -> None:
        """Everything, the last started first."""
        self._stopping.set()
        if self._watching is not None and self._watching is not threading.current_thread():
            self._watching.join()
        with self._lock:
            for kept in reversed(self._kept.values()):
                kept.native.stop()
            self._kept.clear()
        (self._folder / FILE).unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL to everything, as a power cut would."""
        self._stopping.set()
        if self._watching is not None:
            self._watching.join()
        for kept in self._kept.values():
            kept.native.kill()

    def restarts(self) -> dict[str, int]:
        """How often each program was started again."""
        with self._lock:
            return {name: kept.restarts for name, kept in self._kept.items()}

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_S):
            with self._lock:
                for kept in self._kept.values():
                    if self._stopping.is_set():
                        return
                    self._look(kept)
            if self.fault is not None:
                return

    def _look(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.native.runs():
            return
        name = kept.native.program.name
        if not kept.not_before:
            kept.in_a_row = 0 if now - kept.started_at > LASTED_S else kept.in_a_row + 1
            if kept.in_a_row >= STARTS_MAX:
                self._give_up(kept)
                return
            kept.not_before = now + min(BACKOFF_FIRST_S * 2**kept.in_a_row, BACKOFF_MAX_S)
            self._say(f"{name} ended; it is started again")
        elif now >= kept.not_before:
            try:
                self._begin(kept.native)
            except EnvironmentFault as fault:
                self.fault = fault
                return
            kept.restarts, kept.started_at, kept.not_before = kept.restarts + 1, now, 0.0
            self._write()

    def _begin(self, native: Native) -> None:
        try:
            native.start()
        except OSError as error:
            raise EnvironmentFault(
                f"{native.program.name} cannot be started ({error.strerror}: {native.program.argv[0]})"
            ) from error

    def _give_up(self, kept: _Kept) -> None:
        name = kept.native.program.name
        self.fault = EnvironmentFault(
            f"{name} ended {STARTS_MAX} times within {LASTED_S:.0f} s of its start; its log {kept.native.log} ends:\n{kept.native.tail()}"
        )
        self._say(self.fault.message)

    def _write(self) -> None:
        with self._lock:
            document = {
                name: {"pid": kept.native.pid, "restarts": kept.restarts, "log": str(kept.native.log)}
                for name, kept in self._kept.items()
            }
        unfinished = self._folder / f"{FILE}.part"
        unfinished.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self._folder / FILE)


def processes(folder: Path) -> dict[str, int]:
    """Name to process id of what a supervisor of this folder runs; empty where none does."""
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {name: int(one["pid"]) for name, one in document.items()}
    return {}
