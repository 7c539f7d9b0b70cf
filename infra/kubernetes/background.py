"""A cluster that goes on after the command that started it: a process in the background holds it. Called by `python -m infra.kubernetes`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from citykit.errors import EnvironmentFault
from infra.kubernetes.control_plane import control_plane
from infra.kubernetes.namespaces import cgroup_name, remove_cgroups
from infra.kubernetes.node import node

START_S = 900.0
"""Images of gigabytes are unpacked in this time too."""
STOP_S = 60.0
_POLL_S = 0.1
_LINGER_S = 5.0


@dataclass(frozen=True)
class Running:
    """What a background process says of its cluster.

    Attributes:
        kubeconfig: of the administrator; empty until the cluster is ready.
        ready_s: seconds it took.
    """

    pid: int
    kubeconfig: str = ""
    ready_s: float = 0.0
    with_node: bool = False


def read(state: Path) -> Running | None:
    """What runs in a state folder; None where nothing does."""
    with contextlib.suppress(OSError, ValueError, TypeError, psutil.Error):
        found = Running(**json.loads(_file(state).read_text(encoding="utf-8")))
        if "infra.kubernetes" in " ".join(psutil.Process(found.pid).cmdline()):
            return found
    return None


def start(state: Path, *, with_node: bool, images: Sequence[Path], say: Callable[[str], None]) -> Running:
    """Starts a cluster and returns once it is ready. What an earlier cluster of this folder held is forgotten.

    Raises:
        EnvironmentFault: one runs there already, or this one does not become ready.
    """
    if read(state):
        raise EnvironmentFault(f"a cluster runs in {state} already; `python -m infra.kubernetes down` ends it")
    end_left_over(state)
    _file(state).unlink(missing_ok=True)
    shutil.rmtree(state / "cluster", ignore_errors=True)
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    words = ["serve", "--state", str(state), *(["--node"] if with_node else [])]
    words += [word for image in images for word in ("--image", str(image))]
    log = state / "cluster.log"
    say(f"starting; logs are in {state / 'cluster' / 'logs'}")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "infra.kubernetes", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    return _followed(process, state, log)


def stop(state: Path) -> str:
    """Ends the cluster of a folder; what was done, in a line.

    Raises:
        EnvironmentFault: it does not end.
    """
    found = read(state)
    if found is None:
        left = end_left_over(state)
        return f"ended what an earlier cluster left: {', '.join(left)}" if left else f"no cluster runs in {state}"
    process = psutil.Process(found.pid)
    process.terminate()
    try:
        process.wait(STOP_S)
    except psutil.TimeoutExpired:
        raise EnvironmentFault(f"process {found.pid} does not end within {STOP_S:.0f} s; kill it, then again") from None
    return "ended"


def serve(state: Path, cache: Path, *, with_node: bool, images: Sequence[Path]) -> None:
    """Holds a cluster until SIGTERM.

    Raises:
        EnvironmentFault: it does not become ready, or a program ends again and again.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    _write(state, Running(os.getpid(), with_node=with_node))
    try:
        with _held(state / "cluster", cache, with_node, images) as found:
            _write(state, found)
            ended.wait()
    finally:
        _file(state).unlink(missing_ok=True)


def end_left_over(state: Path) -> list[str]:
    """Ends what a background process that was killed left running; names of the programs.

    They are known by the state folder in their command lines: every program of a cluster has it there.
    """
    mark = f"{state / 'cluster'}{os.sep}"
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        words = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(mark in word for word in words):
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(_LINGER_S)
                found.append(str(process.info["name"]))
    remove_cgroups(cgroup_name(state / "cluster"))
    return sorted(set(found))


@contextmanager
def _held(folder: Path, cache: Path, with_node: bool, images: Sequence[Path]) -> Iterator[Running]:
    if with_node:
        with node(folder, cache, images) as started:
            yield Running(os.getpid(), str(started.kubeconfig), started.ready_s, with_node)
    else:
        with control_plane(folder, cache) as cluster:
            yield Running(os.getpid(), str(cluster.kubeconfig), cluster.ready_s, with_node)


def _followed(process: subprocess.Popen[bytes], state: Path, log: Path) -> Running:
    end = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        if (found := read(state)) and found.kubeconfig:
            return found
        if ended:
            raise EnvironmentFault(f"the cluster did not start: {log.read_text(errors='replace').strip()[-1_500:]}")
        if time.monotonic() > end:
            process.terminate()
            raise EnvironmentFault(f"the cluster was not ready within {START_S:.0f} s; see {log}")
        time.sleep(_POLL_S)


def _file(state: Path) -> Path:
    return state / "cluster.json"


def _write(state: Path, running: Running) -> None:
    unfinished = _file(state).with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(running)), encoding="utf-8")
    unfinished.replace(_file(state))
