"""An autoscaler that was held for a canary is let go, wherever the operator is interrupted."""

from __future__ import annotations

import pytest
import yaml

from citykit.errors import Unavailable
from operators.city.act import HELD, Actor
from operators.city.kube import Object
from operators.city.model import ApplyCanary, ApplyStable, RemoveCanary, Target
from tests.unit.operators.fake_api import FakeApi, service_documents

CITY: Object = {"kind": "City", "metadata": {"name": "city", "uid": "u1"}, "status": {"rollout": {"id": "3-1"}}}
OLD = Target("metering", "1.0", "metering-1.0-aaaaaaaa")
NEW = Target("metering", "1.1", "metering-1.1-bbbbbbbb")
SCALER = "HorizontalPodAutoscaler"
REPLICAS = 4


@pytest.fixture
async def api() -> FakeApi:
    """With a canary of the new version at 50 %, so that the autoscaler is held."""
    found = FakeApi()
    for target in (OLD, NEW):
        documents = service_documents("metering", target.version, autoscaled=True)
        config_map = {"kind": "ConfigMap", "metadata": {"name": target.manifests}}
        found.put({**config_map, "data": {"manifests.yaml": yaml.safe_dump_all(documents)}})
    await Actor(found).act(ApplyStable(OLD), CITY)
    found.objects["Deployment", "metering"]["spec"]["replicas"] = REPLICAS
    await Actor(found).act(ApplyCanary(NEW, 50), CITY)
    assert bounds(found) == (REPLICAS, REPLICAS)
    return found


def bounds(api: FakeApi) -> tuple[int, int]:
    spec = api.objects[SCALER, "metering"]["spec"]
    return spec["minReplicas"], spec["maxReplicas"]


async def interrupted(api: FakeApi, number: int) -> bool:
    """Promotes, and fails at a write; False: there are not so many."""
    left = number

    def fail(verb: str, kind: str, name: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unavailable(f"away at {verb} {kind} {name}")

    api.before = fail
    try:
        await Actor(api).act(ApplyStable(NEW), CITY)
    except Unavailable:
        return True
    finally:
        api.before = lambda verb, kind, name: None
    return False


async def check_let_go(api: FakeApi, step: ApplyStable | RemoveCanary) -> None:
    await Actor(api).act(step, CITY)
    await Actor(api).act(RemoveCanary("metering"), CITY)
    assert bounds(api) == (2, 6)
    assert HELD not in api.objects[SCALER, "metering"]["metadata"]["annotations"]


@pytest.mark.parametrize("number", range(4))
async def test_a_promotion_that_is_interrupted_and_given_up_leaves_no_autoscaler_held(
    api: FakeApi, number: int
) -> None:
    assert await interrupted(api, number)
    await check_let_go(api, RemoveCanary("metering"))


@pytest.mark.parametrize("number", range(4))
async def test_a_promotion_that_is_interrupted_and_done_again_leaves_no_autoscaler_held(
    api: FakeApi, number: int
) -> None:
    assert await interrupted(api, number)
    await check_let_go(api, ApplyStable(NEW))


async def test_a_promotion_writes_four_times(api: FakeApi) -> None:
    """Which is why it is interrupted at each of four."""
    assert not await interrupted(api, 4)


@pytest.mark.parametrize("number", range(3))
async def test_an_autoscaler_that_the_new_version_lacks_gets_its_bounds_back_until_it_is_taken_away(
    api: FakeApi, number: int
) -> None:
    documents = yaml.safe_dump_all(service_documents("metering", NEW.version))
    api.objects["ConfigMap", NEW.manifests]["data"] = {"manifests.yaml": documents}
    assert await interrupted(api, number)
    await check_let_go(api, RemoveCanary("metering"))
    await Actor(api).act(ApplyStable(NEW), CITY)
    assert not api.names(SCALER)
