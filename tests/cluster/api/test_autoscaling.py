"""The chart's autoscaler of the gateway on figures of its own: as many pods as they say, within its bounds, and none less where nobody tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from citykit.testing.polling import until
from operators.city.kube import Object
from tests.cluster.api.charted import gateway, gateway_version
from tests.cluster.api.external import Adapter, adapter
from tests.cluster.api.rig import WAIT_S, Rig, gates
from tests.cluster.conftest import Definitions, Tool

METRIC = "city_gateway_p99_seconds"
LEAST, MOST = 2, 6
GATEWAY: Object = {
    "autoscaling": {
        "enabled": True,
        "minReplicas": LEAST,
        "maxReplicas": MOST,
        "external": [{"name": METRIC, "labels": {"city": "demo"}, "averageValue": "200m"}],
    },
    "canary": {"steps": [50], "pauseSeconds": 1},
}
CALM, BUSY, FULL = "100m", "800m", "60"
"""For less than the least; for four; for 300."""
FOUR = 4


@pytest.fixture
async def figures(rig: Rig, crds: Definitions, kubectl: Tool, tmp_path: Path) -> AsyncIterator[Adapter]:
    """An adapter that says that all is calm. The route's definition comes first: kubectl, while the tests wait for it, asks the adapter too."""
    crds.install("gateway-api")
    async with adapter(rig.api, kubectl, tmp_path) as knobs:
        knobs.values[METRIC] = CALM
        yield knobs


async def deploy(rig: Rig) -> None:
    """The gateway's own objects, as if helm applied them."""
    documents, _ = gateway("1.0.0", GATEWAY)
    for one in documents:
        await rig.api.apply(one)


async def scaled(rig: Rig, replicas: int) -> None:
    """Until so many pods are wanted and ready."""

    async def ready() -> bool:
        found = await rig.api.get("Deployment", "gateway") or {}
        counts = found["spec"]["replicas"], (found.get("status") or {}).get("readyReplicas")
        return counts == (replicas, replicas)

    await until(ready, f"{replicas} ready pods of the gateway", limit_s=WAIT_S)


async def autoscaler(rig: Rig, what: Callable[[Object], bool], said: str) -> Object:
    """The autoscaler, once it is as wanted."""
    found: Object = {}

    async def holds() -> bool:
        nonlocal found
        found = await rig.api.get("HorizontalPodAutoscaler", "gateway") or {}
        return what(found)

    await until(holds, said, limit_s=WAIT_S)
    return found


def condition(found: Object, kind: str) -> tuple[str, str]:
    """Status and reason."""
    listed = (found.get("status") or {}).get("conditions") or []
    return next(((one["status"], one["reason"]) for one in listed if one["type"] == kind), ("", ""))


def limited(found: Object) -> bool:
    """It wants more than it may."""
    return condition(found, "ScalingLimited") == ("True", "TooManyReplicas")


async def test_the_gateway_has_the_pods_its_figures_ask_for_and_no_more_than_it_may(rig: Rig, figures: Adapter) -> None:
    await deploy(rig)
    await scaled(rig, LEAST)
    figures.values[METRIC] = BUSY
    await scaled(rig, FOUR)
    figures.values[METRIC] = FULL
    await scaled(rig, MOST)
    found = await autoscaler(rig, limited, "at its limit")
    assert found["status"]["desiredReplicas"] == MOST
    figures.values[METRIC] = CALM
    await scaled(rig, LEAST)
    assert set(figures.asked) == {f"{METRIC}{{city=demo}}"}


async def test_where_nobody_tells_the_figures_no_pod_goes_and_the_autoscaler_says_why(
    rig: Rig, figures: Adapter
) -> None:
    """The processors are idle and alone would ask for fewer; what may be a full city is not left with less."""
    await deploy(rig)
    figures.values[METRIC] = BUSY
    await scaled(rig, FOUR)
    del figures.values[METRIC]

    def silent(found: Object) -> bool:
        return condition(found, "ScalingActive") == ("False", "FailedGetExternalMetric")

    found = await autoscaler(rig, silent, "without its figures")
    [said] = [one["message"] for one in found["status"]["conditions"] if one["type"] == "ScalingActive"]
    assert METRIC in said
    assert found["status"]["desiredReplicas"] == FOUR
    await scaled(rig, FOUR)
    figures.values[METRIC] = CALM
    await scaled(rig, LEAST)


async def test_an_adapter_that_is_away_takes_no_pod_and_when_it_is_back_scaling_goes_on(
    rig: Rig, figures: Adapter
) -> None:
    await deploy(rig)
    figures.values[METRIC] = BUSY
    await scaled(rig, FOUR)
    figures.away = True
    await autoscaler(rig, lambda found: condition(found, "ScalingActive")[0] == "False", "without any figures")
    await scaled(rig, FOUR)
    figures.values[METRIC] = FULL
    figures.away = False
    await scaled(rig, MOST)


async def test_figures_that_rise_during_a_canary_are_followed_once_it_is_promoted(rig: Rig, figures: Adapter) -> None:
    """It sees that there should be more, and stands still: the shares of the two versions are what is looked at."""
    await rig.operator()
    analyses = gates(rig.knobs.prometheus, count=1, deadlineSeconds=600)
    await rig.want(await gateway_version(rig, "1.0.0", GATEWAY, gates=analyses))
    await rig.running("1.0.0")
    await scaled(rig, LEAST)
    rig.knobs.values["errors_total"] = 0.05  # neither good nor bad
    await rig.want(await gateway_version(rig, "1.1.0", GATEWAY, gates=analyses))
    await rig.until(lambda status: "gateway at 50 % is being judged" in status.get("message", ""), "judged at 50 %")
    figures.values[METRIC] = FULL
    found = await autoscaler(rig, limited, "aware that there should be more")
    assert found["status"]["desiredReplicas"] == LEAST
    await scaled(rig, LEAST)
    rig.knobs.values["errors_total"] = 0.0
    await rig.running("1.1.0")
    await scaled(rig, MOST)
    assert await rig.versions() == {"gateway": "1.1.0"}
