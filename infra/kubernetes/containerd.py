"""containerd and the pods' network, inside a node's namespaces. Called by `infra.kubernetes.node`."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.kubernetes.namespaces import Namespaces
from infra.kubernetes.packages import CNI
from infra.native import Program

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:1"
POD_SUBNET = "10.244.0.0/24"
BRIDGE = "cni0"
_READY_S = 60.0
_IMPORT_S = 600.0
_CONNECT_S = 1.0


def containerd(namespaces: Namespaces, folder: Path) -> Program:
    """The program; its images and snapshots are in `folder`."""
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    (folder / "cni" / "10-bridge.conflist").write_text(json.dumps(network()), encoding="utf-8")
    path = folder / "containerd.toml"
    path.write_text(configuration(folder), encoding="utf-8")
    argv = [*namespaces.enter, "containerd", "--config", str(path), "--log-level", "warn"]
    return Program("containerd", argv, lambda: _listens(namespaces), ready_s=_READY_S)


def configuration(folder: Path) -> str:
    """Version 2, which containerd 1.6 and 1.7 read.

    A container may not lower its OOM score where the machine lacks CAP_SYS_RESOURCE: without `restrict_oom_score_adj` no sandbox would start.
    """
    return f"""\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI}"
conf_dir = "{folder}/cni"
"""


def network() -> dict[str, object]:
    """A bridge for the pods, without masquerading: nothing leaves the node."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": POD_SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def import_images(namespaces: Namespaces, archives: Sequence[Path]) -> None:
    """Takes OCI archives over, under the names written in them.

    Raises:
        EnvironmentFault: an archive is not there or is none.
    """
    for archive in archives:
        argv = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", str(archive.resolve())]
        done = namespaces.run(argv, limit_s=_IMPORT_S)
        if done.returncode:
            raise EnvironmentFault(f"containerd does not take the image {archive}: {done.stderr.strip()[-500:]}")


def image_names(namespaces: Namespaces) -> list[str]:
    """References of what is there."""
    argv = ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "list", "--quiet"]
    return namespaces.run(argv).stdout.split()


def _listens(namespaces: Namespaces) -> bool:
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(_CONNECT_S)
        asked.connect(str(namespaces.root) + SOCKET)
    return True
