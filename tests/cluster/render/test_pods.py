"""What holds of every pod of every rendering: Pod Security "restricted", resources, no token it does not need, drained before it ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from citykit.settings import read_settings
from infra.helm.golden import PROFILES
from infra.helm.rendering import Chart, Object, Rendering
from tests.cluster.render.conftest import Rendered

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_KEYS_OF_PODS = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")
_WITH_TOKEN = {"Deployment/operator", "Job/provision", "CronJob/renewal", "Job/uninstall"}


def _containers(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("initContainers") or []
    yield from pod["spec"]["containers"]


def test_pod_security_is_restricted(rendering: Rendering) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, each clause."""
    pods = rendering.pods()
    assert pods
    for pod in pods:
        spec, owner = pod["spec"], pod["owner"]
        assert not any(spec.get(key) for key in _KEYS_OF_PODS), owner
        assert spec["securityContext"]["runAsNonRoot"] is True, owner
        assert spec["securityContext"].get("runAsUser") != 0, owner
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        for volume in spec.get("volumes") or []:
            assert set(volume) - {"name"} <= _VOLUMES, owner
        for container in _containers(pod):
            _check_container(container, owner)


def _check_container(container: Object, owner: str) -> None:
    where = f"{owner} {container['name']}"
    own = container["securityContext"]
    assert own["allowPrivilegeEscalation"] is False, where
    assert own["capabilities"] == {"drop": ["ALL"]}, where
    assert own["readOnlyRootFilesystem"] is True, where
    assert not own.get("privileged"), where
    assert own.get("runAsNonRoot", True), where
    assert not any("hostPort" in port for port in container.get("ports") or []), where
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert not (container.get(probe) or {}).get("httpGet", {}).get("host"), where


def test_resources_are_asked_for_and_memory_is_limited(rendering: Rendering) -> None:
    for pod in rendering.pods():
        for container in _containers(pod):
            found = container["resources"]
            assert {"cpu", "memory"} <= set(found["requests"]), pod["owner"]
            assert "memory" in found["limits"], pod["owner"]


def test_only_who_speaks_with_the_api_server_has_a_token(rendering: Rendering) -> None:
    found = {pod["owner"] for pod in rendering.pods() if pod["spec"]["automountServiceAccountToken"]}
    assert found <= _WITH_TOKEN


def test_roles_are_of_the_namespace_and_name_no_star(rendering: Rendering) -> None:
    assert not rendering.of("ClusterRole")
    for name, role in rendering.of("Role").items():
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], name
            if "secrets" in rule["resources"]:
                assert name == "provision" or (name == "renewal" and rule["resourceNames"])


def test_what_serves_is_probed_and_pauses_before_it_ends(rendering: Rendering) -> None:
    for pod in rendering.pods():
        kind = pod["owner"].partition("/")[0]
        if kind not in ("Deployment", "StatefulSet"):
            continue
        for container in pod["spec"]["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), pod["owner"]
            if pod["owner"] != "Deployment/operator":
                assert container["lifecycle"]["preStop"]["sleep"]["seconds"] > 0, pod["owner"]


def test_secrets_are_only_named(rendering: Rendering) -> None:
    """No Secret is rendered, and no variable holds what a file should."""
    assert not rendering.of("Secret")
    assert "BEGIN" not in rendering.text
    for pod in rendering.pods():
        for container in _containers(pod):
            for variable in container.get("env") or []:
                named = variable["name"]
                secret = re.search(r"(PASSWORD|SECRET|TOKEN|_KEY)(_FILE)?$", named)
                assert secret is None or variable["value"].startswith("/"), named


def test_mounted_secrets_are_for_root_and_the_pods_group(rendering: Rendering) -> None:
    for pod in rendering.pods():
        for volume in pod["spec"].get("volumes") or []:
            for kind in ("secret", "projected"):
                assert volume.get(kind, {"defaultMode": 0o440})["defaultMode"] == 0o440, pod["owner"]


def test_every_setting_is_known_and_in_its_range(rendering: Rendering) -> None:
    told = 0
    for pod in rendering.pods():
        for container in _containers(pod):
            variables = {one["name"]: one["value"] for one in container.get("env") or []}
            settings = {name: value for name, value in variables.items() if name.startswith("CITY_")}
            if settings:
                assert read_settings(settings).general.mode == "cluster"
                told += 1
    assert told >= 10


def test_files_that_settings_name_are_mounted(rendering: Rendering) -> None:
    """`{service}` is the process's own name."""
    for name in ("identity", "metering", "gateway", "payments"):
        container = _service(rendering, name)["spec"]["template"]["spec"]["containers"][0]
        mounts = [one["mountPath"] for one in container["volumeMounts"]]
        for variable in container["env"]:
            path = variable["value"].replace("{service}", name)
            if path.startswith("/etc/city"):
                assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), variable


def _service(rendering: Rendering, name: str) -> Object:
    return next(
        one for one in rendering.everything() if one["kind"] == "Deployment" and one["metadata"]["name"] == name
    )


def test_places_are_taken_over_by_every_pod(chart: Chart) -> None:
    values: dict[str, Any] = {
        "nodeSelector": {"pool": "city"},
        "tolerations": [{"key": "city", "operator": "Exists"}],
        "priorityClassName": "city-critical",
        "imagePullSecrets": ["ours"],
        "image": {"registry": "registry.internal:5000/mirror"},
        "podLabels": {"team": "city"},
        "podAnnotations": {"note": "x"},
    }
    for way in (False, True):
        for pod in chart.render("trial", {**values, "operator": {"enabled": way}}).pods():
            spec, owner = pod["spec"], pod["owner"]
            assert spec["nodeSelector"] == {"pool": "city"}, owner
            assert spec["tolerations"] == [{"key": "city", "operator": "Exists"}], owner
            assert spec["priorityClassName"] == "city-critical", owner
            assert spec["imagePullSecrets"] == [{"name": "ours"}], owner
            for container in _containers(pod):
                assert container["image"].startswith("registry.internal:5000/mirror/"), owner
            if owner != "Pod/check":
                assert pod["metadata"]["labels"]["team"] == "city", owner
                assert pod["metadata"]["annotations"]["note"] == "x", owner


def test_a_digest_wins(chart: Chart) -> None:
    digest = f"sha256:{'0' * 64}"
    found = chart.render("trial", {"image": {"digest": digest}})
    assert f"provable-city:0.1.0@{digest}" in found.text


@pytest.mark.parametrize("profile", PROFILES)
def test_the_cluster_may_choose_the_user(chart: Chart, profile: str) -> None:
    values = {
        "podUser": {"runAsUser": None, "fsGroup": None},
        "kafka": {"runAsUser": None},
        "postgres": {"runAsUser": None},
    }
    for pod in chart.render(profile, values).pods():
        if pod["owner"].startswith(("StatefulSet/fabric", "Deployment/chaincode")):
            continue
        assert "runAsUser" not in pod["spec"]["securityContext"], pod["owner"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_more_than_one_pod_is_spread_and_guarded(rendered: Rendered) -> None:
    found = rendered("small", "operator")
    gateway = _service(found, "gateway")
    assert gateway["spec"]["replicas"] == 2
    assert len(gateway["spec"]["template"]["spec"]["topologySpreadConstraints"]) == 2
    guarded = {one["metadata"]["name"] for one in found.everything() if one["kind"] == "PodDisruptionBudget"}
    assert guarded == {"gateway"}, "a budget for a single pod would only keep nodes from being drained"


@pytest.mark.parametrize("way", ["direct", "operator"])
def test_no_replicas_where_an_autoscaler_decides(rendered: Rendered, way: str) -> None:
    found = rendered("city", way)
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in found.everything() if one["kind"] == "HorizontalPodAutoscaler"
    }
    assert scaled == {"gateway"}
    for one in found.everything():
        if one["kind"] == "Deployment":
            assert ("replicas" in one["spec"]) is (one["metadata"]["name"] not in scaled)
