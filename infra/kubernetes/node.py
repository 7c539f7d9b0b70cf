"""A whole cluster with one real node, in namespaces of its own: control plane, containerd, kubelet, kube-proxy, CoreDNS. About 20 s, 0.9 GB.

`with node(folder, cache, images=[...]) as started:` is what tests/cluster/node and `python -m infra.kubernetes up --node` use. Needs root
(`infra.kubernetes.packages.refusal` says what else); ending one process removes all of it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.kubernetes import packages
from infra.kubernetes.asking import Asking, until
from infra.kubernetes.components import LOOPBACK, SERVICE_RANGE, Place
from infra.kubernetes.containerd import PAUSE, containerd, image_names, import_images
from infra.kubernetes.control_plane import READY_S, Cluster
from infra.kubernetes.firewall import Firewall
from infra.kubernetes.forward import Way
from infra.kubernetes.kubelet import coredns, dns_objects, kube_proxy, kubelet
from infra.kubernetes.kwok import is_ready
from infra.kubernetes.namespaces import Namespaces
from infra.kubernetes.network_policies import Pod
from infra.kubernetes.ports import HeldPorts
from infra.native import Native, Program, listens

NAME, ADDRESS = "node1", "10.250.0.2"
API_PORT = 6443
DNS = Pod("kube-system", "kube-dns", ADDRESS, {"k8s-app": "kube-dns"}, {("UDP", "dns"): 53, ("TCP", "dns-tcp"): 53})
"""CoreDNS is a process of the node; policies know it by the labels of its pods elsewhere."""
_LABELS = {"topology.kubernetes.io/zone": "zone-1", "topology.kubernetes.io/region": "city"}


class Node:
    """A cluster with one node that runs.

    Attributes:
        firewall: what the cluster's NetworkPolicies are held with.
        cluster: its control plane; `cluster.kubeconfig` and all others lead there from the machine too.
        ready_s: seconds from nothing until pods may come; `steps_s` says what took how long.
    """

    def __init__(self, folder: Path, cache: Path, extra: Mapping[str, Sequence[str]] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)  # pods of any user reach their volumes through it
        self.folder = folder
        self.namespaces = Namespaces(folder, NAME, ADDRESS, SERVICE_RANGE)
        self._cache, self._extra = cache, dict(extra or {})
        self._held = HeldPorts()
        self._ways: dict[str, Native] = {}
        self._containerd: Native | None = None
        self._cluster: Cluster | None = None
        self.firewall = Firewall(self.namespaces, [DNS], lambda: Asking(self.kubeconfig))
        self.ready_s = 0.0
        self.steps_s: dict[str, float] = {}

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise EnvironmentFault("the node was not started; start it first")
        return self._cluster

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    def start(self, images: Sequence[Path]) -> None:
        """Returns once the node is ready and the images are there.

        Args:
            images: OCI archives.

        Raises:
            EnvironmentFault: this machine can have no node, a program is not built, something does not become ready.
        """
        if reason := packages.refusal():
            raise EnvironmentFault(reason)
        began = time.monotonic()
        self._step("namespaces", self.namespaces.start)
        place = Place(self.namespaces.enter, ADDRESS, API_PORT, self._extra)
        self._cluster = cluster = Cluster(self.folder, self._cache, place)
        self._forward(Way(cluster.ports.outside, LOOPBACK, cluster.ports.api))
        with ThreadPoolExecutor(1) as beside:
            importing = beside.submit(self._step, "images", lambda: self._import(images))
            self._step("control plane", cluster.start)
            importing.result()
        self._step("node", self._join)
        self.ready_s = time.monotonic() - began

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        limit_s: float = 600.0,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the node's namespaces, where pods and services have their addresses; its folder is `/` there."""
        return self.namespaces.run(argv, stdin=stdin, limit_s=limit_s, extra=extra)

    def python(self, program: str, *words: str, limit_s: float = 600.0) -> subprocess.CompletedProcess[str]:
        """Runs a Python program with this project's packages in the node's namespaces."""
        return self.run([sys.executable, "-c", program, *words], limit_s=limit_s, extra={"PYTHONPATH": _PROJECT})

    def forward(self, host: str, port: int) -> int:
        """A port of the machine's loopback that leads to an address inside, until the node ends.

        Args:
            host: an IP address; names of the cluster are not known outside.
        """
        name = f"{host}:{port}"
        if name not in self._ways:
            self._forward(Way(self._held.take(), host, port))
        return int(Way.read(self._ways[name].program.argv[-1]).listen)

    def forward_service(self, namespace: str, name: str, port: int) -> int:
        """The same to a Service; to its first ready pod where the Service is headless, as long as that pod lives.

        Raises:
            EnvironmentFault: there is none, or it has no pod.
        """
        found = self.cluster.asking.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        if found is None:
            raise EnvironmentFault(f"there is no Service {name} in {namespace}; say another")
        address = str(found["spec"].get("clusterIP") or "None")
        return self.forward(self._first_pod(namespace, name) if address == "None" else address, port)

    def resident_mb(self) -> dict[str, float]:
        """Resident memory of the node's own programs, MB; pods are not among them."""
        own = {"containerd": self._containerd.pid} if self._containerd is not None else {}
        return self.cluster.resident_mb(own)

    def images(self) -> list[str]:
        """References of the images that are there."""
        return image_names(self.namespaces)

    def add_images(self, archives: Sequence[Path]) -> None:
        """Takes more OCI archives over."""
        import_images(self.namespaces, archives)

    def stop(self) -> None:
        """Ends everything inside, pods too; the folder stays."""
        self.firewall.stop()
        if self._cluster is not None:
            self._cluster.supervisor.kill()
        for way in self._ways.values():
            way.kill()
        self.namespaces.stop()
        if self._containerd is not None:
            self._containerd.kill()
        if self._cluster is not None:
            self._cluster.stop()
        self._held.release()

    def _import(self, images: Sequence[Path]) -> None:
        self._containerd = Native(containerd(self.namespaces, self.folder), self.folder / "logs")
        self._containerd.start()
        self._containerd.wait()
        import_images(self.namespaces, [pause_archive(self.folder), *images])
        if PAUSE not in self.images():
            raise EnvironmentFault(f"containerd has no image {PAUSE}, without which no pod starts; build it again")

    def _join(self) -> None:
        cluster, inside = self.cluster, self.namespaces
        for document in dns_objects(ADDRESS):
            cluster.asking.apply(document)
        programs = [
            kubelet(cluster, inside, NAME, ADDRESS),
            kube_proxy(cluster, inside, NAME),
            coredns(cluster, inside, ADDRESS),
        ]
        cluster.supervisor.start(programs)
        path = f"/api/v1/nodes/{NAME}"
        until(lambda: is_ready(cluster.asking.get(path) or {}), "the node does not become ready", READY_S)
        self.firewall.start()
        cluster.asking.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": _LABELS}})

    def _forward(self, way: Way) -> None:
        name = f"{way.host}:{way.port}"
        argv = [sys.executable, "-m", "infra.kubernetes.forward", str(self.namespaces.pid), str(way)]
        program = Program(
            f"forward-{way.listen}", argv, lambda: listens(way.listen), cwd=Path(_PROJECT), ready_s=READY_S
        )
        self._ways[name] = native = Native(program, self.folder / "logs")
        native.start()
        native.wait()

    def _first_pod(self, namespace: str, service: str) -> str:
        label = f"kubernetes.io%2Fservice-name%3D{service}"
        slices = self.cluster.asking.items(
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}"
        )
        for endpoint in (one for found in slices for one in found.get("endpoints") or []):
            if (endpoint.get("conditions") or {}).get("ready"):
                return str(endpoint["addresses"][0])
        raise EnvironmentFault(f"Service {service} in {namespace} has no ready pod; wait for one")

    def _step(self, name: str, act: Callable[[], None]) -> None:
        began = time.monotonic()
        act()
        self.steps_s[name] = time.monotonic() - began


_PROJECT = str(Path(__file__).resolve().parents[2])


@contextmanager
def node(
    folder: Path, cache: Path, images: Sequence[Path] = (), extra: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Node]:
    """Starts a cluster with one real node, and ends it with everything in it.

    Args:
        folder: for its state; must be new, and on a file system that overlayfs can lie on.
        cache: where `infra.kubernetes.install` built the programs.
        images: OCI archives that pods may use, with `imagePullPolicy: Never` or `IfNotPresent`; no registry is reached.
        extra: more flags for a program of the control plane, by its name.

    Raises:
        EnvironmentFault: this machine can have no node, a program is not built, something does not become ready.
    """
    started = Node(folder.resolve(), cache, extra)
    try:
        started.start(images)
        yield started
    finally:
        started.stop()


def pause_archive(folder: Path) -> Path:
    """The image of the process that holds a pod's namespaces, built where it is missing.

    Raises:
        EnvironmentFault: it cannot be built.
    """
    out = folder / "images"
    argv = [sys.executable, "-m", "infra.image", "build", "pause", "--out", str(out)]
    done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode:
        raise EnvironmentFault(f"the image {PAUSE} cannot be built: {done.stderr.strip()[-600:]}")
    return next(out.glob("pause-*.tar"))
