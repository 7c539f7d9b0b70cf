"""The evaluator of NetworkPolicies, on policies small enough to know the answer."""

from __future__ import annotations

from typing import Any

import pytest

from infra.helm.policies import End, Policies

WEB, BASE, OTHER = End("city", {"app": "web"}), End("city", {"app": "base"}), End("other", {"app": "web"})
MACHINE = End(address="192.0.2.7")


def _policy(selector: dict[str, str], namespace: str = "city", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": selector}, **spec},
    }


def _deny() -> dict[str, Any]:
    return _policy({}, policyTypes=["Ingress", "Egress"])


def test_without_a_policy_everything_is_open() -> None:
    assert Policies([], "city").allows(WEB, BASE, 5432)


def test_a_policy_without_rules_denies() -> None:
    policies = Policies([_deny()], "city")
    assert not policies.allows(WEB, BASE, 5432)
    assert not policies.allows(OTHER, BASE, 5432)
    assert policies.allows(OTHER, End("third"), 80), "policies of one namespace do not touch another"


def test_both_sides_must_allow() -> None:
    out = _policy(
        {"app": "web"},
        policyTypes=["Egress"],
        egress=[{"to": [{"podSelector": {"matchLabels": {"app": "base"}}}], "ports": [{"port": 5432}]}],
    )
    into = _policy(
        {"app": "base"},
        policyTypes=["Ingress"],
        ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
    )
    assert Policies([_deny(), out, into], "city").allows(WEB, BASE, 5432)
    assert not Policies([_deny(), out], "city").allows(WEB, BASE, 5432)
    assert not Policies([_deny(), into], "city").allows(WEB, BASE, 5432)
    assert not Policies([_deny(), out, into], "city").allows(WEB, BASE, 5433)
    assert not Policies([_deny(), out, into], "city").allows(WEB, BASE, 5432, "UDP")
    assert not Policies([_deny(), out, into], "city").allows(BASE, WEB, 5432)
    assert not Policies([_deny(), out, into], "city").allows(OTHER, BASE, 5432), (
        "a pod selector means the own namespace"
    )


def test_namespaces_and_blocks() -> None:
    into = _policy(
        {"app": "base"},
        policyTypes=["Ingress"],
        ingress=[
            {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]},
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}], "ports": [{"port": 1, "endPort": 9}]},
        ],
    )  # fmt: skip
    policies = Policies([into], "city")
    assert policies.allows(OTHER, BASE, 80)
    assert not policies.allows(WEB, BASE, 80)
    assert policies.allows(MACHINE, BASE, 5)
    assert not policies.allows(MACHINE, BASE, 10)
    assert not policies.allows(End(address="192.0.2.200"), BASE, 5)


def test_a_rule_without_peers_is_for_everybody() -> None:
    into = _policy({"app": "base"}, policyTypes=["Ingress"], ingress=[{"ports": [{"port": 80}]}])
    assert Policies([into], "city").allows(MACHINE, BASE, 80)
    assert not Policies([into], "city").allows(MACHINE, BASE, 81)


def test_types_are_as_the_api_server_fills_them_in() -> None:
    into = _policy({"app": "base"}, ingress=[])
    assert Policies([into], "city").allows(BASE, WEB, 80), "egress is not concerned"
    assert not Policies([into], "city").allows(WEB, BASE, 80)


def test_what_it_cannot_judge_it_refuses() -> None:
    into = _policy({"app": "base"}, policyTypes=["Ingress"], ingress=[{"ports": [{"port": "http"}]}])
    with pytest.raises(ValueError, match="by name"):
        Policies([into], "city").allows(WEB, BASE, 80)
