"""A real API server takes what the profiles render, the resources of others by their real definitions, in a namespace that enforces `restricted`."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from infra.helm.golden import PROFILES
from infra.helm.rendering import NAMESPACE, Chart, Object, Rendering
from infra.kubernetes.control_plane import Cluster
from tests.cluster.conftest import Definitions, Tool, await_established
from tests.cluster.render.conftest import Rendered

OTHERS = ("cert-manager", "gateway-api", "cloudnative-pg", "prometheus-operator", "strimzi")
_FOREIGN = {
    "Certificate", "Issuer", "Kafka", "KafkaNodePool", "KafkaUser", "Cluster", "ServiceMonitor", "PrometheusRule", "HTTPRoute",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(kubectl: Tool, crds: Definitions, chart: Chart) -> Iterator[Tool]:
    """kubectl in a namespace `city` that lets in only what Pod Security `restricted` allows."""
    crds.install(*OTHERS)
    kubectl(
        "apply",
        "--server-side",
        "--filename=-",
        stdin=chart.run("template", "x", str(chart.folder.parent / "city-crds")),
    )
    await_established(kubectl, "cities.provable.city")
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": levels}})
    kubectl.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "city-critical"},
            "value": 1_000,
        }
    )
    yield kubectl.within(NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _kinds(rendering: Rendering) -> set[str]:
    return {one["kind"] for one in rendering.everything()}


def _dry(server: Tool, documents: Sequence[Object]) -> str:
    """What it says, warnings too."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    done = server.tried(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename=-", stdin=json.dumps(listed)
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("way", ["direct", "operator"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_api_server_takes_it(server: Tool, rendered: Rendered, profile: str, way: str) -> None:
    assert "Warning" not in _dry(server, rendered(profile, way).everything())


def test_every_kind_of_others_was_among_them(rendered: Rendered) -> None:
    assert set.union(*(_kinds(rendered(profile, "operator")) for profile in PROFILES)) >= _FOREIGN


def test_pods_are_let_in_one_by_one(server: Tool, rendered: Rendered) -> None:
    """A Deployment is only warned about; its pods would be refused."""
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": _plain(pod["spec"])}
        for number, pod in enumerate(rendered("region", "operator").pods())
    ]
    assert "Warning" not in _dry(server, pods)


def _plain(spec: Object) -> Object:
    made = copy.deepcopy(spec)
    made.pop("serviceAccountName", None)
    made.pop("priorityClassName", None)
    made["volumes"] = [*made.get("volumes", []), *_claimed(made)]
    return made


def _claimed(spec: Object) -> list[Object]:
    """A set's own claim, which a pod of its own has not."""
    names = {one["name"] for one in spec.get("volumes", [])}
    wanted = {mount["name"] for one in spec["containers"] for mount in one.get("volumeMounts", [])}
    return [{"name": name, "emptyDir": {}} for name in sorted(wanted - names)]


# --- the kind City ------------------------------------------------------------------------------------


def _city(**spec: Any) -> Object:
    services = [{"name": "identity", "version": "1.0.0", "manifests": "identity-1-0-0-00000000"}]
    return {
        "apiVersion": "provable.city/v1",
        "kind": "City",
        "metadata": {"name": "city"},
        "spec": {"version": "1.0.0", "services": services, **spec},
    }


def _service(name: str, **more: Any) -> Object:
    return {"name": name, "version": "1.0.0", "manifests": f"{name}-1", **more}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown dependency": ({"services": [_service("a", dependsOn=["b"])]}, "dependsOn names a service that is not"),
    "itself": ({"services": [_service("a", dependsOn=["a"])]}, "depends on itself"),
    "twice": ({"services": [_service("a"), _service("a")]}, "duplicate entries for key"),
    "no services": ({"services": []}, "should have at least 1 items"),
    "half an order": ({"services": [_service("a"), _service("b")], "order": ["a"]}, "must name every service"),
    "canary upside down": ({"services": [_service("a", canary={"steps": [50, 25]})]}, "must be ascending"),
    "canary of all": ({"services": [_service("a", canary={"steps": [100]})]}, "less than or equal to 99"),
    "nobody to ask": (
        {"gates": {"analyses": [{"name": "a", "query": "up", "successCondition": "result > 0"}]}},
        "set spec.gates.prometheus.url",
    ),
    "a freeze that ends first": (
        {"freezes": [{"from": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z", "reason": "x"}]},
        "must lie after",
    ),
    "three people": ({"approvals": {"required": 3}}, "less than or equal to 2"),
    "no time of day": ({"windows": [{"start": "25:00", "minutes": 5}]}, "should match"),
    "no version": ({"version": ""}, "spec.version"),
    "no such profile": ({"profile": "village"}, "Unsupported value"),
    "unknown field": ({"speed": 3}, ".spec.speed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_city_that_cannot_be_is_refused(server: Tool, name: str) -> None:
    spec, said = WRONG[name]
    done = server.tried("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=json.dumps(_city(**spec)))
    assert done.returncode != 0, done.stdout
    assert said in done.stderr


def test_defaults_and_columns(server: Tool) -> None:
    server.apply(_city())
    found = server.read("get", "city", "city")
    assert (found["spec"]["profile"], found["spec"]["historyLimit"], found["spec"]["paused"]) == ("trial", 10, False)
    assert server("get", "city").split()[:5] == ["NAME", "VERSION", "PHASE", "SERVICE", "GOOD"]
    server("delete", "city", "city")


def test_only_the_group_approves(server: Tool, cluster: Cluster, rendered: Rendered) -> None:
    found = rendered("region", "operator")
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        server.apply(*found.of(kind).values())
    server.apply(_city())
    group = "provable-city-approvers"
    ada = server.as_user(cluster.kubeconfig_for("ada", ["system:masters"]))
    bob = server.as_user(cluster.kubeconfig_for("bob", ["system:masters", group]))
    said = _refused(
        lambda number: ada.tried("annotate", "city", "city", f"provable.city/promote=r{number}", "--overwrite")
    )
    assert f"only members of the group {group} approve, promote or abort a rollout" in said
    ada("annotate", "city", "city", "note=x")
    bob("annotate", "city", "city", "provable.city/promote=another", "--overwrite")
    server("delete", "city", "city")
    server("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "--all")


def _refused(attempt: Callable[[int], subprocess.CompletedProcess[str]]) -> str:
    """What is said, once a policy is in force: it takes the API server a moment."""
    for number in range(150):
        done = attempt(number)
        if done.returncode:
            return done.stderr
        time.sleep(0.2)
    raise AssertionError("nothing was refused")
