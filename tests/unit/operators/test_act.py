"""What the operator does to the cluster: all of it can be done twice, and only what is its own is taken away."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from citykit.errors import PermissionDenied, Unavailable
from operators.city.act import HANDOVER, HELD, Actor
from operators.city.kube import Object
from operators.city.lease import NotLeading
from operators.city.manifests import share
from operators.city.model import ApplyCanary, ApplyStable, Remove, RemoveCanary, RunJob, State, Target, WeighRoutes
from tests.unit.operators.fake_api import FakeApi, service_documents

CITY: Object = {"kind": "City", "metadata": {"name": "city", "uid": "u1"}, "status": {"rollout": {"id": "3-1"}}}
OLD = Target("metering", "1.0", "metering-1.0-aaaaaaaa")
NEW = Target("metering", "1.1", "metering-1.1-bbbbbbbb")


def holding(api: FakeApi, target: Target, documents: list[Object], key: str = "manifests.yaml") -> None:
    labels = {"app.kubernetes.io/part-of": "provable-city", "provable.city/version": target.version}
    metadata = {"name": target.manifests, "labels": labels}
    api.put({"kind": "ConfigMap", "metadata": metadata, "data": {key: yaml.safe_dump_all(documents)}})


@pytest.fixture
def api() -> FakeApi:
    found = FakeApi()
    holding(found, OLD, service_documents("metering", "1.0"))
    holding(found, NEW, service_documents("metering", "1.1"))
    return found


async def test_the_workload_comes_last_and_says_where_it_came_from(api: FakeApi) -> None:
    await Actor(api).act(ApplyStable(OLD), CITY)
    applied = [kind for verb, kind, _ in api.calls if verb == "apply"]
    assert applied == ["Service", "Deployment"]
    metadata = api.objects["Deployment", "metering"]["metadata"]
    assert metadata["annotations"]["provable.city/manifests"] == OLD.manifests
    assert "ownerReferences" not in metadata, "deleting the City takes no running city down"


async def test_what_the_new_version_lacks_is_taken_away_and_nothing_else(api: FakeApi) -> None:
    holding(api, OLD, service_documents("metering", "1.0", autoscaled=True))
    budget: Object = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "metering", "labels": {"provable.city/service": "metering"}},
    }
    api.put(budget)
    actor = Actor(api)
    await actor.act(ApplyStable(OLD), CITY)
    assert api.names("HorizontalPodAutoscaler") == ["metering"]
    await actor.act(ApplyStable(NEW), CITY)
    assert api.names("HorizontalPodAutoscaler") == []
    assert api.names("PodDisruptionBudget") == ["metering"], "somebody else's"


async def test_every_act_can_be_done_twice(api: FakeApi) -> None:
    actor = Actor(api)
    for step in (ApplyStable(OLD), ApplyCanary(NEW, 50), RemoveCanary("metering"), Remove("metering")):
        await actor.act(step, CITY)
        first = {
            key: {**one, "metadata": {**one["metadata"], "resourceVersion": ""}} for key, one in api.objects.items()
        }
        await actor.act(step, CITY)
        again = {
            key: {**one, "metadata": {**one["metadata"], "resourceVersion": ""}} for key, one in api.objects.items()
        }
        assert again == first, step
    assert not actor.refused


async def test_a_canary_gets_its_share_and_the_autoscaler_stands_still(api: FakeApi) -> None:
    holding(api, OLD, service_documents("metering", "1.0", autoscaled=True))
    holding(api, NEW, service_documents("metering", "1.1", autoscaled=True))
    actor = Actor(api)
    await actor.act(ApplyStable(OLD), CITY)
    api.objects["Deployment", "metering"]["spec"]["replicas"] = 4
    await actor.act(ApplyCanary(NEW, 25), CITY)
    await actor.act(ApplyCanary(NEW, 50), CITY)
    canary = api.objects["Deployment", "metering-canary"]
    assert canary["spec"]["replicas"] == 2
    assert canary["spec"]["selector"]["matchLabels"]["provable.city/track"] == "canary"
    assert canary["spec"]["template"]["metadata"]["labels"]["provable.city/track"] == "canary"
    scaler = api.objects["HorizontalPodAutoscaler", "metering"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (4, 4)
    await actor.act(RemoveCanary("metering"), CITY)
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 6)
    assert HELD not in scaler["metadata"]["annotations"]


async def test_promoting_frees_the_autoscaler_with_its_new_bounds(api: FakeApi) -> None:
    holding(api, OLD, service_documents("metering", "1.0", autoscaled=True))
    new = service_documents("metering", "1.1", autoscaled=True)
    new[-1]["spec"]["maxReplicas"] = 9
    holding(api, NEW, new)
    actor = Actor(api)
    for step in (ApplyStable(OLD), ApplyCanary(NEW, 50), ApplyStable(NEW), RemoveCanary("metering")):
        await actor.act(step, CITY)
    assert api.objects["HorizontalPodAutoscaler", "metering"]["spec"]["maxReplicas"] == 9
    assert api.names("Deployment") == ["metering"]


async def test_replicas_survive_a_new_autoscaler(api: FakeApi) -> None:
    """Leaving a field out that we alone applied would reset it to one."""
    holding(api, NEW, service_documents("metering", "1.1", autoscaled=True))
    actor = Actor(api)
    await actor.act(ApplyStable(OLD), CITY)
    ours = {"manager": "provable-city-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    api.objects["Deployment", "metering"]["metadata"]["managedFields"] = [ours]
    managers: list[str] = []
    apply = api.apply

    async def noted(document: Object, manager: str = "") -> Object:
        managers.append(manager)
        return await apply(document)

    api.apply = noted  # type: ignore[method-assign]
    await Actor(api).act(ApplyStable(NEW), CITY)
    assert managers.count(HANDOVER) == 1


async def test_a_route_sends_the_canary_exactly_its_percent(api: FakeApi) -> None:
    reference = {"name": "metering", "port": 8080}
    route: Object = {
        "kind": "HTTPRoute",
        "metadata": {"name": "metering", "labels": {"app.kubernetes.io/part-of": "provable-city"}},
        "spec": {"rules": [{"backendRefs": [reference]}, {"backendRefs": [{"name": "other", "port": 1}]}]},
    }
    api.put(route)
    actor = Actor(api)
    await actor.act(ApplyStable(OLD), CITY)
    await actor.act(ApplyCanary(NEW, 25), CITY)
    await actor.act(WeighRoutes(NEW, 25), CITY)
    rules = api.objects["HTTPRoute", "metering"]["spec"]["rules"]
    shares = {one["name"]: one["weight"] for one in rules[0]["backendRefs"]}
    assert shares == {"metering-stable": 75, "metering-canary": 25}
    assert rules[1]["backendRefs"] == [{"name": "other", "port": 1}]
    assert set(api.names("Service")) == {"metering", "metering-stable", "metering-canary"}
    await actor.act(RemoveCanary("metering"), CITY)
    assert api.objects["HTTPRoute", "metering"]["spec"]["rules"][0]["backendRefs"] == [reference]
    assert api.names("Service") == ["metering"]


async def test_a_stateful_set_has_no_canary_and_the_refusal_says_what_to_do(api: FakeApi) -> None:
    holding(api, NEW, service_documents("metering", "1.1", kind="StatefulSet"))
    actor = Actor(api)
    await actor.act(ApplyCanary(NEW, 25), CITY)
    (why,) = actor.refused.values()
    assert "StatefulSet" in why
    assert "leave out `canary`" in why
    assert api.names("Deployment") == []


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}], "holds a Secret; allowed are"),
        ([{"apiVersion": "v1", "kind": "Service", "metadata": {}}], "no kind and metadata.name"),
        (
            [{"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "metering"}}],
            "this operator speaks apps/v1",
        ),
        ([], "has no manifests.yaml"),
        (service_documents("metering", "1") * 20, "32 are the most"),
        (service_documents("metering", "1")[1:], "exactly one Deployment or StatefulSet"),
        (service_documents("payments", "1"), "named metering"),
    ],
)
async def test_data_that_is_no_service_is_refused_with_the_reason(
    api: FakeApi, documents: list[Any], said: str
) -> None:
    holding(api, NEW, documents)
    if not documents:
        api.objects["ConfigMap", NEW.manifests]["data"] = {"other.yaml": "x"}
    actor = Actor(api)
    await actor.act(ApplyStable(NEW), CITY)
    assert said in actor.refused["metering", NEW.manifests]
    assert not [call for call in api.calls if call[1] == "Deployment"]


async def test_no_yaml_is_refused_with_its_line(api: FakeApi) -> None:
    api.objects["ConfigMap", NEW.manifests]["data"]["manifests.yaml"] = "kind: Deployment\n{{"
    actor = Actor(api)
    await actor.act(ApplyStable(NEW), CITY)
    assert "no YAML at line 2" in actor.refused["metering", NEW.manifests]


async def test_missing_data_is_refused_and_heals(api: FakeApi) -> None:
    kept = api.objects.pop(("ConfigMap", NEW.manifests))
    actor = Actor(api)
    await actor.act(ApplyStable(NEW), CITY)
    assert "does not exist" in actor.refused["metering", NEW.manifests]
    api.objects["ConfigMap", NEW.manifests] = kept
    await actor.act(ApplyStable(NEW), CITY)
    assert not actor.refused


async def test_a_job_runs_once_under_its_own_name(api: FakeApi) -> None:
    job: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "annotations": {"helm.sh/hook": "pre-upgrade"}},
        "spec": {"template": {}},
    }
    holding(api, Target("prepare", "1.1", "prepare-1.1-cc"), [job], "migrate.yaml")
    actor = Actor(api)
    for _ in range(2):
        await actor.act(RunJob("migrate-3-1", "prepare-1.1-cc", "migrate.yaml"), CITY)
    metadata = api.objects["Job", "migrate-3-1"]["metadata"]
    assert metadata["labels"]["provable.city/rollout"] == "3-1"
    assert metadata["ownerReferences"][0]["uid"] == "u1"
    assert "helm.sh/hook" not in metadata["annotations"]
    await actor.act(RunJob("back-contracts-3-1", "prepare-1.1-cc", "contracts.yaml"), CITY)
    assert "has no contracts.yaml; it holds migrate.yaml" in actor.refused_jobs["back-contracts-3-1"]
    actor.forget()
    assert not actor.refused_jobs


async def test_one_that_does_not_lead_writes_nothing(api: FakeApi) -> None:
    def not_leading() -> None:
        raise NotLeading("another leads")

    with pytest.raises(NotLeading):
        await Actor(api, not_leading).act(ApplyStable(OLD), CITY)
    assert not api.calls


async def test_no_answer_is_no_refusal(api: FakeApi) -> None:
    api.refusals["apply", "Deployment"] = Unavailable("away")
    actor = Actor(api)
    with pytest.raises(Unavailable):
        await actor.act(ApplyStable(OLD), CITY)
    assert not actor.refused


async def test_a_role_that_lacks_an_optional_kind_is_no_fault_and_one_that_lacks_another_is(api: FakeApi) -> None:
    api.refusals["list", "HTTPRoute"] = PermissionDenied("forbidden")
    actor = Actor(api)
    await actor.act(ApplyStable(OLD), CITY)
    assert not actor.refused
    api.refusals["list", "Service"] = PermissionDenied("services is forbidden")
    await actor.act(ApplyStable(OLD), CITY)
    assert "services is forbidden" in actor.refused["metering", OLD.manifests]


async def test_data_is_collected_only_when_old_and_unneeded(api: FakeApi) -> None:
    for name, version, age_s in (
        ("a-1", "0.8", 9_999.0),
        ("b-1", "0.9", 9_999.0),
        ("c-1", "0.7", 1.0),
        ("d-1", "", 9_999.0),
    ):
        labels = {"app.kubernetes.io/part-of": "provable-city"} | (
            {"provable.city/version": version} if version else {}
        )
        api.put({"kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}, age_s)
    for number in range(5):
        labels = {"provable.city/applied-by": "operator", "provable.city/rollout": f"g{number}"}
        api.put({"kind": "Job", "metadata": {"name": f"migrate-g{number}", "labels": labels}})
    gone = await Actor(api).collect(
        frozenset({OLD.manifests, NEW.manifests}), frozenset({"0.9"}), [f"g{n}" for n in range(5)]
    )
    assert gone == ["a-1", "migrate-g0", "migrate-g1"]


async def test_tidying_ends_what_a_crash_left(api: FakeApi) -> None:
    await Actor(api).act(ApplyStable(NEW), CITY)
    labels = {"provable.city/service": "metering", "provable.city/applied-by": "operator"}
    api.put({"kind": "PodDisruptionBudget", "metadata": {"name": "left", "labels": labels}})
    await Actor(api).tidy(State(last_good=(OLD,)))
    assert api.names("PodDisruptionBudget") == ["left"], "what runs is not the last good version: hands off"
    await Actor(api).tidy(State(last_good=(NEW,)))
    assert api.names("PodDisruptionBudget") == []


@pytest.mark.parametrize(("replicas", "weight", "pods"), [(1, 1, 1), (4, 25, 1), (4, 26, 2), (10, 99, 10), (0, 50, 1)])
def test_a_share_is_rounded_up(replicas: int, weight: int, pods: int) -> None:
    assert share(replicas, weight) == pods
