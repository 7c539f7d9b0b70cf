"""A route gives a canary its percent once its pods are ready, and again after a crash in between: nobody is sent to pods that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from operators.city.act import Actor
from operators.city.kube import Object
from operators.city.model import ApplyCanary, ApplyStable, Progress, Target, WeighRoutes
from operators.city.observe import Observer, tracks, utc_now
from tests.unit.operators.fake_api import FakeApi, service_documents
from tests.unit.operators.planned import hand, step, target, waited, world
from tests.unit.operators.test_plan_forward import TO, at, canary

CITY: Object = {"kind": "City", "metadata": {"name": "city", "uid": "u1"}, "status": {"rollout": {"id": "3-1"}}}
OLD = Target("metering", "1.0", "metering-1.0-aaaaaaaa")
NEW = Target("metering", "1.1", "metering-1.1-bbbbbbbb")
ROUTE: Object = {
    "kind": "HTTPRoute",
    "metadata": {"name": "metering", "labels": {"app.kubernetes.io/part-of": "provable-city"}},
    "spec": {"rules": [{"backendRefs": [{"name": "metering", "port": 8080}]}]},
}


@pytest.fixture
async def api() -> FakeApi:
    found = FakeApi()
    for one in (OLD, NEW):
        text = yaml.safe_dump_all(service_documents("metering", one.version))
        found.put({"kind": "ConfigMap", "metadata": {"name": one.manifests}, "data": {"manifests.yaml": text}})
    await Actor(found).act(ApplyStable(OLD), CITY)
    return found


def backends(api: FakeApi) -> dict[str, int | None]:
    references = api.objects["HTTPRoute", "metering"]["spec"]["rules"][0]["backendRefs"]
    return {one["name"]: one.get("weight") for one in references}


async def routed(api: FakeApi) -> int | None:
    """What an operator that looks at the cluster sees of the canary."""
    seen = await Observer(api).look([], 0.0)
    return tracks(seen, {}, utc_now())["canary"]["metering"].routed


async def test_a_canary_that_is_brought_up_has_none_of_the_route_yet(api: FakeApi) -> None:
    api.put(ROUTE)
    actor = Actor(api)
    await actor.act(ApplyCanary(NEW, 25), CITY)
    assert (backends(api), await routed(api)) == ({"metering": None}, 0)
    await actor.act(WeighRoutes(NEW, 25), CITY)
    assert (backends(api), await routed(api)) == ({"metering-stable": 75, "metering-canary": 25}, 25)
    await actor.act(ApplyCanary(NEW, 50), CITY)
    assert (backends(api), await routed(api)) == ({"metering-stable": 75, "metering-canary": 25}, 25)
    await actor.act(WeighRoutes(NEW, 50), CITY)
    assert (backends(api), await routed(api)) == ({"metering-stable": 50, "metering-canary": 50}, 50)


async def test_where_no_route_leads_to_the_service_there_is_nothing_to_weigh(api: FakeApi) -> None:
    await Actor(api).act(ApplyCanary(NEW, 25), CITY)
    assert await routed(api) is None
    assert api.names("Service") == ["metering"]


@pytest.mark.parametrize("weight", [0, 10])
def test_a_ready_canary_gets_its_percent_of_the_routes_before_it_is_looked_at(weight: int) -> None:
    name = "identity"
    seen = {name: replace(canary(25)[name], routed=weight)}
    assert step(TO, at(25), world(canary=seen)) == WeighRoutes(target(name, "2.0"), 25)
    unready = {name: replace(canary(25, Progress.RUNNING, "0 of 1 pods are ready.")[name], routed=weight)}
    assert "not ready yet" in waited(step(TO, at(25), world(canary=unready))).reason
    for done in (None, 25):
        there = {name: replace(canary(25)[name], routed=done)}
        assert hand(step(TO, at(25), world(canary=there))).looked is not None
