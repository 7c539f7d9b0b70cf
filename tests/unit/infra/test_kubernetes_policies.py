"""NetworkPolicies as nftables: what connects and what does not, by the rules that would be in force."""

from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes.network_policies import Pod, World, read_world, ruleset
from tests.unit.infra.nft_rules import connects

WEB, API, STORE, FAR = "10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5"
NODE = "10.250.0.2"
PORTS = {("TCP", "http"): 8080, ("UDP", "traces"): 4317}


def pod(name: str, address: str, namespace: str = "city", **labels: str) -> Pod:
    return Pod(namespace, name, address, {"app": name, **labels}, PORTS)


WORLD = World(
    [pod("web", WEB), pod("api", API), pod("store", STORE, tier="data"), pod("web", FAR, "other")],
    {"city": {"name": "city"}, "other": {"name": "other", "team": "blue"}, "kube-system": {"name": "kube-system"}},
)


def policy(selector: dict[str, Any] | None = None, namespace: str = "city", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": "p"}, "spec": {"podSelector": selector or {}, **spec}}


def labelled(name: str) -> dict[str, Any]:
    return {"matchLabels": {"app": name}}


def test_without_policies_everything_connects() -> None:
    rules = ruleset([], WORLD)
    assert connects(rules, WEB, API, 80)
    assert connects(rules, WEB, NODE, 6443, hook="input")


def test_default_deny_lets_nothing_in_or_out_and_leaves_other_namespaces_alone() -> None:
    rules = ruleset([policy(policyTypes=["Ingress", "Egress"])], WORLD)
    assert not connects(rules, WEB, API, 80)
    assert not connects(rules, FAR, API, 80)
    assert not connects(rules, WEB, FAR, 80)
    assert not connects(rules, WEB, NODE, 6443, hook="input")
    assert connects(rules, FAR, NODE, 6443, hook="input")
    assert connects(rules, FAR, "10.244.0.9", 80)


def test_a_connection_needs_leave_on_both_sides() -> None:
    deny = policy(policyTypes=["Ingress", "Egress"])
    out = policy(labelled("web"), egress=[{"to": [{"podSelector": labelled("api")}]}], policyTypes=["Egress"])
    inward = policy(labelled("api"), ingress=[{"from": [{"podSelector": labelled("web")}]}])
    assert not connects(ruleset([deny, out], WORLD), WEB, API, 80)
    assert not connects(ruleset([deny, inward], WORLD), WEB, API, 80)
    both = ruleset([deny, out, inward], WORLD)
    assert connects(both, WEB, API, 80)
    assert not connects(both, API, WEB, 80)
    assert not connects(both, STORE, API, 80)


def test_policies_add_up() -> None:
    first = policy(labelled("api"), ingress=[{"from": [{"podSelector": labelled("web")}], "ports": [{"port": 80}]}])
    second = policy(labelled("api"), ingress=[{"from": [{"podSelector": labelled("store")}], "ports": [{"port": 81}]}])
    rules = ruleset([first, second], WORLD)
    answers = [connects(rules, *one) for one in ((WEB, API, 80), (STORE, API, 81), (WEB, API, 81), (STORE, API, 80))]
    assert answers == [True, True, False, False]


@pytest.mark.parametrize(
    ("port", "asked", "protocol", "connected"),
    [
        ({"port": 80}, 80, "tcp", True),
        ({"port": 80}, 80, "udp", False),
        ({"port": 80, "protocol": "UDP"}, 80, "udp", True),
        ({"port": 80, "endPort": 90}, 90, "tcp", True),
        ({"port": 80, "endPort": 90}, 91, "tcp", False),
        ({"port": "http"}, 8080, "tcp", True),
        ({"port": "traces", "protocol": "UDP"}, 4317, "udp", True),
        ({"port": "http"}, 80, "tcp", False),
        ({"port": "absent"}, 80, "tcp", False),
        ({"protocol": "UDP"}, 5353, "udp", True),
        ({"protocol": "UDP"}, 5353, "tcp", False),
    ],
)
def test_ports(port: dict[str, Any], asked: int, protocol: str, connected: bool) -> None:
    inward = ruleset([policy(labelled("api"), ingress=[{"ports": [port]}])], WORLD)
    assert connects(inward, WEB, API, asked, protocol) == connected
    outward = policy(labelled("web"), egress=[{"to": [{"podSelector": {}}], "ports": [port]}], policyTypes=["Egress"])
    assert connects(ruleset([outward], WORLD), WEB, API, asked, protocol) == connected


def test_peers_by_namespace_by_pod_and_by_both() -> None:
    blue = {"namespaceSelector": {"matchLabels": {"team": "blue"}}}

    def in_from(*peers: dict[str, Any]) -> str:
        return ruleset([policy(labelled("api"), ingress=[{"from": list(peers)}])], WORLD)

    assert connects(in_from(blue), FAR, API, 80)
    assert not connects(in_from(blue), WEB, API, 80)
    assert not connects(in_from({"podSelector": labelled("web")}), FAR, API, 80)  # without namespaces: its own only
    assert connects(in_from({**blue, "podSelector": labelled("web")}), FAR, API, 80)
    assert not connects(in_from({**blue, "podSelector": labelled("api")}), FAR, API, 80)
    assert connects(in_from({"namespaceSelector": {}}), FAR, API, 80)
    assert connects(in_from(), FAR, API, 80)  # no peers: everybody
    assert not connects(in_from({"podSelector": labelled("nobody")}), WEB, API, 80)


def test_blocks_with_exceptions_in_both_directions() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}}
    out = ruleset(
        [policy(labelled("web"), egress=[{"to": [block], "ports": [{"port": 443}]}], policyTypes=["Egress"])], WORLD
    )
    assert connects(out, WEB, "10.9.1.1", 443)
    assert not connects(out, WEB, "10.2.1.1", 443)
    assert not connects(out, WEB, "11.0.0.1", 443)
    assert not connects(
        ruleset([policy(labelled("api"), ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}]}])], WORLD), WEB, API, 80
    )
    everywhere = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}}
    inward = ruleset([policy(labelled("api"), ingress=[{"from": [everywhere]}])], WORLD)
    assert connects(inward, "192.0.2.1", API, 80)
    assert not connects(inward, WEB, API, 80)


def test_an_egress_policy_leaves_ingress_alone_and_types_are_filled_in() -> None:
    egress = ruleset([policy(labelled("api"), egress=[], policyTypes=["Egress"])], WORLD)
    assert connects(egress, WEB, API, 80)
    assert not connects(egress, API, WEB, 80)
    both = ruleset(
        [policy(labelled("api"), egress=[{"to": [{"podSelector": {}}]}])], WORLD
    )  # both types, as egress is there
    assert not connects(both, WEB, API, 80)
    assert connects(both, API, WEB, 80)


def test_the_node_s_dns_is_a_pod_to_policies() -> None:
    dns = Pod("kube-system", "kube-dns", NODE, {"k8s-app": "kube-dns"}, {("UDP", "dns"): 53})
    world = World([*WORLD.pods, dns], WORLD.spaces)
    to = {
        "namespaceSelector": {"matchLabels": {"name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    rule = {"to": [to], "ports": [{"port": 53, "protocol": "UDP"}]}
    rules = ruleset([policy(egress=[rule], policyTypes=["Egress"])], world)
    assert connects(rules, WEB, NODE, 53, "udp", hook="input")
    assert not connects(rules, WEB, NODE, 6443, "tcp", hook="input")


def test_only_pods_with_an_address_of_their_own_count() -> None:
    def found(name: str, address: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
        ports = [{"name": "http", "containerPort": 8080}, {"containerPort": 1}]
        return {
            "metadata": {"namespace": "city", "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"ports": ports}, {}], **spec},
            "status": {"phase": phase, "podIP": address},
        }

    pods = [found("b", WEB), found("a", API), found("host", NODE, hostNetwork=True), found("done", STORE, "Succeeded")]
    world = read_world([*pods, found("new", "")], [{"metadata": {"name": "city"}}])
    assert [(one.name, one.address) for one in world.pods] == [("a", API), ("b", WEB)]
    assert world.pods[0].ports == {("TCP", "http"): 8080}


def test_rules_are_replaced_in_one_step_and_the_same_for_any_order() -> None:
    policies = [policy(labelled(name), ingress=[{"from": [{"podSelector": {}}]}]) for name in ("web", "api")]
    rules = ruleset(policies, WORLD)
    assert rules == ruleset(policies[::-1], WORLD)
    assert rules.splitlines()[:2] == ["table inet provable_city_policies", "delete table inet provable_city_policies"]


def test_what_is_said_of_ipv6_allows_nothing_and_breaks_nothing() -> None:
    both = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]
    egress = policy(labelled("web"), policyTypes=["Egress"], egress=[{"to": both, "ports": [{"port": 443}]}])
    rules = ruleset([egress], WORLD)
    assert "::" not in rules
    assert connects(rules, WEB, API, 443) and not connects(rules, WEB, API, 80)
    only = policy(labelled("web"), policyTypes=["Egress"], egress=[{"to": both[1:]}])
    assert not connects(ruleset([only], WORLD), WEB, API, 443)
