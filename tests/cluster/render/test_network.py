"""The rendered NetworkPolicies say exactly what the table of flows says, for every pair of ends and every port."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product

import pytest

from infra.helm.flows import OUTSIDE, Flow, read_flows
from infra.helm.golden import PROFILES
from infra.helm.policies import End, Policies
from infra.helm.rendering import NAMESPACE, Chart, Rendering
from tests.cluster.render.conftest import API_SERVER, Rendered

STRANGER_PORTS = (22, 80, 8443)
_ADDRESSES = {
    "provider": "203.0.113.5",
    "issuer": "203.0.113.6",
    "ledger": "192.0.2.10",
    "organisations": "192.0.2.20",
    "apiserver": API_SERVER,
}
_NAMESPACES = {"dns": "kube-system", "prometheus": "monitoring", "ingress": "gateways"}


def _pods(rendering: Rendering) -> dict[str, End]:
    """The pods of the city by the name in the table."""
    labels = [pod["metadata"]["labels"] for pod in rendering.pods()]
    return {one["app.kubernetes.io/name"]: End(NAMESPACE, one) for one in labels}


def _outside(rendering: Rendering, pods: dict[str, End]) -> dict[str, End]:
    """Somebody for each name that is no pod here."""
    absent = {"ledger"} if "fabric-peer" in pods else {"organisations", *pods}
    ends = {name: End(address=address) for name, address in _ADDRESSES.items() if name not in absent}
    ends |= {name: End(space, {"app": name}, address="10.1.1.1") for name, space in _NAMESPACES.items()}
    for name, kind, labels in (
        ("kafka", "Kafka", {"strimzi.io/cluster": "kafka", "strimzi.io/kind": "Kafka"}),
        ("postgres", "Cluster", {"cnpg.io/cluster": "postgres"}),
    ):
        if rendering.of(kind):
            ends[name] = End(NAMESPACE, labels, address="10.1.2.2")
    return ends


def _expected(flows: list[Flow], pods: Collection[str], ends: set[str], silent: set[str]) -> set[Flow]:
    """The table's flows between a pod and somebody who is there."""
    return {
        Flow(one.source, one.target, one.port, one.protocol)
        for one in flows
        if not one.implicit and _concerns(one, pods, ends - silent)
    }


def _concerns(flow: Flow, pods: Collection[str], ends: set[str]) -> bool:
    """What others run is called, and what it calls is theirs."""
    if flow.source in pods:
        return flow.target in ends
    return flow.source in OUTSIDE and flow.source in ends and flow.target in pods


@pytest.mark.parametrize("way", ["direct", "operator"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_policies_are_the_table(rendered: Rendered, profile: str, way: str) -> None:
    rendering = rendered(profile, way)
    pods = _pods(rendering)
    ends = {**_outside(rendering, pods), **pods}
    policies = Policies(rendering.of("NetworkPolicy").values(), NAMESPACE)
    flows = read_flows()
    ports = {(one.port, one.protocol) for one in flows} | {(port, "TCP") for port in STRANGER_PORTS}
    found = set()
    for (source, target), (port, protocol) in product(product(ends, repeat=2), ports):
        if not (source in pods or target in pods):
            continue  # two strangers are not ours to judge
        if policies.allows(ends[source], ends[target], port, protocol):
            found.add(Flow(source, target, port, protocol))
    assert found == _expected(flows, pods, set(ends), _silent(rendering))


def _silent(rendering: Rendering) -> set[str]:
    """Names of the table that the values say nobody is."""
    return {"provider", "issuer"} | (set() if rendering.of("ServiceMonitor") else {"prometheus", "ingress"})


def test_every_pod_is_under_the_default_deny(rendering: Rendering) -> None:
    policies = Policies([rendering.of("NetworkPolicy")["default-deny"]], NAMESPACE)
    stranger = End("elsewhere", {}, address="10.9.9.9")
    for pod in _pods(rendering).values():
        assert not policies.allows(stranger, pod, 50051)
        assert not policies.allows(pod, stranger, 443)


def test_every_policy_is_of_a_pod_that_is_there(rendering: Rendering) -> None:
    names = set(_pods(rendering))
    assert set(rendering.of("NetworkPolicy")) - {"default-deny"} == names


def test_the_provider_is_reached_by_payments_only(chart: Chart) -> None:
    values = {
        "payments": {"provider": {"url": "https://provider.example.org", "existingSecret": "provider"}},
        "networkPolicy": {
            "peers": {"provider": [{"ipBlock": {"cidr": "203.0.113.5/32"}}]},
            "ports": {"provider": 8443},
        },
    }
    rendering = chart.render("trial", values)
    policies = Policies(rendering.of("NetworkPolicy").values(), NAMESPACE)
    provider = End(address="203.0.113.5")
    allowed = {name for name, pod in _pods(rendering).items() if policies.allows(pod, provider, 8443)}
    assert allowed == {"payments"}
    assert not policies.allows(_pods(rendering)["payments"], provider, 50051)


def test_other_organisations_reach_peers_and_orderers_only(rendered: Rendered) -> None:
    rendering = rendered("region", "operator")
    policies = Policies(rendering.of("NetworkPolicy").values(), NAMESPACE)
    other = End(address=_ADDRESSES["organisations"])
    reached = {
        (name, port)
        for (name, pod), port in product(_pods(rendering).items(), (7050, 7051, 7101, 50051))
        if policies.allows(other, pod, port)
    }
    assert reached == {("fabric-peer", 7051), ("fabric-orderer", 7050)}


def test_policies_can_be_left_out(chart: Chart) -> None:
    assert not chart.render("trial", {"networkPolicy": {"enabled": False}}).of("NetworkPolicy")
