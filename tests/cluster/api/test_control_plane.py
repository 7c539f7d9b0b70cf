"""The control plane itself: it holds pods, makes volumes, knows users, and survives what the tests of the operator do to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.kubernetes.asking import until
from infra.kubernetes.control_plane import Cluster
from infra.kubernetes.install import KUBERNETES_VERSION
from tests.cluster.conftest import Definitions, Tool

WAIT_S = 60.0


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "shown"}
    pod = {"containers": [{"name": "shown", "image": "localhost/shown:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shown"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def claim() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def test_it_is_the_version_that_is_pinned(kubectl: Tool) -> None:
    assert kubectl.read("version")["serverVersion"]["gitVersion"] == f"v{KUBERNETES_VERSION}"


def test_a_deployment_becomes_available_on_different_nodes_and_goes(kubectl: Tool, namespace: str) -> None:
    here = kubectl.within(namespace)
    here.apply(deployment(3))
    here("rollout", "status", "deployment/shown", f"--timeout={WAIT_S:.0f}s")
    pods = here.read("get", "pods")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 3
    here("delete", "deployment", "shown", "--wait")
    until(lambda: not here.read("get", "pods")["items"], "the pods stay", WAIT_S)


def test_a_claim_gets_a_volume_that_every_user_may_write_and_loses_it(
    cluster: Cluster, kubectl: Tool, namespace: str
) -> None:
    here = kubectl.within(namespace)
    here.apply(claim())
    here("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/kept", f"--timeout={WAIT_S:.0f}s")
    volume = here.read("get", "pvc", "kept")["spec"]["volumeName"]
    place = cluster.folder / "volumes" / volume
    assert place.stat().st_mode & 0o777 == 0o777
    here("delete", "pvc", "kept")
    until(lambda: not place.exists(), "the folder stays", WAIT_S)
    until(lambda: kubectl.tried("get", "pv", volume).returncode == 1, "the volume stays", WAIT_S)


def test_a_user_has_the_rights_of_the_groups_in_the_certificate(
    cluster: Cluster, kubectl: Tool, namespace: str
) -> None:
    ada = kubectl.within(namespace).as_user(cluster.kubeconfig_for("ada", ["auditors"]))
    assert "forbidden" in ada.tried("get", "pods").stderr
    kubectl.within(namespace)("create", "rolebinding", "auditors", "--clusterrole=view", "--group=auditors")
    until(lambda: ada.tried("get", "pods").returncode == 0, "ada may not look", WAIT_S)
    said = json.loads(ada("auth", "whoami", "--output", "json"))["status"]["userInfo"]
    assert said["username"] == "ada"
    assert "auditors" in said["groups"]


def test_what_was_stored_is_there_after_the_api_server_was_killed(
    cluster: Cluster, kubectl: Tool, namespace: str
) -> None:
    kubectl.within(namespace)("create", "configmap", "kept", "--from-literal=key=value")
    cluster.api.kill()
    assert kubectl.tried("get", "namespaces", "--request-timeout=2s").returncode != 0
    cluster.api.start()
    assert kubectl.within(namespace).read("get", "configmap", "kept")["data"] == {"key": "value"}


def test_a_paused_api_server_answers_nothing_and_then_everything(cluster: Cluster, kubectl: Tool) -> None:
    cluster.api.pause()
    try:
        assert kubectl.tried("get", "namespaces", "--request-timeout=1s").returncode != 0
    finally:
        cluster.api.resume()
    until(cluster.asking.ready, "it does not answer again", WAIT_S)


def test_helm_installs_and_uninstalls_a_chart(helm: Tool, kubectl: Tool, namespace: str, tmp_path: Any) -> None:
    here = helm.within(namespace)
    here("create", str(tmp_path / "shown"))
    here("install", "shown", str(tmp_path / "shown"), "--wait", f"--timeout={WAIT_S:.0f}s")
    assert [one["name"] for one in json.loads(here("list", "--output", "json"))] == ["shown"]
    assert len(kubectl.within(namespace).read("get", "deployments")["items"]) == 1
    here("uninstall", "shown", "--wait")
    until(lambda: not kubectl.within(namespace).read("get", "pods")["items"], "the pods stay", WAIT_S)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cert-manager", "Certificate"),
        ("gateway-api", "GRPCRoute"),
        ("cloudnative-pg", "Cluster"),
        ("prometheus-operator", "ServiceMonitor"),
        ("strimzi", "KafkaTopic"),
    ],
)
def test_definitions_of_others_are_served(crds: Definitions, kubectl: Tool, name: str, kind: str) -> None:
    crds.install(name)
    served = [line.split()[-1] for line in kubectl("api-resources", "--no-headers").splitlines()]
    assert kind in served
