"""The node itself: pods answer by name, keep what they store, start again, obey NetworkPolicies; nothing of it is left on the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.kubernetes.asking import until
from infra.kubernetes.node import Node, node
from infra.native import cache_folder
from tests.cluster.conftest import Tool
from tests.cluster.node.tiny import PORT, REFERENCE, tiny_archive

WAIT_S = 90.0


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_archive(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def ready(node: Node, tiny: Path) -> Node:
    """The node with the tiny image."""
    node.add_images([tiny])
    return node


def app(name: str, replicas: int = 1, **pod: Any) -> list[dict[str, Any]]:
    """A Deployment under the restricted policy, and its Service on port 80."""
    labels = {"app": name}
    container = {
        "name": "tiny",
        "image": REFERENCE,
        "imagePullPolicy": "Never",
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **pod.pop("container", {}),
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        **pod,
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
    ]


def deploy(here: Tool, *names: str, **options: Any) -> None:
    here.apply(*(one for name in names for one in app(name, **options)))
    for name in names:
        here("rollout", "status", f"deployment/{name}", f"--timeout={WAIT_S:.0f}s")


def asker(node: Node, namespace: str, name: str) -> Callable[[str], str]:
    """Asks from inside a pod; empty where the pod gets no answer."""
    port = node.forward_service(namespace, name, 80)

    def ask(url: str) -> str:
        answer = httpx.get(f"http://127.0.0.1:{port}/ask", params={"url": url}, timeout=20, trust_env=False)
        return answer.text if answer.is_success else ""

    return ask


def test_two_replicas_answer_by_the_name_of_their_service(ready: Node, kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    deploy(here, "shown", replicas=2)
    pods = {one["metadata"]["name"] for one in here.read("get", "pods")["items"]}
    ask = asker(ready, namespace, "shown")
    answered: set[str] = set()

    def all_answered() -> bool:
        answered.update(ask(f"http://{name}/") for name in ("shown", f"shown.{namespace}.svc.cluster.local"))
        return answered >= pods

    until(_patient(all_answered), f"not every pod of {pods} answers", WAIT_S)
    assert answered - {""} == pods


def test_a_program_in_the_namespaces_reaches_pods_by_their_addresses(
    ready: Node, kubectl: Tool, namespace: str
) -> None:
    here = kubectl.within(namespace)
    deploy(here, "shown")
    (pod,) = here.read("get", "pods")["items"]
    asked = "import sys, httpx; print(httpx.get(sys.argv[1], trust_env=False).text)"
    done = ready.python(asked, f"http://{pod['status']['podIP']}:{PORT}/")
    assert done.stdout.strip() == pod["metadata"]["name"], done.stderr


def test_a_killed_process_is_started_again_and_its_log_is_read(ready: Node, kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    deploy(here, "shown")
    (pod,) = here.read("get", "pods")["items"]
    name = pod["metadata"]["name"]
    assert (
        ready.run(["pkill", "-KILL", "-x", "tiny"]).returncode == 0
    )  # only this node's: it has process ids of its own

    def restarted() -> bool:
        status = here.read("get", "pod", name)["status"]["containerStatuses"][0]
        return bool(status["restartCount"] >= 1 and status["ready"])

    until(restarted, "the container is not started again", WAIT_S)
    assert here.tried("logs", name).returncode == 0


def test_a_volume_of_a_claim_is_a_folder_of_the_node(ready: Node, kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    here.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"}, "spec": claim})
    mounted = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    deploy(here, "keeps", volumes=[{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}], container=mounted)
    volume = here.read("get", "pvc", "kept")["spec"]["volumeName"]
    assert (ready.folder / "volumes" / volume).is_dir()


def test_pods_answer_while_the_api_server_is_away(ready: Node, kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    deploy(here, "shown")
    ask = asker(ready, namespace, "shown")
    until(_patient(lambda: bool(ask("http://shown/"))), "the pod does not answer", WAIT_S)
    ready.cluster.api.kill()
    try:
        assert ask("http://shown/").startswith("shown-")
    finally:
        ready.cluster.api.start()
    ready.cluster.api.restart()
    assert len(here.read("get", "pods")["items"]) == 1


def test_network_policies_hold_between_pods(ready: Node, kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    deploy(here, "asks", "other", "asked")
    asks, other = asker(ready, namespace, "asks"), asker(ready, namespace, "other")
    until(_patient(lambda: bool(asks("http://asked/") and other("http://asked/"))), "nothing answers at all", WAIT_S)
    here.apply(*policies())
    ready.firewall.apply()
    assert asks("http://asked/").startswith("asked-")
    assert other("http://asked/") == ""  # no policy allows it
    assert asks("http://other/") == ""  # it may leave to nobody else
    assert other("http://asks/") == ""
    here("delete", "networkpolicies", "--all")
    ready.firewall.apply()
    assert other("http://asked/").startswith("asked-")


def policies() -> list[dict[str, Any]]:
    """Nobody may anything, but `asks` may ask `asked` and both the DNS."""

    def policy(name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}

    def labelled(name: str) -> dict[str, Any]:
        return {"matchLabels": {"app": name}}

    dns = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}],
    }
    onward = {"to": [{"podSelector": labelled("asked")}], "ports": [{"port": "http"}]}
    inward = {"from": [{"podSelector": labelled("asks")}], "ports": [{"port": PORT}]}
    return [
        policy("nothing", podSelector={}, policyTypes=["Ingress", "Egress"]),
        policy("dns", podSelector={}, policyTypes=["Egress"], egress=[dns]),
        policy("out", podSelector=labelled("asks"), policyTypes=["Egress"], egress=[onward]),
        policy("in", podSelector=labelled("asked"), policyTypes=["Ingress"], ingress=[inward]),
    ]


def test_a_stopped_node_leaves_no_process_no_mount_and_no_cgroup(tmp_path: Path) -> None:
    with node(tmp_path / "short", cache_folder()) as short:
        cgroup, pid = short.namespaces.cgroup, short.namespaces.pid
        assert (Path("/proc") / str(pid)).exists()
    assert not (Path("/proc") / str(pid)).exists()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert not [path for path, names, _ in os.walk("/sys/fs/cgroup") if cgroup in names]


def _patient(holds: Callable[[], bool]) -> Callable[[], bool]:
    """Rules of a new Service are there a second after its pods: until then a connection is refused."""

    def asked() -> bool:
        try:
            return holds()
        except httpx.TransportError:
            return False

    return asked
