"""The rendered NetworkPolicies say exactly what the table of flows says, for every pair of ends and every port."""

from __future__ import annotations

from itertools import product

import pytest

from infra.helm.flows import OUTSIDE, Flow, read_flows
from infra.helm.golden import PROFILES
from infra.helm.policies import End, Policies
from infra.helm.rendering import NAMESPACE, Chart, Rendering
from tests.cluster.render.conftest import Rendered

STRANGER_PORTS = (22, 80, 8443)
_ADDRESSES = {"provider": "203.0.113.5", "issuer": "203.0.113.6", "ledger": "192.0.2.10", "apiserver": "10.96.0.1"}
_NAMESPACES = {"dns": "kube-system", "prometheus": "monitoring", "ingress": "gateways"}


def _pods(rendering: Rendering) -> dict[str, End]:
    """The pods of the city by the name in the table."""
    labels = [pod["metadata"]["labels"] for pod in rendering.pods()]
    return {one["app.kubernetes.io/name"]: End(NAMESPACE, one) for one in labels}


def _outside(rendering: Rendering, pods: dict[str, End]) -> dict[str, End]:
    """Somebody for each name that is no pod here."""
    ends = {name: End(address=address) for name, address in _ADDRESSES.items() if name not in pods}
    ends |= {name: End(space, {"app": name}, address="10.1.1.1") for name, space in _NAMESPACES.items()}
    for name, kind, labels in (
        ("kafka", "Kafka", {"strimzi.io/cluster": "kafka", "strimzi.io/kind": "Kafka"}),
        ("postgres", "Cluster", {"cnpg.io/cluster": "postgres"}),
    ):
        if rendering.of(kind):
            ends[name] = End(NAMESPACE, labels, address="10.1.2.2")
    return ends


def _expected(flows: list[Flow], names: set[str], silent: set[str]) -> set[Flow]:
    return {
        Flow(one.source, one.target, one.port, one.protocol)
        for one in flows
        if not one.implicit and {one.source, one.target} <= names and not {one.source, one.target} & silent
    }


@pytest.mark.parametrize("way", ["direct", "operator"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_policies_are_the_table(rendered: Rendered, profile: str, way: str) -> None:
    rendering = rendered(profile, way)
    pods = _pods(rendering)
    ends = {**_outside(rendering, pods), **pods}
    policies = Policies(rendering.of("NetworkPolicy").values(), NAMESPACE)
    flows = _aliased(read_flows(), pods)
    silent = _silent(rendering)
    ports = {(one.port, one.protocol) for one in flows} | {(port, "TCP") for port in STRANGER_PORTS}
    found = set()
    for (source, target), (port, protocol) in product(product(ends, repeat=2), ports):
        if not (source in pods or target in pods):
            continue  # two strangers are not ours to judge
        if policies.allows(ends[source], ends[target], port, protocol):
            found.add(Flow(source, target, port, protocol))
    api = {one for one in found if one.target in OUTSIDE and one.port in (443, 6443) and one.target != "apiserver"}
    assert {one.source for one in api} <= {"operator", "provision", "uninstall"}, "the API server may be any address"
    assert found - api - _by_address(found) == _expected(flows, set(ends), silent) - api


def _aliased(flows: list[Flow], pods: dict[str, End]) -> list[Flow]:
    """With Fabric in the cluster the ledger is its peer."""
    if "fabric-peer" not in pods:
        return flows
    return [
        Flow(one.source, "fabric-peer", one.port, one.protocol, one.implicit) if one.target == "ledger" else one
        for one in flows
    ]


def _silent(rendering: Rendering) -> set[str]:
    """Names of the table that the values say nobody is."""
    silent = {"provider", "issuer"}
    if not rendering.of("ServiceMonitor"):
        silent |= {"prometheus", "ingress"}
    return silent


def _by_address(found: set[Flow]) -> set[Flow]:
    """Who may reach the API server, which may be any address, may reach any at its two ports, and be reached from any at the webhook's."""
    reaching = {"operator", "provision", "uninstall"}
    out = {one for one in found if one.source in reaching and one.port in (443, 6443) and one.target != "apiserver"}
    return out | {one for one in found if one.target == "operator" and one.port == 9443 and one.source != "apiserver"}


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


def test_policies_can_be_left_out(chart: Chart) -> None:
    assert not chart.render("trial", {"networkPolicy": {"enabled": False}}).of("NetworkPolicy")
