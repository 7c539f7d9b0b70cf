"""A real control plane on loopback: etcd, API server, controllers, scheduler, and pretended nodes. About 5 s on two quiet cores, 0.5 GB.

`with control_plane(folder, cache) as cluster:` is what the fixture `cluster` of tests/cluster and `python -m infra.kubernetes` use; a node with real
pods (`infra.kubernetes.node`) starts the same programs in namespaces of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.kubernetes import components
from infra.kubernetes.asking import Asking, until
from infra.kubernetes.components import ADMIN, Place, Ports
from infra.kubernetes.install import program
from infra.kubernetes.kwok import is_ready, kwok, pretend_nodes
from infra.kubernetes.pki import Pki, create, write_kubeconfig
from infra.kubernetes.ports import HeldPorts
from infra.kubernetes.volumes import answering, storage_class
from infra.native import Native, Program
from infra.supervisor import Supervisor, processes

READY_S = 180.0
"""A machine that builds something besides is ten times as slow as a quiet one."""
_STOP_S = 3.0
"""The API server waits a minute for its watches if it is let; they are broken instead, as in a crash."""
_ACCOUNT = "serviceaccounts/default"


class ApiServer:
    """The API server's process, for those who break it on purpose."""

    def __init__(self, native: Native) -> None:
        self._native = native

    @property
    def pid(self) -> int:
        return self._native.pid

    def pause(self) -> None:
        """It accepts connections and answers nothing, until `resume`."""
        os.killpg(self._native.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._native.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Connections are refused until `start`."""
        self._end(self._native.stop)

    def kill(self) -> None:
        """The same without asking, as in a crash."""
        self._end(self._native.kill)

    def start(self) -> None:
        """Returns once it is ready.

        Raises:
            EnvironmentFault: it is not within READY_S.
        """
        self._native.start()
        self._native.wait()

    def restart(self) -> None:
        """Watches break; what was stored is there again."""
        self.stop()
        self.start()

    def _end(self, act: Callable[[], None]) -> None:
        """Where the program is entered into namespaces, it is a child that outlives its parent a moment and holds the port so long."""
        inside = _tree(self._native.pid)
        act()
        _, left = psutil.wait_procs(inside, _STOP_S)
        for process in left:
            process.kill()
        psutil.wait_procs(left, _STOP_S)


class Cluster:
    """A control plane that runs.

    Attributes:
        kubeconfig: of the administrator.
        server: `https://127.0.0.1:PORT`.
        ready_s: seconds from the start of the first program until everything was ready.
    """

    def __init__(self, folder: Path, cache: Path, place: Place | None = None) -> None:
        self.folder, self.cache, self.place = folder, cache, place or Place()
        self.pki: Pki = create(folder / "pki")
        self._held = HeldPorts()
        self.ports = Ports.take(self._held, self.place)
        self.server = self.ports.server
        self.ready_s = 0.0
        components.issue_all(self.pki, self.place)
        self.kubeconfig = self._kubeconfig(ADMIN)
        self.asking = Asking(self.kubeconfig)
        self._etcd = Native(self._program("etcd", components.etcd(self.pki, self.ports, folder / "etcd")), self.logs)
        flags = components.api_server(self.pki, self.ports, self.place)
        self._api = Native(self._program("kube-apiserver", flags), self.logs)
        self.api = ApiServer(self._api)
        self.supervisor = Supervisor(self.logs)
        self._volumes = answering(folder / "volumes", lambda: Asking(self.kubeconfig))
        self._numbers = itertools.count(1)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def start(self) -> None:
        """Returns once it is ready for pods.

        Raises:
            EnvironmentFault: a program is not built or does not become ready.
        """
        began = time.monotonic()
        self._etcd.start()
        self._api.start()
        paths = {name: self.kubeconfig_of(name) for name in ("controllers", "scheduler")}
        flags = components.controllers(self.pki, self.ports, paths["controllers"])
        scheduler = components.scheduler(self.ports, paths["scheduler"])
        # both end where the API server is not ready soon enough: the supervisor starts them again
        self.supervisor.start(
            [self._program("kube-controller-manager", flags), self._program("kube-scheduler", scheduler)]
        )
        self._api.wait()
        until(lambda: self._has_account("default"), "the controllers make no service accounts", READY_S)
        self.asking.apply(storage_class())
        self._volumes.start()
        self.ready_s = time.monotonic() - began

    def add_pretended_nodes(self, count: int) -> None:
        """kwok, and nodes that it looks after; returns once they are ready."""
        began = time.monotonic()
        self.supervisor.start([kwok(self.cache, self.kubeconfig)])
        names = pretend_nodes(self.asking, count)
        until(lambda: all(self._is_ready(name) for name in names), "the pretended nodes do not become ready", READY_S)
        self.ready_s += time.monotonic() - began

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), namespace: str = "default") -> Path:
        """A kubeconfig with a client certificate of a user, who has no right but those that RBAC gives."""
        wanted = "\0".join((user, *groups, namespace)).encode()
        name = f"user-{hashlib.sha256(wanted).hexdigest()[:12]}"
        if not self.pki.certificate(name).exists():
            self.pki.issue(name, user, groups)
        return self._kubeconfig(name, namespace)

    def namespace(self, prefix: str = "test") -> str:
        """A new namespace; returns its name once pods can be made there."""
        name = f"{prefix}-{os.getpid()}-{next(self._numbers)}"
        self.asking.create("/api/v1/namespaces", {"metadata": {"name": name}})
        until(lambda: self._has_account(name), f"namespace {name} gets no service account", READY_S)
        return name

    def delete_namespace(self, name: str) -> None:
        """Asks for its end and does not wait for it."""
        self.asking.delete(f"/api/v1/namespaces/{name}")

    def restart_api_server(self) -> None:
        self.api.restart()

    def kubeconfig_of(self, name: str) -> Path:
        """The kubeconfig of a program of the cluster, whose name's certificate was issued in `pki`."""
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", self.ports.inner_server, self.pki, name)

    def resident_mb(self, besides: Mapping[str, int] | None = None) -> dict[str, float]:
        """Resident memory of each program, MB.

        Args:
            besides: process ids of further programs, by name.
        """
        natives = {"etcd": self._etcd.pid, "kube-apiserver": self._api.pid, **(besides or {})}
        return {name: _tree_mb(pid) for name, pid in {**natives, **processes(self.logs)}.items() if pid}

    def stop(self) -> None:
        """Everything; the folder stays."""
        self._volumes.stop()
        self.supervisor.stop()
        if self._api.runs():
            self.api.resume()
        self.api.stop()
        self._etcd.stop()
        self.asking.close()
        self._held.release()

    def _program(self, name: str, flags: Sequence[str]) -> Program:
        argv = [*self.place.enter, str(program(self.cache, name)), *flags, *self.place.extra.get(name, ())]
        asked = self.asking.ready if name == "kube-apiserver" else lambda: True
        return Program(name, argv, asked, ready_s=READY_S, stop_s=_STOP_S)

    def _kubeconfig(self, name: str, namespace: str = "default") -> Path:
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", self.server, self.pki, name, namespace)

    def _has_account(self, namespace: str) -> bool:
        return self.asking.get(f"/api/v1/namespaces/{namespace}/{_ACCOUNT}") is not None

    def _is_ready(self, node: str) -> bool:
        return is_ready(self.asking.get(f"/api/v1/nodes/{node}") or {})


@contextmanager
def control_plane(folder: Path, cache: Path, *, nodes: int = 3, place: Place | None = None) -> Iterator[Cluster]:
    """Starts a control plane, and stops it at the end.

    Args:
        folder: for its state; must be new.
        cache: where `infra.kubernetes.install` built the programs.
        nodes: how many are pretended; 0: no kwok.

    Raises:
        EnvironmentFault: a program is not built or does not become ready.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster = Cluster(folder, cache, place)
    try:
        cluster.start()
        if nodes:
            cluster.add_pretended_nodes(nodes)
        yield cluster
    finally:
        cluster.stop()


def _tree_mb(pid: int) -> float:
    """A process with its children: with namespaces in between, the program is the child."""
    try:
        return float(sum(one.memory_info().rss for one in _tree(pid)) / 1e6)
    except psutil.Error:
        return 0.0


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)] if pid else []
    except psutil.Error:
        return []
