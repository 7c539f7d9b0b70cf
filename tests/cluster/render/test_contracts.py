"""Contracts brought by a Job of the rollout: only where it is asked for, after the migrations, and for chaincodes that find their own packages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.helm.facts import CHART
from infra.helm.policies import End, Policies
from infra.helm.rendering import NAMESPACE, Chart, Object, Rendering
from operators.city.manifests import job_of
from operators.city.spec import read_spec
from services.commands import ledger_contracts
from tests.cluster.render.conftest import WAYS

CHAINCODES: dict[str, int] = yaml.safe_load((CHART / "files" / "services.yaml").read_text())["chaincodes"]
PLACES = {name: f"chaincodes.example.org:{port}" for name, port in CHAINCODES.items()}
BROUGHT: dict[str, dict[str, Any]] = {
    "region": {"contracts": {"deploy": True, "waitSeconds": 90}},
    "city": {"contracts": {"deploy": True, "chaincodes": PLACES, "peers": ["peer-0.example.org:7051"]}},
}


def brought(chart: Chart, profile: str, way: str, *options: str, **more: Any) -> Rendering:
    return chart.render(profile, {**WAYS[way], "ledger": BROUGHT[profile], **more}, *options)


def job(rendering: Rendering) -> Object:
    spec = read_spec(rendering.of("City")["city"]["spec"])
    return job_of(rendering.of("ConfigMap")[spec.prepare], "contracts.yaml", "x", "r")


def arguments(container: Object) -> argparse.Namespace:
    """As the command itself reads them."""
    parser = argparse.ArgumentParser()
    ledger_contracts.add(parser.add_subparsers())
    assert container["args"][0] == "ledger"
    return parser.parse_args(container["args"][1:])


def container_of(document: Object) -> Object:
    (one,) = document["spec"]["template"]["spec"]["containers"]
    return dict(one)


@pytest.mark.parametrize("profile", BROUGHT)
def test_the_rollout_has_the_job_only_where_it_is_asked_for(chart: Chart, profile: str) -> None:
    assert job(brought(chart, profile, "operator"))["metadata"]["name"] == "x"
    plain = chart.render(profile, WAYS["operator"])
    (prepare,) = [one for name, one in plain.of("ConfigMap").items() if name.startswith("prepare-")]
    assert set(prepare["data"]) == {"preflight.yaml", "migrate.yaml"}
    assert "contracts" not in plain.of("NetworkPolicy")


def test_it_is_told_our_peers_and_chaincodes(chart: Chart) -> None:
    bundled = arguments(container_of(job(brought(chart, "region", "operator"))))
    assert bundled.peer == ["fabric-peer-0:7051", "fabric-peer-1:7051"]
    assert bundled.wait == 90
    assert sorted(bundled.chaincode) == sorted(
        f"{name}=chaincode-0-1-0.{NAMESPACE}.svc:{port}" for name, port in CHAINCODES.items()
    )
    outside = arguments(container_of(job(brought(chart, "city", "operator"))))
    assert outside.peer == ["peer-0.example.org:7051"]
    assert sorted(outside.chaincode) == sorted(f"{name}={place}" for name, place in PLACES.items())


@pytest.mark.parametrize("profile", BROUGHT)
def test_it_holds_the_administrators_identity_and_nothing_of_others(chart: Chart, profile: str) -> None:
    existing = {"existingSecrets": {"ledger-admin": "our-admin", "fabric-chaincode": "our-chaincode"}}
    pod = job(brought(chart, profile, "operator", **existing))["spec"]["template"]["spec"]
    secrets = {one["name"]: one["secret"] for one in pod["volumes"] if "secret" in one}
    assert {name: one["secretName"] for name, one in secrets.items()} == {
        "ledger": "our-admin",
        "chaincode": "our-chaincode",
    }
    paths = {item["path"] for item in secrets["ledger"]["items"]}
    assert {"members/admin.pem", "members/admin.key"} <= paths
    assert {item["path"] for item in secrets["chaincode"]["items"]} == {"ca.crt", "peer.crt", "peer.key"}
    variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    for name in ("CITY_FABRIC_TLS_CA", "CITY_FABRIC_TLS_CERT", "CITY_FABRIC_TLS_KEY"):
        assert variables[name].removeprefix("/etc/city/ledger/") in paths


def test_missing_approvals_fail_it_at_once_and_leave_it_the_time_to_wait(chart: Chart) -> None:
    spec = job(brought(chart, "region", "operator"))["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert rule["onExitCodes"]["containerName"] == container_of({"spec": spec})["name"]
    assert spec["activeDeadlineSeconds"] > 90


def test_without_the_operator_it_is_a_hook_after_the_migrations(chart: Chart) -> None:
    found = brought(chart, "region", "direct", "--is-upgrade").of("Job")
    hooks = {name: one["metadata"]["annotations"] for name, one in found.items() if name.startswith("prepare-")}
    weights = {name: int(one["helm.sh/hook-weight"]) for name, one in hooks.items()}
    assert weights["prepare-migrate"] < weights["prepare-contracts"]
    assert {one["helm.sh/hook"] for one in hooks.values()} == {"pre-upgrade"}
    assert "contracts" in brought(chart, "region", "direct").of("Job")


def test_chaincodes_find_their_packages_by_what_the_job_is_told(chart: Chart) -> None:
    rendering = brought(chart, "region", "operator")
    deployment = rendering.of("Deployment")["chaincode-0-1-0"]
    (places,) = deployment["spec"]["template"]["spec"]["initContainers"]
    made, brings = arguments(places), arguments(container_of(job(rendering)))
    assert (made.chaincode, made.tls) == (brings.chaincode, brings.tls)
    served = container_of(deployment)["args"]
    assert served == ["serve", "chaincode", f"--places={made.places}"]
    assert made.places.parent == Path("/var/lib/city")


def test_each_version_has_chaincodes_of_its_own_that_stay(chart: Chart) -> None:
    for version, name in (("1.0.0", "chaincode-1-0-0"), ("1.1.0", "chaincode-1-1-0")):
        rendering = brought(chart, "region", "operator", version=version)
        for kind in ("Deployment", "Service"):
            one = rendering.of(kind)[name]
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        chosen = rendering.of("Service")[name]["spec"]["selector"]
        pod = rendering.of("Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        assert chosen["provable.city/node"] == pod["provable.city/node"] == name
    plain = chart.render("region", WAYS["operator"]).of("Deployment")["chaincode"]
    assert "annotations" not in plain["metadata"]


@pytest.mark.parametrize("profile", BROUGHT)
def test_its_pod_reaches_the_peers_and_nothing_else(chart: Chart, profile: str) -> None:
    rendering = brought(chart, profile, "operator")
    policies = Policies(rendering.of("NetworkPolicy").values(), NAMESPACE)
    pods = {
        pod["metadata"]["labels"]["app.kubernetes.io/name"]: End(NAMESPACE, pod["metadata"]["labels"])
        for pod in rendering.pods()
    }
    peer = pods.get("fabric-peer", End(address="192.0.2.10"))
    assert policies.allows(pods["contracts"], peer, 7051)
    assert not policies.allows(pods["prepare"], peer, 7051)
    reached = {
        name
        for name, pod in pods.items()
        for port in (50051, 7050, 7101, 5432)
        if policies.allows(pods["contracts"], pod, port)
    }
    assert reached == set()
