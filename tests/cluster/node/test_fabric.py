"""A city on real Fabric in real pods: it waits for its channel, three organisations agree on the contracts, bills are proved on them, and an
upgrade brings chaincodes of its own. One story, told in order; not run without a release of Fabric (`fabric_channel.reason`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.fabric.profiles import ORGANISATIONS, Organisation
from infra.kubernetes.asking import until
from infra.kubernetes.node import Node
from services.registry import SERVICES, contract_versions
from tests.cluster.conftest import Tool
from tests.cluster.node import fabric_channel
from tests.cluster.node.city_release import FIRST, NEXT, WAIT_S, City, a_city, restricted_namespace
from tests.cluster.node.fabric_channel import OTHERS, PEERS, Channel, a_channel, archives, members_part
from tools.project import ROOT

NAMESPACES = {"city": "city-on-fabric", "utility": "utility", "auditor": "auditor"}
_SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
pytestmark = pytest.mark.timeout(2_400)


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    if said := fabric_channel.reason():
        pytest.skip(said)
    return a_channel(tmp_path_factory.mktemp("channel"), NAMESPACES)


@pytest.fixture(scope="module")
def city(
    fabric: Channel,
    node: Node,
    kubectl: Tool,
    helm: Tool,
    values: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> City:
    folder = tmp_path_factory.mktemp("fabric")
    node.add_images(archives(folder))
    ledger = {
        "mode": "bundled",
        "endorsements": 2,
        "contracts": {"deploy": True},
        "fabric": {"image": {"repository": "fabric"}, "peers": PEERS, "orderers": 1, "resources": _SMALL},
    }
    others = [_space(NAMESPACES[one.name]) for one in OTHERS]
    made = {**values, "ledger": ledger, "networkPolicy": {"peers": {"organisations": others}}}
    return a_city(node, kubectl, helm, NAMESPACES["city"], made, folder)


def _space(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_the_channel_begins_while_the_city_waits(city: City, fabric: Channel, kubectl: Tool, helm: Tool) -> None:
    city.kubectl.apply(*fabric.secrets(ORGANISATIONS[0], SERVICES))
    city.upgrade(FIRST, "--set", "operator.paused=true")
    for one in OTHERS:
        there = kubectl.within(NAMESPACES[one.name])
        restricted_namespace(kubectl, there.namespace)
        there.apply(*fabric.secrets(one, ()))
        there.apply(*(document for document in _rendered(helm, city, one, FIRST) if document["kind"] != "Job"))
    for organisation in ORGANISATIONS:
        _await_nodes(kubectl.within(NAMESPACES[organisation.name]))
    fabric.begin(kubectl)
    assert city.status().get("phase") != "Ready"
    assert city.images() == set(), "services before there are contracts"


def _rendered(helm: Tool, city: City, organisation: Organisation, version: str) -> list[dict[str, Any]]:
    """What another organisation runs."""
    chosen = {
        "version": version,
        "ledger.mspId": organisation.msp,
        "ledger.fabric.peers": 1,
        "ledger.fabric.orderers": 0,
        "operator.enabled": "false",
    }
    words = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    files = ["-f", str(ROOT / "helm/city/profiles/trial.yaml"), "-f", str(city.values)]
    there = helm.within(NAMESPACES[organisation.name])
    return members_part(there("template", "city", str(ROOT / "helm/city"), *files, *words), organisation)


def _await_nodes(there: Tool) -> None:
    def all_ready() -> bool:
        sets = there.read("get", "statefulsets", "--selector=app.kubernetes.io/part-of=provable-city")["items"]
        nodes = [one for one in sets if one["metadata"]["name"].startswith("fabric-")]
        return bool(nodes) and all(one["status"].get("readyReplicas") == 1 for one in nodes)

    try:
        until(all_ready, f"the nodes in {there.namespace} are not ready", WAIT_S)
    except Exception as error:
        raise AssertionError(f"{error}\n{there('get', 'pods')}\n{there('get', 'events')[-3_000:]}") from error


def test_the_contracts_come_by_agreement_and_then_the_city(city: City, kubectl: Tool, helm: Tool) -> None:
    city.upgrade(FIRST)
    until(lambda: "approved" in _contracts_log(city), "the city's Job does not come to wait for the others", WAIT_S)
    for one in OTHERS:
        kubectl.within(NAMESPACES[one.name]).apply(
            *(d for d in _rendered(helm, city, one, FIRST) if d["kind"] == "Job")
        )
    said = city.reaches("Ready", FIRST)
    assert {one["name"] for one in said["services"]} == set(SERVICES)
    for one in OTHERS:
        lines = _ended(kubectl.within(NAMESPACES[one.name]), "contracts").splitlines()
        # It completes only once all are in force; each was approved, or was in force by then already.
        told = {line.split()[0] for line in lines if f"): approved for {one.msp}" in line or "): in force" in line}
        assert told == set(contract_versions()), one.name
    assert "bills for" in city.set_up()
    city.helm("test", "city", "--timeout", "3m")


def _contracts_log(city: City) -> str:
    """Of the rollout's Jobs that are there."""
    return city.kubectl.tried("logs", "--selector=app.kubernetes.io/name=contracts", "--tail=-1").stdout


def _ended(there: Tool, job: str) -> str:
    def done() -> bool:
        conditions = there.read("get", "job", job)["status"].get("conditions") or []
        return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)

    until(done, f"the Job {job} in {there.namespace} does not complete", WAIT_S)
    return there("logs", f"job/{job}")


def test_a_bill_is_checked_from_outside(city: City, tmp_path: Path) -> None:
    assert "everything holds" in city.check_a_bill(tmp_path)


def test_an_upgrade_brings_its_own_chaincodes(city: City, tmp_path: Path) -> None:
    city.upgrade(NEXT)
    city.reaches("Ready", NEXT)
    old, new = (f"chaincode-{version.replace('.', '-')}" for version in (FIRST, NEXT))
    assert {old, new} <= {one["metadata"]["name"] for one in city.kubectl.read("get", "deployments")["items"]}
    city.kubectl("delete", "deployment,service", f"--selector=provable.city/node={old}")
    city.load("load-after", 60)
    found = city.loaded("load-after")
    assert (found["lost"], found["refused"]) == ([], {})
    assert found["packages"] > 20
    assert "everything holds" in city.check_a_bill(tmp_path)


def test_a_killed_peer_is_missed_by_nobody(city: City) -> None:
    city.load("load-peer", 60)
    city.kubectl("delete", "pod", "fabric-peer-0-0", "--grace-period=0", "--force")
    found = city.loaded("load-peer")
    assert (found["failed"], found["lost"], found["refused"]) == (0, [], {})
    assert found["packages"] > 20 and found["operations"] > 20
    city.reaches("Ready", NEXT)
