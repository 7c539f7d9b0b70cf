"""`make up`, `make down`: the real parts as native processes on loopback, kept running by a supervisor in the background.

`python -m infra.up up|down|serve [--state DIR]`; PARTS, BROKERS and LEDGER in the environment choose. `up` installs what is missing, starts the
supervisor (`serve`), waits until every part is truly ready and says where it is. One settings file leads `city serve` and `city run` there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import psutil

from citykit.errors import CityError, EnvironmentFault
from infra.native import cache_folder
from infra.parts import REMARK, Part, Wanted, install, prepare, read_wanted, renew, services_settings
from infra.supervisor import FILE, Supervisor, processes

DEFAULT_STATE = Path(".city/real")
READY_S = 300.0
STOP_S = 90.0
_RENEW_S = 3_600.0
_POLL_S = 0.1
_ENVIRONMENT = 3


def start(wanted: Wanted, supervisor: Supervisor, say: Callable[[str], None]) -> dict[str, str]:
    """Starts the parts and returns once all are ready; the settings that lead there, which are also written to their file.

    Raises:
        EnvironmentFault: a part cannot be made or does not become ready; nothing is left running.
    """
    parts = prepare(wanted)
    for stage in zip_longest(*(part.stages for part in parts)):
        programs = [program for make in stage if make is not None for program in make()]
        say(f"starting {', '.join(program.name for program in programs)}")
        supervisor.start(programs)
    for part in parts:
        part.finish()
    settings = services_settings(wanted)
    for part in parts:
        settings |= part.settings
    _write_settings(wanted, settings, parts)
    for part in parts:
        say(part.where)
    return settings


def _write_settings(wanted: Wanted, settings: Mapping[str, str], parts: Sequence[Part]) -> None:
    remarks = ["# Written by `make up`; `city run --backbone real` and `city serve --settings` read it."]
    remarks += [f"{REMARK}{part.where}" for part in parts]
    text = "\n".join([*remarks, *(f"{name}={value}" for name, value in settings.items())]) + "\n"
    unfinished = wanted.settings_file.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(wanted.settings_file)


# --- in the background --------------------------------------------------------------------------------


def serve(wanted: Wanted) -> int:
    """Keeps the parts running until SIGTERM. Renews certificates as they age."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    supervisor = Supervisor(wanted.state / "logs", _say)
    _write_status(wanted.state, ready=False)
    try:
        start(wanted, supervisor, _say)
        _write_status(wanted.state, ready=True)
        renewed_at = time.monotonic()
        while not ended.wait(_POLL_S) and supervisor.fault is None:
            if time.monotonic() - renewed_at > _RENEW_S:
                renew(wanted)
                renewed_at = time.monotonic()
    finally:
        supervisor.stop()
        _status(wanted.state).unlink(missing_ok=True)
    if supervisor.fault is not None:
        raise supervisor.fault
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _status(state: Path) -> Path:
    return state / "up.json"


def _write_status(state: Path, *, ready: bool) -> None:
    unfinished = state / "up.part"
    unfinished.write_text(json.dumps({"pid": os.getpid(), "ready": ready}), encoding="utf-8")
    unfinished.replace(_status(state))


def running(state: Path) -> int:
    """The supervisor's process id; 0 where none runs."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        pid = int(json.loads(_status(state).read_text(encoding="utf-8"))["pid"])
        if "infra.up" in " ".join(psutil.Process(pid).cmdline()):
            return pid
    return 0


def _is_ready(state: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads(_status(state).read_text(encoding="utf-8"))["ready"])
    return False


# --- in the foreground --------------------------------------------------------------------------------


def up(wanted: Wanted) -> int:
    """Starts the supervisor and returns once all is ready.

    Raises:
        EnvironmentFault: something runs there already, or did not become ready.
    """
    if running(wanted.state):
        raise EnvironmentFault(f"the parts in {wanted.state} run already; `make down` stops them")
    wanted.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    stop_orphans(wanted.state)
    _status(wanted.state).unlink(missing_ok=True)  # of a supervisor that was killed
    install(wanted, _say)
    log = wanted.state / "up.log"
    command = [sys.executable, "-m", "infra.up", "serve", "--state", str(wanted.state)]
    with log.open("wb") as output:
        supervisor = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    _follow(supervisor, wanted.state, log)
    _say(f"settings: {wanted.settings_file}\nlogs: {wanted.state / 'logs'}\nstop everything with: make down")
    return 0


def _follow(supervisor: subprocess.Popen[bytes], state: Path, log: Path) -> None:
    """Shows what the supervisor says until all is ready."""
    end, shown = time.monotonic() + READY_S, 0
    while True:
        ready, ended = _is_ready(state), supervisor.poll() is not None
        text = log.read_bytes()
        sys.stdout.write(text[shown:].decode(errors="replace"))
        sys.stdout.flush()
        shown = len(text)
        if ended:
            raise EnvironmentFault(f"the real parts did not start; see above, and the logs in {state / 'logs'}")
        if ready:
            return
        if time.monotonic() > end:
            supervisor.terminate()
            raise EnvironmentFault(
                f"the real parts were not ready within {READY_S:.0f} s; see the logs in {state / 'logs'}"
            )
        time.sleep(_POLL_S)


def down(state: Path) -> int:
    """Stops supervisor and parts; what they stored stays."""
    pid = running(state)
    if not pid:
        left = stop_orphans(state)
        _say(f"stopped what an earlier start left: {', '.join(left)}" if left else f"nothing runs in {state}")
        return 0
    supervisor = psutil.Process(pid)
    supervisor.terminate()
    try:
        supervisor.wait(STOP_S)
    except psutil.TimeoutExpired:
        raise EnvironmentFault(
            f"the supervisor {pid} did not stop within {STOP_S:.0f} s; kill it, then `make down`"
        ) from None
    _say("stopped")
    return 0


def stop_orphans(state: Path) -> list[str]:
    """Ends what a supervisor that was killed left running; returns the names."""
    found = []
    for name, pid in processes(state / "logs").items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if str(state) in " ".join(process.cmdline()):
                os.killpg(pid, signal.SIGKILL)
                process.wait(STOP_S)
                found.append(name)
    (state / "logs" / FILE).unlink(missing_ok=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="infra.up", description=str(__doc__).splitlines()[0])
    parser.add_argument("act", choices=("up", "down", "serve"))
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE)
    arguments = parser.parse_args(argv)
    try:
        if arguments.act == "down":
            return down(arguments.state.resolve())
        wanted = read_wanted(os.environ, arguments.state, cache_folder())
        return up(wanted) if arguments.act == "up" else serve(wanted)
    except CityError as error:
        print(f"make {arguments.act}: {error.message}", file=sys.stderr, flush=True)
        return _ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main())
