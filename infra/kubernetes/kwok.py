"""Pretended nodes: kwok says of their pods that they run, without running anything (https://kwok.sigs.k8s.io). For the API tier.

What it says when stands in its own stage files, which are read from its Go module at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.kubernetes.asking import Asking
from infra.kubernetes.install import module_folder, program, required_version
from infra.native import Program

MODULE = "sigs.k8s.io/kwok"
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
NOTE = "kwok.x-k8s.io/node"
"""The annotation of nodes that are pretended."""
_ROOM = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}


def kwok(cache: Path, kubeconfig: Path) -> Program:
    """The program. Run it under a supervisor: it has a race at its start that ends it now and then, seldom on one processor.

    Raises:
        EnvironmentFault: it is not built, or its module cannot be had.
    """
    stages = module_folder(MODULE, required_version("kwok", MODULE)) / "kustomize" / "stage"
    argv = [
        str(program(cache, "kwok")), f"--kubeconfig={kubeconfig}",
        f"--manage-nodes-with-annotation-selector={NOTE}=fake", "--node-ip=127.0.0.1", "--node-port=0",
        "--node-lease-duration-seconds=40", "--cidr=10.99.0.0/16", *(f"--config={stages / one}" for one in STAGES),
    ]  # fmt: skip
    return Program("kwok", argv, lambda: True, env={"GOMAXPROCS": "1"})


def pretend_nodes(api: Asking, count: int) -> list[str]:
    """Creates nodes, each in a zone of its own; returns their names."""
    names = [f"pretended-{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names, start=1):
        api.create("/api/v1/nodes", node(name, f"zone-{number}"))
    return names


def node(name: str, zone: str) -> dict[str, Any]:
    """A node with room for everything."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {NOTE: "fake"},
            "labels": {**labels, "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "city"},
        },
        "status": {"capacity": _ROOM, "allocatable": _ROOM},
    }


def is_ready(found: dict[str, Any]) -> bool:
    """Whether a node says so."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
