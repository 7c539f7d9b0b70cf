"""A canary of the chart's gateway on a real API server: the autoscaler stands still, the routes give it its percent, in the end all is as before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from citykit.testing.polling import until
from operators.city.act import HELD
from operators.city.kube import Object, annotations_of
from operators.city.manifests import CITY_PART, PART_OF
from tests.cluster.api.charted import gateway_version
from tests.cluster.api.rig import WAIT_S, Operator, Rig, gates
from tests.cluster.conftest import Definitions, Tool

LEAST, MOST = 4, 8
"""Bounds of the autoscaler."""
SCALED = 5
"""Replicas that something, a busy evening, made of it."""
STEPS = {25: 2, 50: 3}
"""Percent of the replicas, and how many pods that is, rounded up."""
GATEWAY: Object = {
    "autoscaling": {"enabled": True, "minReplicas": LEAST, "maxReplicas": MOST},
    "canary": {"steps": list(STEPS), "pauseSeconds": 1},
}
ALL = 100
BY_GRPC: Object = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GRPCRoute",
    "metadata": {"name": "gateway-grpc", "labels": {PART_OF: CITY_PART}},
    "spec": {"rules": [{"backendRefs": [{"name": "gateway", "port": 8080}]}]},
}
"""A route of the city's IT beside the chart's own, which is an HTTPRoute."""
PLAIN = {"gateway": None}
"""A route's one backend, without shares."""
SCALERS = {"kube-controller-manager", "kubectl"}
"""Who may say how many replicas there are: the autoscaler, and a person who does what it would."""


class Turnstile(dict[str, float | None]):
    """Figures that say nothing for sure, but for as many questions as are let through, which get good ones; or bad ones all the time."""

    through = 0
    bad = False

    def items(self) -> Any:
        passes, self.through = self.through > 0, max(0, self.through - 1)
        return {"errors_total": 0.5 if self.bad else 0.0 if passes else 0.05}.items()


@dataclass
class City:
    """What is looked at.

    Attributes:
        rig: with the version 1.0.0 of the gateway running in it.
        before: the autoscaler's bounds then.
        generation: of the Deployment then; each change of its spec counts one up.
    """

    rig: Rig
    operator: Operator
    figures: Turnstile = field(default_factory=Turnstile)
    generation: int = 0

    async def want(self, version: str, **values: Any) -> None:
        """Wants a version, with more values of the gateway."""
        analyses = gates(self.rig.knobs.prometheus, count=1, deadlineSeconds=600)
        await self.rig.want(await gateway_version(self.rig, version, {**GATEWAY, **values}, gates=analyses))

    async def deployment(self, name: str = "gateway") -> Object:
        return await self.rig.api.get("Deployment", name) or {}

    async def autoscaler(self) -> Object:
        return await self.rig.api.get("HorizontalPodAutoscaler", "gateway") or {}

    async def bounds(self) -> tuple[int, int]:
        spec = (await self.autoscaler())["spec"]
        return spec["minReplicas"], spec["maxReplicas"]

    async def shares(self) -> dict[str, int | None]:
        """The routes' backends with their weights, alike in both; a single one has none that means anything."""
        plain, by_grpc = [await self._shares(*one) for one in (("HTTPRoute", "gateway"), ("GRPCRoute", "gateway-grpc"))]
        assert plain == by_grpc
        return plain

    async def _shares(self, kind: str, name: str) -> dict[str, int | None]:
        route = await self.rig.api.get(kind, name) or {}
        found = {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}
        return found if len(found) > 1 else dict.fromkeys(found)

    async def stands_at(self, weight: int) -> None:
        """Until this percent of it is judged, which it is until the turnstile lets it through."""
        at = "gateway" if weight == ALL else f"gateway at {weight} %"

        def judged(status: Object) -> bool:
            return bool(status.get("rollout")) and f"{at} is being judged" in status["message"]

        await self.rig.until(judged, f"judged at {weight} %")

    async def let_through(self, weight: int) -> None:
        await self.stands_at(weight)
        self.figures.through += 1


@pytest.fixture
async def city(rig: Rig, crds: Definitions, kubectl: Tool) -> City:
    """The version 1.0.0, at more replicas than the autoscaler's least."""
    crds.install("gateway-api")
    made = City(rig, await rig.operator())
    rig.knobs.values = made.figures
    await made.want("1.0.0")
    await rig.running("1.0.0")
    await settled(made, LEAST)
    here = kubectl.within(rig.api.namespace)
    here.apply(BY_GRPC)
    here("scale", "deployment/gateway", f"--replicas={SCALED}")
    await settled(made, SCALED)
    assert await made.bounds() == (LEAST, MOST)
    assert await made.shares() == PLAIN
    made.generation = (await made.deployment())["metadata"]["generation"]
    return made


async def settled(city: City, replicas: int, name: str = "gateway") -> None:
    """Until so many are wanted, and all of them ready."""

    async def ready() -> bool:
        found = await city.deployment(name)
        status = found.get("status", {})
        return bool(found) and found["spec"]["replicas"] == replicas == status.get("readyReplicas")

    await until(ready, f"{replicas} ready pods of {name}", limit_s=WAIT_S)


async def check_canary(city: City, weight: int) -> None:
    """All that holds while a canary is looked at."""
    canary, stable = await city.deployment("gateway-canary"), await city.deployment()
    assert canary["spec"]["replicas"] == canary["status"]["readyReplicas"] == STEPS[weight]
    assert stable["spec"]["replicas"] == stable["status"]["readyReplicas"] == SCALED
    assert stable["metadata"]["generation"] == city.generation
    assert await city.bounds() == (SCALED, SCALED), "held"
    assert HELD in annotations_of(await city.autoscaler())
    assert await city.shares() == {"gateway-stable": 100 - weight, "gateway-canary": weight}
    behind = {name: await endpoints(city, name) for name in ("gateway-stable", "gateway-canary", "gateway")}
    assert behind["gateway-stable"] == {"stable": SCALED}
    assert behind["gateway-canary"] == {"canary": STEPS[weight]}
    assert behind["gateway"] == {"stable": SCALED, "canary": STEPS[weight]}, "callers inside spread over both"


async def endpoints(city: City, service: str) -> dict[str, int]:
    """How many ready pods of each track a Service's selector finds."""
    found = await city.rig.api.get("Service", service) or {}
    pods = await city.rig.api.list("Pod", found["spec"]["selector"])
    tracks = [one["metadata"]["labels"]["provable.city/track"] for one in pods if is_ready(one)]
    return {track: tracks.count(track) for track in sorted(set(tracks), reverse=True)}


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    ends = pod["metadata"].get("deletionTimestamp")
    return not ends and any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def check_as_before(city: City, version: str, *, changes: int) -> None:
    """All that holds once a rollout has ended, whichever way.

    Args:
        changes: how often the Deployment's spec may have been changed.
    """
    await settled(city, SCALED)
    found = await city.deployment()
    assert await city.rig.versions() == {"gateway": version}, "no canary is left"
    assert found["metadata"]["generation"] == city.generation + changes
    assert owners(found) <= SCALERS, "nobody else says how many replicas there are"
    assert await city.bounds() == (LEAST, MOST)
    assert HELD not in annotations_of(await city.autoscaler())
    assert await city.shares() == PLAIN
    assert [one["metadata"]["name"] for one in await city.rig.api.list("Service")] == ["gateway"]


def owners(deployment: Object) -> set[str]:
    entries = deployment["metadata"]["managedFields"]
    return {one["manager"] for one in entries if "f:replicas" in one.get("fieldsV1", {}).get("f:spec", {})}


async def test_an_autoscaler_stands_still_while_a_canary_is_looked_at_and_goes_on_after_its_promotion(
    city: City,
) -> None:
    await city.want("1.1.0")
    for weight in STEPS:
        await city.stands_at(weight)
        await check_canary(city, weight)
        city.figures.through += 1
    await city.let_through(ALL)
    await city.rig.running("1.1.0")
    await check_as_before(city, "1.1.0", changes=1)


async def test_an_autoscaler_is_as_before_when_a_canary_goes_back(city: City) -> None:
    await city.want("1.1.0")
    await city.let_through(25)
    await city.stands_at(50)
    await check_canary(city, 50)
    city.figures.bad = True
    await city.rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    await check_as_before(city, "1.0.0", changes=0)


async def test_a_route_sends_nobody_to_a_canary_whose_pods_are_not_ready(city: City) -> None:
    await city.want("1.1.0", nodeSelector={"no-such": "node"})
    found = await city.rig.until(lambda status: "gateway at 25 % is not ready yet" in status["message"], "waited for")
    assert (await city.deployment("gateway-canary"))["spec"]["replicas"] == STEPS[25]
    assert await city.shares() == PLAIN
    assert await city.bounds() == (SCALED, SCALED), "held"
    await city.rig.annotate(abort=found["rollout"]["id"])
    await city.rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    await check_as_before(city, "1.0.0", changes=0)


async def test_an_autoscaler_is_as_before_when_what_was_promoted_goes_back(city: City) -> None:
    await city.want("1.1.0")
    for weight in STEPS:
        await city.let_through(weight)
    await city.stands_at(ALL)
    city.figures.bad = True
    await city.rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    await check_as_before(city, "1.0.0", changes=2)


async def test_killed_in_the_middle_of_a_canary_the_operator_lets_the_autoscaler_go_in_the_end(city: City) -> None:
    """At the first step, as the second begins and as it gets its part of the route, as it is promoted, and as it is taken away."""
    await city.want("1.1.0")
    await city.stands_at(25)
    await killed(city)
    await check_canary(city, 25)
    await begin_anew(city)
    await city.let_through(25)
    for step in ("ApplyCanary", "WeighRoutes"):
        await acting(city, step)
        await begin_anew(city)
    await city.stands_at(50)
    await check_canary(city, 50)
    city.figures.through += 1
    for step in ("ApplyStable", "RemoveCanary"):
        await acting(city, step)
        await begin_anew(city)
    await city.let_through(ALL)
    await city.rig.running("1.1.0")
    await check_as_before(city, "1.1.0", changes=1)


async def killed(city: City) -> None:
    city.operator.kill()
    await city.operator.process.wait()


async def begin_anew(city: City) -> None:
    await killed(city)
    city.operator = await city.rig.operator()


async def acting(city: City, step: str) -> None:
    """Until this operator begins such a step: a kill then falls into the middle of it."""
    await until(lambda: step in [one.get("step") for one in city.operator.lines()], step, limit_s=WAIT_S)
