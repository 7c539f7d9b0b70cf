"""The webhook as the API server calls it: refused is refused for everybody, in the webhook's words; two people approve, each for themselves."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lightkube.core.async_client import AsyncClient
from lightkube.resources.admissionregistration_v1 import ValidatingWebhookConfiguration
from lightkube.resources.rbac_authorization_v1 import RoleBinding

from citykit.errors import InvalidArgument, PermissionDenied
from infra.certificates import ensure_certificates
from infra.kubernetes.control_plane import Cluster
from infra.native import free_port
from operators.city.admission import PATH
from operators.city.kube import Object
from tests.cluster.api.rig import Rig


@pytest.fixture
async def guarded(rig: Rig, tmp_path: Path) -> AsyncIterator[Rig]:
    """With an operator that serves the webhook, and an API server that asks it."""
    ensure_certificates(tmp_path / "webhook", ["operator"])
    folder, port = tmp_path / "webhook" / "operator", free_port()
    await rig.operator(webhook=(folder, port))
    async with asking(rig.api.namespace, port, (folder / "ca.crt").read_bytes()):
        await rig.served(port)
        yield rig


@contextlib.asynccontextmanager
async def asking(namespace: str, port: int, authority: bytes) -> AsyncIterator[None]:
    name = f"city-{namespace}"
    client: Any = AsyncClient()
    url = {"url": f"https://localhost:{port}{PATH}", "caBundle": base64.b64encode(authority).decode()}
    rule = {
        "apiGroups": ["provable.city"],
        "apiVersions": ["v1"],
        "resources": ["cities"],
        "operations": ["CREATE", "UPDATE"],
    }
    webhook = {
        "name": "cities.provable.city",
        "clientConfig": url,
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    document = {"metadata": {"name": name}, "webhooks": [webhook]}
    await client.create(ValidatingWebhookConfiguration.from_dict(document))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        await client.delete(ValidatingWebhookConfiguration, name)
        await client.close()


async def test_what_cannot_be_is_refused_at_the_door(guarded: Rig) -> None:
    spec = await guarded.version("1.0.0")
    with pytest.raises((InvalidArgument, PermissionDenied), match="does not exist"):
        await guarded.want({**spec, "prepare": {"manifests": "prepare-9.9.9-gone"}})
    await guarded.want(spec)
    await guarded.running("1.0.0")
    with pytest.raises((InvalidArgument, PermissionDenied), match="holds one city"):
        await guarded.want(spec, name="other")
    cycle = await guarded.version("1.1.0")
    cycle["services"][0]["dependsOn"] = ["gateway"]
    with pytest.raises((InvalidArgument, PermissionDenied), match="identity"):
        await guarded.want(cycle)
    with pytest.raises((InvalidArgument, PermissionDenied), match="restore a backup"):
        await guarded.want(await guarded.version("0.9.0"))
    await guarded.want(await guarded.version("1.1.0"))
    await guarded.running("1.1.0")
    await guarded.api.delete("City", "city")


async def test_two_people_approve_each_in_their_own_name(guarded: Rig, cluster: Cluster) -> None:
    await guarded.want(await guarded.version("1.0.0"))
    await guarded.running("1.0.0")
    for user in ("ada", "ben"):
        await allow(guarded.api.namespace, user)
    await guarded.want(await guarded.version("1.1.0", approvals={"required": 2}))
    await guarded.until(lambda status: status.get("phase") == "Waiting", "waiting for approval")

    ada = cluster.kubeconfig_for("ada", namespace=guarded.api.namespace)
    for _ in range(2):
        code, said = await guarded.city("rollout", "approve", kubeconfig=ada)
        assert code == 0, said
    assert said.startswith("ada approved")
    forged: Object = {"metadata": {"annotations": {"provable.city/approvals": '["x:ada", "x:ben"]'}}}
    with pytest.raises((InvalidArgument, PermissionDenied), match="own approval only"):
        await guarded.api.patch("City", "city", forged)
    status = await guarded.status()
    assert status["phase"] == "Waiting", "one person is not two"
    assert set((await guarded.versions()).values()) == {"1.0.0"}
    code, said = await guarded.city("rollout", "status", kubeconfig=ada)
    assert code == 0
    assert "Waiting" in said

    ben = cluster.kubeconfig_for("ben", namespace=guarded.api.namespace)
    code, said = await guarded.city("rollout", "approve", kubeconfig=ben)
    assert code == 0, said
    await guarded.running("1.1.0")
    code, said = await guarded.city("rollout", "history", kubeconfig=ben)
    assert "1.0.0 -> 1.1.0" in said


async def test_without_an_operator_the_city_runs_on_and_only_changes_are_refused(guarded: Rig) -> None:
    await guarded.want(await guarded.version("1.0.0"))
    await guarded.running("1.0.0")
    await guarded.operators[-1].stop()
    with pytest.raises(Exception, match="failed calling webhook"):
        await guarded.want(await guarded.version("1.1.0"))
    deployment = await guarded.api.get("Deployment", "gateway") or {}
    await guarded.api.apply({**_named(deployment), "spec": {"paused": False}}, "somebody")
    assert set((await guarded.versions()).values()) == {"1.0.0"}


def _named(found: Object) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": found["metadata"]["name"]}}


async def allow(namespace: str, user: str) -> None:
    """What the chart's Role for those who steer rollouts allows, and more."""
    client: Any = AsyncClient(namespace=namespace)
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    document = {"metadata": {"name": f"{user}-steers"}, "subjects": [subject], "roleRef": role}
    await client.create(RoleBinding.from_dict(document))  # type: ignore[no-untyped-call]
    await client.close()
