"""The chart installed by the real helm on a real API server: who owns what, changing the owner both ways, the real operator under its own role."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.helm.facts import CHART
from infra.helm.rendering import CRDS, PROFILES
from infra.kubernetes.control_plane import Cluster
from services.registry import SERVICES
from tests.cluster.conftest import Tool, await_established

TRIAL = f"--values={PROFILES / 'trial.yaml'}"
OPERATED = ("--set=operator.enabled=true", "--set=operator.gates.invariants=false")
WAIT_S = 120.0
UNINSTALL = (sys.executable, "-m", "services", "operator", "uninstall", "--wait=30")


@pytest.fixture
def city(helm: Tool, kubectl: Tool, namespace: str) -> tuple[Tool, Tool]:
    """helm and kubectl in a new namespace, and the kind City."""
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=helm("template", "crds", str(CRDS)))
    await_established(kubectl, "cities.provable.city")
    return helm.within(namespace), kubectl.within(namespace)


def _until(what: str, holds: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.5)


def _pods(kubectl: Tool) -> dict[str, str]:
    """The services' pods by service: their UIDs."""
    found = kubectl.read("get", "pods", "--selector=provable.city/track=stable")["items"]
    return {one["metadata"]["labels"]["app.kubernetes.io/name"]: one["metadata"]["uid"] for one in found}


def _names(kubectl: Tool, kinds: str) -> set[str]:
    return {f"{one['kind']}/{one['metadata']['name']}" for one in kubectl.read("get", kinds)["items"]}


def test_the_owner_changes_both_ways_and_no_pod_is_touched(city: tuple[Tool, Tool]) -> None:
    helm, kubectl = city
    helm("install", "city", str(CHART), TRIAL, "--wait", f"--timeout={WAIT_S:.0f}s")
    before = _pods(kubectl)
    assert set(before) == set(SERVICES)

    refused = helm.tried("upgrade", "city", str(CHART), TRIAL, *OPERATED)
    assert "First `helm upgrade` with operator.enabled=false and operator.handover=true" in refused.stderr
    helm("upgrade", "city", str(CHART), TRIAL, "--set=operator.handover=true")
    helm("upgrade", "city", str(CHART), TRIAL, *OPERATED)
    assert _pods(kubectl) == before, "helm let go of them, and they run on"
    assert {one["name"] for one in kubectl.read("get", "city", "city")["spec"]["services"]} == set(SERVICES)

    helm("upgrade", "city", str(CHART), TRIAL)
    assert _pods(kubectl) == before, "helm took them over again"
    assert "Job/uninstall" not in _names(kubectl, "jobs")
    assert "kind: Job\nmetadata:\n  name: uninstall" in helm("get", "hooks", "city"), "a City and data are left over"


def test_a_second_city_in_the_namespace_is_refused(city: tuple[Tool, Tool]) -> None:
    helm, _ = city
    helm("install", "city", str(CHART), TRIAL, *OPERATED)
    refused = helm.tried("install", "another", str(CHART), TRIAL, *OPERATED)
    assert refused.returncode != 0
    assert "exists and cannot be imported into the current release" in refused.stderr


@pytest.fixture
def operator(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts the operator as the chart's service account, without its webhook."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        account = f"system:serviceaccount:{namespace}:operator"
        environment = _environment(cluster.kubeconfig_for(account))
        with (tmp_path / "operator.log").open("wb") as log:
            argv = [sys.executable, "-m", "services", "operator", f"--namespace={namespace}", "--webhook-port=0"]
            started.append(subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT))

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def _environment(kubeconfig: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CITY_", "KUBE"))}
    return {**kept, "KUBECONFIG": str(kubeconfig)}


def test_the_operator_rolls_the_chart_out_under_its_own_role_and_goes_without_a_trace(
    city: tuple[Tool, Tool], operator: Callable[[], None], cluster: Cluster, namespace: str
) -> None:
    helm, kubectl = city
    helm("install", "city", str(CHART), TRIAL, *OPERATED)
    operator()
    _until("the City is ready", lambda: _phase(kubectl) == "Ready")
    assert set(_pods(kubectl)) == set(SERVICES)

    helm("upgrade", "city", str(CHART), TRIAL, *OPERATED, "--set=services.parking.startSeconds=60")
    wanted = {one["name"]: one["manifests"] for one in kubectl.read("get", "city", "city")["spec"]["services"]}
    _until("the change of one service is rolled out", lambda: _applied(kubectl, "parking") == wanted["parking"])
    _until("the City is ready again", lambda: _phase(kubectl) == "Ready")

    _uninstall_as_the_hook_does(helm, kubectl, cluster, namespace)
    assert not kubectl.read("get", "cities")["items"]
    helm("uninstall", "city")
    left = _names(kubectl, "deployments,statefulsets,services,configmaps,jobs,roles,serviceaccounts,networkpolicies")
    assert left <= {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}, left
    assert {one.partition("/")[0] for one in _names(kubectl, "persistentvolumeclaims")} == {"PersistentVolumeClaim"}


def _uninstall_as_the_hook_does(helm: Tool, kubectl: Tool, cluster: Cluster, namespace: str) -> None:
    """Pods are pretended here, so the hook's program is run beside them, with the rights the hook has."""
    hooks = [one for one in yaml.safe_load_all(helm("get", "hooks", "city")) if one["metadata"]["name"] == "uninstall"]
    kubectl.apply(*(one for one in hooks if one["kind"] != "Job"))
    environment = _environment(cluster.kubeconfig_for(f"system:serviceaccount:{namespace}:uninstall"))
    argv = [*UNINSTALL, f"--namespace={namespace}"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "left are the volumes" in done.stdout


def _phase(kubectl: Tool) -> str:
    return str(kubectl.read("get", "city", "city").get("status", {}).get("phase", ""))


def _applied(kubectl: Tool, service: str) -> str:
    return str(kubectl.read("get", "deployment", service)["metadata"]["annotations"].get("provable.city/manifests"))
