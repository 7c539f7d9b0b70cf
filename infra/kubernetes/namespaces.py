"""Namespaces of a node's own: network, mounts, processes, host name, IPC. The machine's firewall, routes, `/run` and mounts stay untouched.

Called by `infra.kubernetes.node`. One kill removes everything inside; the cgroups are removed afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.kubernetes import first
from infra.kubernetes.asking import until

_READY_S = 30.0
_RUN_S = 600.0
_CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "provable-city-"
_OF_CONTAINERD = "k8s.io"
_DEPTH_MAX = 12
_ADMIN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Namespaces:
    """One set.

    Attributes:
        pid: of the first process, as the machine numbers it.
        cgroup: the name of this node's cgroup, in every hierarchy.
    """

    def __init__(self, folder: Path, hostname: str, address: str, services: str) -> None:
        self._folder = folder
        self._first = ["--folder", str(folder), "--hostname", hostname, "--address", address, "--services", services]
        self.pid = 0
        self.cgroup = cgroup_name(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once the network is there.

        Raises:
            EnvironmentFault: the kernel refuses, or a program is missing; with what was said.
        """
        log, ready = self._folder / "namespaces.log", self._folder / "namespaces.ready"
        ready.unlink(missing_ok=True)
        kinds = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child=KILL"]
        argv = ["unshare", *kinds, "--propagation", "private", sys.executable, "-P", first.__file__, *self._first]
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment(), start_new_session=True
            )
        try:
            until(lambda: ready.exists() or not self.runs(), "the namespaces are not ready", _READY_S)
        finally:
            self.pid = self._child()
        if not self.runs() or not self.pid:
            self.stop()
            raise EnvironmentFault(f"no namespaces could be made: {log.read_text(errors='replace').strip()[-1_000:]}")
        make_cgroup(self.cgroup)

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def enter(self) -> list[str]:
        """Words before a command line that run it inside; its folder is `/` there."""
        return entering(self.pid)

    @property
    def root(self) -> Path:
        """The root folder as it is inside, `/run` among it."""
        return Path(f"/proc/{self.pid}/root")

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        limit_s: float = _RUN_S,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside to its end; never raises for its exit code.

        Args:
            extra: more variables of its environment.

        Raises:
            subprocess.TimeoutExpired: it took longer than `limit_s`.
        """
        return subprocess.run(  # noqa: S603 - the caller's own words
            [*self.enter, *argv],
            input=stdin, env=environment() | dict(extra or {}), capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip

    def stop(self) -> None:
        """Ends everything inside."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        if self.pid:
            until(lambda: not Path(f"/proc/{self.pid}").exists(), "the namespaces do not end", _READY_S)
        remove_cgroups(self.cgroup)

    def _child(self) -> int:
        if self._process is None:
            return 0
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(path.read_text(encoding="ascii").split()[0])
        return 0


def cgroup_name(folder: Path) -> str:
    """The same for the same folder, so that what was left over is found."""
    return f"{_PREFIX}{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def entering(pid: int) -> list[str]:
    """Words before a command line that run it in the namespaces of a process."""
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--uts", "--ipc", "--"]


def environment() -> dict[str, str]:
    """This process's, with the folders of an administrator's programs on the PATH."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_ADMIN_PATH}"}


def make_cgroup(name: str, top: Path = _CGROUPS) -> None:
    """A cgroup of this name in every hierarchy (version 1), or in the one (version 2)."""
    if (top / "cgroup.controllers").exists():
        wanted = (top / "cgroup.controllers").read_text(encoding="ascii").split()
        with contextlib.suppress(OSError):  # those that are on already are enough, or the kubelet will say so
            (top / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in wanted), encoding="ascii")
        (top / name).mkdir(exist_ok=True)
        return
    for hierarchy in _hierarchies(top):
        with contextlib.suppress(OSError):  # `unified` has no controllers
            (hierarchy / name).mkdir(exist_ok=True)


def remove_cgroups(name: str, top: Path = _CGROUPS) -> None:
    """Removes a node's cgroups; and containerd's, which all nodes share, with the last of them."""
    for hierarchy in (*_hierarchies(top), top):
        others = [path for path in hierarchy.glob(f"{_PREFIX}*") if path.name != name]
        for one in (hierarchy / name, *([] if others else [hierarchy / _OF_CONTAINERD])):
            for folder in sorted(_below(one), key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):  # somebody else's, or gone
                    folder.rmdir()


def _below(top: Path) -> list[Path]:
    """A folder and all folders below it."""
    found = [Path(path) for path, _, _ in os.walk(top)]
    return [path for path in found if len(path.parts) - len(top.parts) < _DEPTH_MAX]


def _hierarchies(top: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink() and _is_root(path))
    return []


def _is_root(path: Path) -> bool:
    """Whether this is the root of a hierarchy, not a cgroup of version 2."""
    return os.path.ismount(path)
