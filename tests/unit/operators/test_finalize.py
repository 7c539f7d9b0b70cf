"""Deleting a City: a slip of the hand takes nothing down, an uninstall takes all but the volumes, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from citykit.errors import Unavailable
from operators.city.act import Actor
from operators.city.events import BURST, EVERY_S, Events
from operators.city.finalize import FINALIZER, GIVE_UP_S, UNINSTALL, ensure_finalizer, let_go, uninstall
from operators.city.kube import Object
from operators.city.model import ApplyCanary, ApplyStable, Target
from tests.unit.operators.fake_api import FakeApi, service_documents
from tests.unit.operators.test_act import CITY, holding

METERING, PAYMENTS = Target("metering", "1.0", "metering-1.0-aa"), Target("payments", "1.0", "payments-1.0-aa")


@pytest.fixture
async def api() -> FakeApi:
    """A city of two services, one with a canary."""
    found = FakeApi()
    for target in (METERING, PAYMENTS):
        holding(found, target, service_documents(target.name, "1.0"))
        await Actor(found).act(ApplyStable(target), CITY)
    await Actor(found).act(ApplyCanary(METERING, 50), CITY)
    found.put({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-postgres-0"}})
    services = [{"name": "metering"}, {"name": "payments"}]
    city: Object = {
        "kind": "City",
        "metadata": {"name": "city", "uid": "u1"},
        "status": {"lastGood": {"services": services}},
    }
    found.put(city)
    await ensure_finalizer(found, found.objects["City", "city"])
    return found


async def deleted(api: FakeApi, *, uninstalling: bool) -> Object:
    if uninstalling:
        await api.patch("City", "city", {"metadata": {"annotations": {UNINSTALL: "remove"}}})
    await api.delete("City", "city")
    found = await api.get("City", "city")
    assert found is not None
    return found


async def test_the_finalizer_is_put_on_once(api: FakeApi) -> None:
    city = await api.get("City", "city")
    assert city is not None
    assert city["metadata"]["finalizers"] == [FINALIZER]
    assert not await ensure_finalizer(api, city)


async def test_deleting_the_resource_alone_leaves_the_city_running(api: FakeApi) -> None:
    city = await deleted(api, uninstalling=False)
    said = await let_go(api, Actor(api), city, datetime.now(UTC))
    assert "runs on" in said
    assert api.names("City") == []
    assert api.names("Deployment") == ["metering", "payments"], "the canary is gone, the rest is not"
    assert len(api.names("ConfigMap")) == 2


async def test_an_uninstall_takes_all_but_the_volumes_the_last_promoted_first(api: FakeApi) -> None:
    city = await deleted(api, uninstalling=True)
    said = await let_go(api, Actor(api), city, datetime.now(UTC))
    assert said == "removed payments, metering; volumes stay"
    assert {kind for kind, _ in api.objects} == {"PersistentVolumeClaim"}


async def test_what_cannot_be_removed_holds_nobody_up_for_ever(api: FakeApi) -> None:
    city = await deleted(api, uninstalling=True)
    api.refusals["delete", "Deployment"] = Unavailable("away")
    with pytest.raises(Unavailable):
        await let_go(api, Actor(api), city, datetime.now(UTC))
    assert api.names("City") == ["city"]
    said = await let_go(api, Actor(api), city, datetime.now(UTC) + timedelta(seconds=GIVE_UP_S + 1))
    assert "gave up after 90 s (away)" in said
    assert api.names("City") == []


async def test_uninstalling_without_an_operator_does_it_itself_and_says_so(api: FakeApi) -> None:
    said: list[str] = []
    await uninstall(api, 0.0, said.append)
    assert "no operator answered within 0 s: taking the finalizer off the City city" in said
    assert "removed what the operator had left: metering, payments" in said
    assert "left are the volumes: data-postgres-0" in said
    assert {kind for kind, _ in api.objects} == {"PersistentVolumeClaim"}


async def test_uninstalling_with_an_operator_waits_for_it(api: FakeApi) -> None:
    said: list[str] = []
    task = asyncio.create_task(uninstall(api, 30.0, said.append))
    async with asyncio.timeout(5):
        while not (city := await api.get("City", "city")) or "deletionTimestamp" not in city["metadata"]:
            await asyncio.sleep(0)
        await let_go(api, Actor(api), city, datetime.now(UTC))
        await task
    assert not [line for line in said if "no operator" in line or "had left" in line]
    await uninstall(api, 30.0, said.append)


async def test_events_are_limited() -> None:
    now = [0.0]
    api = FakeApi()
    events = Events(api, lambda: now[0])
    for number in range(BURST + 5):
        await events.tell(CITY, "Step", f"step {number}")
    assert len(api.names("Event")) == BURST
    assert events.dropped == 5
    now[0] = EVERY_S
    await events.tell(CITY, "Step", "another")
    await events.tell(CITY, "Step", "another")
    assert len(api.names("Event")) == BURST + 1
    api.failing = Unavailable("away")
    now[0] = 100.0
    await events.tell(CITY, "Step", "lost", warning=True)
