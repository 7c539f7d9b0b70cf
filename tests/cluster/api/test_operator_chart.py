"""The real chart by the real helm, rolled out by an operator that has the chart's Role and nothing more."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.kubernetes.control_plane import Cluster
from operators.city.kube import Object
from services.registry import SERVICES
from tests.cluster.api.conftest import define
from tests.cluster.api.rig import Rig, rigged
from tests.cluster.conftest import Tool

CHARTS = Path(__file__).parents[3] / "helm"
NEXT = "99.0.0"


@pytest.fixture
async def city(
    cluster: Cluster, helm: Tool, city_definition: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """The trial profile installed with an operator of its own; the pretended pods of the chart's own operator do nothing."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    await define(city_definition)
    namespace = f"city-{uuid.uuid4().hex[:8]}"
    async with rigged(tmp_path, cluster.kubeconfig, namespace, SERVICES) as rig:
        helm.within(namespace)("install", "city", str(CHARTS / "city"), *values())
        account = f"system:serviceaccount:{namespace}:operator"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        rig.operator_kubeconfig = cluster.kubeconfig_for(account, groups, namespace)
        yield rig


def values(*more: str) -> list[str]:
    settings = ("operator.enabled=true", "operator.webhook.enabled=false", "operator.policy.enabled=false", *more)
    return ["--values", str(CHARTS / "city" / "profiles" / "trial.yaml"), *(f"--set={one}" for one in settings)]


async def test_the_charts_city_is_rolled_out_and_upgraded_with_the_charts_role(city: Rig, helm: Tool) -> None:
    operator = await city.operator()
    first = await city.until(lambda status: bool((status.get("lastGood") or {}).get("version")), "installed")
    assert {one["name"]: one["phase"] for one in first["services"]} == dict.fromkeys(sorted(SERVICES), "Ready")
    helm.within(city.api.namespace)("upgrade", "city", str(CHARTS / "city"), *values(f"version={NEXT}"))
    found = await city.running(NEXT)
    assert {one["version"] for one in found["services"]} == {NEXT}
    assert not [one for one in operator.lines() if one["event"] == "step-refused"], "the Role is enough"
    code, said = await city.city("rollout", "status")
    assert code == 0
    assert "Ready" in said
    code, said = await city.city("operator", "uninstall", "--wait", "60")
    assert code == 0, said
    assert "taking the finalizer off" not in said
