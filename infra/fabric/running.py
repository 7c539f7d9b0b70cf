"""Nodes that run, whoever started them: this process or an earlier `city ledger network up`. Their process ids are kept in the state folder."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import psutil

from citykit.errors import EnvironmentFault
from infra.native import Native, Program

_FILE = "running.json"


class Running:
    """The programs of one state folder.

    A process is known again by its id together with its start time, so that no stranger with a used id is ever stopped.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._ours: dict[str, Native] = {}
        self._notes_lock = threading.Lock()  # nodes are stopped side by side

    def start(self, program: Program) -> None:
        """Starts a program and returns at once; nothing happens where it runs."""
        if self.runs(program.name):
            return
        native = Native(program, self._state / "logs")
        native.start()
        self._ours[program.name] = native
        self._note(program.name, native.pid)

    def wait(self, program: Program) -> None:
        """Returns once the program is ready.

        Raises:
            EnvironmentFault: it ended or was not ready in time.
        """
        native = self._ours.get(program.name)
        if native is not None:
            native.wait()
        elif not self.runs(program.name):
            raise EnvironmentFault(f"{program.name} does not run; start it first")

    def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL."""
        process = self._process(name)
        if name in self._ours:
            self._ours.pop(name).stop()
        elif process is not None:
            process.terminate()
            _wait(process)
        self._forget(name)

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash is."""
        process = self._process(name)
        if name in self._ours:
            self._ours.pop(name).kill()
        elif process is not None:
            process.kill()
            _wait(process)
        self._forget(name)

    def runs(self, name: str) -> bool:
        return self._process(name) is not None

    def pid(self, name: str) -> int:
        """Its process id; 0 where it does not run."""
        process = self._process(name)
        return process.pid if process else 0

    def names(self) -> list[str]:
        """What runs."""
        return [name for name in self._notes() if self.runs(name)]

    def known(self) -> list[str]:
        """What runs, and what has ended without being stopped."""
        return list(dict.fromkeys([*self._notes(), *self._ours]))

    def _process(self, name: str) -> psutil.Process | None:
        noted = self._notes().get(name)
        if noted is None:
            return None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(noted["pid"]))
            if abs(process.create_time() - noted["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def _notes(self) -> dict[str, dict[str, float]]:
        try:
            notes: dict[str, dict[str, float]] = json.loads((self._state / _FILE).read_text())
        except FileNotFoundError:
            return {}
        return notes

    def _note(self, name: str, pid: int) -> None:
        with contextlib.suppress(psutil.Error):  # it ended at once: `wait` tells
            note = {"pid": pid, "started": psutil.Process(pid).create_time()}
            with self._notes_lock:
                self._write({**self._notes(), name: note})

    def _forget(self, name: str) -> None:
        with self._notes_lock:
            self._write({known: note for known, note in self._notes().items() if known != name})

    def _write(self, notes: dict[str, dict[str, float]]) -> None:
        unfinished = self._state / f"{_FILE}.part"
        unfinished.write_text(json.dumps(notes, indent=2) + "\n")
        unfinished.replace(self._state / _FILE)


def _wait(process: psutil.Process) -> None:
    try:
        process.wait(20)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(5)
