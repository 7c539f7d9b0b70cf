"""One owner at a time: helm applies the services, or hands the same objects to the operator as data."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest
import yaml

from infra.helm.golden import PROFILES
from infra.helm.rendering import NAMESPACE, Chart, Object, Rendering
from infra.provision.items import names
from operators.city.manifests import APPLICABLE, job_of, read_documents, workload
from operators.city.model import Target
from operators.city.order import find_cycle
from operators.city.spec import read_spec
from services.commands import provision
from services.registry import SERVICES
from tests.cluster.render.conftest import WAYS, Rendered

SERVICE = "provable.city/service"


def _data(rendering: Rendering, service: str) -> Object:
    found = [
        one for one in rendering.of("ConfigMap").values() if one["metadata"].get("labels", {}).get(SERVICE) == service
    ]
    assert len(found) == 1
    return found[0]


def _objects_of(rendering: Rendering, service: str) -> list[Object]:
    return [one for one in rendering.documents if one["metadata"].get("labels", {}).get(SERVICE) == service]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_data_is_what_helm_would_apply(rendered: Rendered, profile: str, service: str) -> None:
    given = list(yaml.safe_load_all(_data(rendered(profile, "operator"), service)["data"]["manifests.yaml"]))
    applied = _objects_of(rendered(profile), service)
    assert sorted(given, key=_place) == sorted(applied, key=_place)


def _place(document: Object) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def test_helm_applies_no_service_where_the_operator_does(rendered: Rendered) -> None:
    found = rendered("trial", "operator")
    assert set(found.of("Deployment")) == {"operator"}
    assert set(found.of("StatefulSet")) == {"kafka", "postgres", "ledger"}, "what holds state stays helm's"
    assert set(found.of("Job")) == {"provision", "uninstall", "trial-1"}
    assert set(rendered("trial").of("Deployment")) == set(SERVICES)
    assert not rendered("trial").of("City")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_operator_understands_what_it_is_given(rendered: Rendered, profile: str) -> None:
    found = rendered(profile, "operator")
    spec = read_spec(found.of("City")["city"]["spec"])
    assert {one.target.name for one in spec.services} == set(SERVICES)
    assert not find_cycle(
        [one.target.name for one in spec.services], {one.target.name: one.depends_on for one in spec.services}
    )
    for one in spec.services:
        documents = read_documents(found.of("ConfigMap")[one.target.manifests])
        assert workload(documents, one.target)
        assert {document["kind"] for document in documents} <= set(APPLICABLE)
    prepare = found.of("ConfigMap")[spec.prepare]
    for key in ("preflight.yaml", "migrate.yaml"):
        assert job_of(prepare, key, "x", "r")["metadata"]["name"] == "x"


def test_names_of_data_hold_the_version_and_the_hash_of_the_content(chart: Chart, rendered: Rendered) -> None:
    first = _data(rendered("trial", "operator"), "notary")
    assert re.fullmatch(r"notary-0-1-0-[0-9a-f]{8}", first["metadata"]["name"])
    same = _data(chart.render("trial", {"operator": {"enabled": True}}), "notary")
    assert same["metadata"]["name"] == first["metadata"]["name"]
    values = {"operator": {"enabled": True}, "services": {"notary": {"startSeconds": 60}}}
    other = _data(chart.render("trial", values), "notary")
    assert other["metadata"]["name"] != first["metadata"]["name"]
    assert other["data"] != first["data"]


def test_data_stays_for_the_way_back(rendered: Rendered) -> None:
    for one in rendered("trial", "operator").of("ConfigMap").values():
        if SERVICE in one["metadata"].get("labels", {}):
            assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_service_may_have_a_version_of_its_own(chart: Chart) -> None:
    values = {"version": "1.2.0", "operator": {"enabled": True}, "services": {"parking": {"version": "1.3.0+b_1"}}}
    found = chart.render("trial", values)
    services = {one["name"]: one for one in found.of("City")["city"]["spec"]["services"]}
    assert services["parking"]["version"] == "1.3.0+b_1"
    assert services["parking"]["manifests"].startswith("parking-1-3-0-b-1-")
    assert services["notary"]["version"] == found.of("City")["city"]["spec"]["version"] == "1.2.0"
    parking = workload(read_documents(_data(found, "parking")), Target("parking", "", ""))
    assert parking["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == "1.3.0_b_1"


def test_a_service_depends_on_whom_it_calls(rendered: Rendered) -> None:
    services = {
        one["name"]: one["dependsOn"] for one in rendered("trial", "operator").of("City")["city"]["spec"]["services"]
    }
    assert services["identity"] == []
    assert services["payments"] == ["identity", "metering", "notary"]
    assert services["gateway"] == sorted(set(SERVICES) - {"gateway"})


def test_handing_over_changes_annotations_only(chart: Chart, rendered: Rendered) -> None:
    before, after = rendered("trial"), chart.render("trial", {"operator": {"handover": True}})
    for service in SERVICES:
        for old, new in zip(_objects_of(before, service), _objects_of(after, service), strict=True):
            assert new["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
            assert new == old
    assert not set(after.of("City"))


# --- hooks --------------------------------------------------------------------------------------------


def _hook(document: Object) -> str:
    return str(document["metadata"].get("annotations", {}).get("helm.sh/hook", ""))


def test_what_prepares_runs_beside_the_first_installation_and_before_an_upgrade(
    chart: Chart, rendered: Rendered
) -> None:
    assert _hook(rendered("trial").of("Job")["prepare"]) == ""
    later = chart.render("trial", None, "--is-upgrade").of("Job")
    assert {name: _hook(one) for name, one in later.items() if name.startswith("prepare")} == {
        "prepare-preflight": "pre-upgrade",
        "prepare-migrate": "pre-upgrade",
    }
    weights = {
        name: int(later[name]["metadata"]["annotations"]["helm.sh/hook-weight"]) for name in later if _hook(later[name])
    }
    assert weights["provision"] < weights["prepare-preflight"] < weights["prepare-migrate"]


def test_uninstalling_waits_for_the_operator(rendered: Rendered) -> None:
    job = rendered("trial", "operator").of("Job")["uninstall"]
    assert _hook(job) == "pre-delete"
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == ["operator", "uninstall", "--namespace", "city", "--wait", "120"]
    assert job["spec"]["activeDeadlineSeconds"] > 120


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ({}, "tls,root-key,postgres,ledger"),
        ({"operator": {"enabled": True}}, "tls,root-key,postgres,ledger,operator-token"),
        ({"tls": {"mode": "cert-manager"}}, "root-key,postgres,ledger"),
        ({"existingSecrets": {"city-root-key": "ours"}}, "tls,postgres,ledger"),
    ],
)
def test_provisioning_makes_what_nobody_supplies(chart: Chart, values: dict[str, Any], groups: str) -> None:
    job = chart.render("trial", values).of("Job")["provision"]
    assert f"--only={groups}" in job["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_renewed_by_schedule_may_be_read_and_written(chart: Chart, way: str) -> None:
    """The rights name each secret that the command looks at."""
    rendering = chart.render("trial", WAYS[way])
    (container,) = rendering.of("CronJob")["renewal"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    parser = argparse.ArgumentParser()
    provision.add(parser.add_subparsers())
    wanted = provision.wanted_of(parser.parse_args(container["args"]), NAMESPACE)
    (rule,) = rendering.of("Role")["renewal"]["rules"]
    assert set(names(wanted)) <= set(rule["resourceNames"])
    assert set(rule["verbs"]) == {"get", "update"}


def test_renewal_by_schedule_can_be_left_out(chart: Chart) -> None:
    rendering = chart.render("trial", {"provision": {"schedule": ""}})
    assert not rendering.of("CronJob")
    assert "renewal" not in rendering.of("Role")
