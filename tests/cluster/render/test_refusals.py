"""Values that are unknown or cannot be: refused, with the field and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from infra.helm.rendering import Chart, Refused

OPERATOR = {"enabled": True}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown at the top": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "unknown in a service": ({"services": {"identity": {"replica": 2}}}, "additional properties 'replica' not allowed"),
    "unknown service": ({"services": {"voting": {}}}, "additional properties 'voting' not allowed"),
    "no such profile": ({"profile": "village"}, "must be one of 'trial', 'small', 'city', 'region'"),
    "no such mode": ({"kafka": {"mode": "redpanda"}}, "must be one of 'bundled', 'strimzi', 'external'"),
    "no size": ({"kafka": {"storage": "much"}}, "/kafka/storage"),
    "no resources": ({"prepare": {"resources": {"limits": {"gpu": 1}}}}, "additional properties 'gpu' not allowed"),
    "root": ({"podUser": {"runAsUser": 0}}, "/podUser/runAsUser"),
    "a parameter that loses money": ({"postgres": {"parameters": {"fsync": "off"}}}, "postgres.parameters.fsync is not for choosing"),
    "an approval of many": ({"operator": {"approvals": 3}}, "/operator/approvals"),
    "the development peer in earnest": ({"profile": "small"}, "for the profile trial only, not small"),
    "invented homes in earnest": (
        {"profile": "small", "trial": {"enabled": True}, "ledger": {"mode": "bundled"}},
        "for the profile trial only, not small",
    ),
    "one broker for a city": (
        {"profile": "city", "ledger": {"mode": "external", "external": {"peer": "p:7051"}}},
        "kafka.mode=bundled is one pod",
    ),
    "two writers": ({"services": {"identity": {"replicas": 2}}}, "one process writes to its schema"),
    "an autoscaler for a writer": (
        {"services": {"metering": {"autoscaling": {"enabled": True}}}},
        "only the gateway may have an autoscaler",
    ),
    "a canary of a writer": ({"operator": OPERATOR, "services": {"parking": {"canary": {"steps": [50]}}}}, "only the gateway"),
    "replicas and an autoscaler": (
        {"services": {"gateway": {"replicas": 2, "autoscaling": {"enabled": True}}}},
        "leave replicas out",
    ),
    "an autoscaler upside down": (
        {"services": {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9}}}},
        "must not be above maxReplicas",
    ),
    "a canary without an operator": ({"services": {"gateway": {"canary": {"steps": [50]}}}}, "set operator.enabled=true"),
    "no time to drain": (
        {"services": {"notary": {"terminationGracePeriodSeconds": 22, "preStopSeconds": 5}}},
        "at least preStopSeconds and 20 more",
    ),
    "unknown setting": ({"settings": {"CITY_NOTARY_SPEED": "2"}}, "settings.CITY_NOTARY_SPEED is no setting"),
    "unknown setting of one": (
        {"services": {"notary": {"settings": {"CITY_NOTARY_SPEED": "2"}}}},
        "services.notary.settings.CITY_NOTARY_SPEED is no setting",
    ),
    "copies without brokers": ({"kafka": {"replication": 3}}, "must be 1 with kafka.mode=bundled"),
    "more copies than brokers": (
        {"kafka": {"mode": "strimzi", "replication": 5}},
        "must not be above kafka.strimzi.replicas",
    ),
    "Kafka nowhere": ({"kafka": {"mode": "external"}}, "needs kafka.external.bootstrap"),
    "PostgreSQL nowhere": ({"postgres": {"mode": "external"}}, "needs postgres.external.host"),
    "a channel shared with nobody": (
        {"profile": "small", "ledger": {"mode": "bundled", "endorsements": 2}},
        "networkPolicy.peers.organisations must say who that is",
    ),
    "no schedule": ({"provision": {"schedule": "weekly"}}, "/provision/schedule"),
    "contracts on the development peer": (
        {"ledger": {"contracts": {"deploy": True}}},
        "the development peer takes the contracts that run beside it",
    ),
    "contracts without a Job": (
        {"profile": "small", "prepare": {"enabled": False}, "ledger": {"mode": "bundled", "contracts": {"deploy": True}}},
        "ledger.contracts.deploy needs prepare.enabled=true",
    ),
    "contracts nowhere": (
        {"profile": "small", "ledger": {"mode": "external", "contracts": {"deploy": True}}},
        "needs ledger.contracts.chaincodes",
    ),
    "a chaincode of no contract": (
        {"ledger": {"contracts": {"chaincodes": {"voting": "c:7101"}}}},
        "ledger.contracts.chaincodes.voting is no contract",
    ),
    "a peer without a port": ({"ledger": {"contracts": {"peers": ["peer"]}}}, "/ledger/contracts/peers"),
    "a ledger nowhere": ({"ledger": {"mode": "external"}}, "needs ledger.external.peer"),
    "Kafka behind a wall": (
        {"kafka": {"mode": "external", "external": {"bootstrap": "k:9093"}}},
        "networkPolicy.peers.kafka must say who that is",
    ),
    "nobody makes certificates": ({"provision": {"enabled": False}}, "nobody would make certificates"),
    "unknown secret": ({"existingSecrets": {"root": "mine"}}, "existingSecrets.root is no secret of the city"),
    "a root key without its token": (
        {"operator": OPERATOR, "existingSecrets": {"city-root-key": "ours"}},
        "supply operator-token too",
    ),
    "half of the passwords": (
        {"existingSecrets": {"postgres-admin": "ours", "postgres-identity": "x"}},
        "supply postgres-forecasting too",
    ),
    "a provider without a key": ({"payments": {"provider": {"url": "https://p.example"}}}, "existingSecret"),
    "a provider without TLS": ({"payments": {"provider": {"url": "http://p.example"}}}, "/payments/provider/url"),
    "a door without a name": ({"expose": {"mode": "ingress"}}, "needs expose.host"),
    "a route to nowhere": ({"expose": {"mode": "httproute", "host": "c.example"}}, "needs expose.parentRefs"),
    "a door that is shut": ({"expose": {"mode": "ingress", "host": "c.example"}}, "networkPolicy.peers.ingress"),
    "questions to nobody": (
        {"operator": {"enabled": True, "gates": {"analyses": [{"name": "a", "query": "up", "successCondition": "result > 0"}]}}},
        "set operator.gates.prometheusUrl",
    ),
    "approvals nobody checks": (
        {"operator": {"enabled": True, "approvals": 2, "webhook": {"enabled": False}}},
        "needs operator.webhook.enabled=true",
    ),
    "half an order": ({"operator": {"enabled": True, "order": ["identity"]}}, "must name each service once"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_what_to_do(chart: Chart, name: str) -> None:
    values, said = CASES[name]
    with pytest.raises(Refused) as refused:
        chart.render("", values)
    assert said in str(refused.value)


def test_the_defaults_are_fit_for_a_trial(chart: Chart) -> None:
    assert chart.render().text


def test_the_kinds_have_no_values(chart: Chart) -> None:
    with pytest.raises(Refused, match="additional properties 'replicas' not allowed"):
        chart.run("template", "x", str(chart.folder.parent / "city-crds"), "--set=replicas=1")
