"""The loop on a cluster in memory: it arrives, goes back, refuses, and survives whatever a round meets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from citykit.errors import Conflict, PermissionDenied, Unavailable
from citykit.operations.pulse import Pulse
from operators.city.act import Actor
from operators.city.events import Events
from operators.city.gates import Gates
from operators.city.handlers import Waker
from operators.city.kube import Object
from operators.city.lease import Lease
from operators.city.model import Target
from operators.city.observe import Observer
from operators.city.reconcile import AWAY_S, FOLLOW_S, NOTHING_S, Reconciler
from tests.unit.operators.fake_api import Cluster, FakeApi, service_documents
from tests.unit.operators.test_act import holding

ROUNDS_MAX = 300
GATES: Object = {
    "prometheus": {"url": "http://prometheus:9090"},
    "analyses": [
        {"name": "errors", "query": "of_${service}", "successCondition": "result <= 0.01", "failureCondition": "result > 0.1",
         "count": 1, "deadlineSeconds": 10}
    ],
    "invariants": {"enabled": False},
}  # fmt: skip


class Rig:
    """Everything but the network: a round is what the test says."""

    def __init__(self) -> None:
        self.api, self.now = FakeApi(), [0.0]
        self.cluster = Cluster(self.api)
        self.values: dict[str, float] = {}
        self.error = ""
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._prometheus))
        self.lease = Lease(self.api, "a")
        gates = Gates(None, client, lambda: self.now[0])
        actor = Actor(self.api, self.lease.require)
        events = Events(self.api, lambda: self.now[0])
        self.waker = Waker()
        self.reconciler = Reconciler(
            self.api, self.lease, Observer(self.api), actor, gates, events, Pulse(30.0), self.waker
        )

    def _prometheus(self, request: httpx.Request) -> httpx.Response:
        if self.error:
            return httpx.Response(400, json={"status": "error", "errorType": "bad_data", "error": self.error})
        asked = request.content.decode()
        value = next((found for word, found in self.values.items() if word in asked), 0.0)
        result = [{"metric": {}, "value": [0, str(value)]}]
        return httpx.Response(200, json={"status": "success", "data": {"resultType": "vector", "result": result}})

    def want(self, version: str, *names: str, name: str = "city", **more: Any) -> None:
        entries = []
        for service in names:
            target = Target(service, version, f"{service}-{version}-aa")
            holding(self.api, target, service_documents(service, version))
            entries.append(
                {"name": service, "version": version, "manifests": target.manifests, **more.pop("entry", {})}
            )
        spec = {
            "version": version,
            "profile": "trial",
            "services": entries,
            "gates": {"invariants": {"enabled": False}},
            **more,
        }
        if found := self.api.objects.get(("City", name)):
            found["spec"] = spec
            found["metadata"]["generation"] += 1
            self.api.put(found)
        else:
            self.api.put(
                {
                    "kind": "City",
                    "metadata": {
                        "name": name,
                        "creationTimestamp": f"2026-01-0{len(self.api.names('City')) + 1}T00:00:00Z",
                    },
                    "spec": spec,
                }
            )

    def status(self, name: str = "city") -> Object:
        return dict(self.api.objects["City", name].get("status") or {})

    async def until(self, phase: str) -> Object:
        """Rounds, with the cluster doing its part, until the City is in a phase and nothing is under way."""
        for _ in range(ROUNDS_MAX):
            await self.lease.once()
            await self.reconciler.turn()
            self.cluster.settle()
            self.now[0] += 1.0
            if self.status().get("phase") == phase and not self.status().get("rollout"):
                return self.status()
        raise AssertionError(f"never {phase}: {self.status()}")

    def versions(self) -> dict[str, str]:
        found = {name: self.api.objects["Deployment", name] for name in self.api.names("Deployment")}
        return {
            name: one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"]
            for name, one in found.items()
        }


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_it_installs_and_upgrades_with_a_canary(rig: Rig) -> None:
    rig.want("1.0", "identity", "metering")
    await rig.until("Ready")
    rig.want("1.1", "identity", "metering", gates=GATES, entry={"canary": {"steps": [50], "pauseSeconds": 0}})
    found = await rig.until("Ready")
    assert rig.versions() == {"identity": "1.1", "metering": "1.1"}
    assert found["lastGood"]["version"] == "1.1"
    assert found["observedGeneration"] == 2
    assert {one["name"]: one["phase"] for one in found["services"]} == {"identity": "Ready", "metering": "Ready"}
    assert {one["type"]: one["status"] for one in found["conditions"]}["Ready"] == "True"
    assert [one for one in rig.api.calls if one == ("apply", "Deployment", "identity-canary")]
    assert "Event" in {kind for kind, _ in rig.api.objects}


async def test_bad_figures_go_back_and_leave_evidence(rig: Rig) -> None:
    rig.want("1.0", "identity", "metering")
    await rig.until("Ready")
    rig.values["of_metering"] = 0.5
    rig.want("1.1", "identity", "metering", gates=GATES)
    found = await rig.until("RolledBack")
    assert rig.versions() == {"identity": "1.0", "metering": "1.0"}
    assert "result 0.5" in found["message"]
    assert [one["verdict"] for one in found["evidence"]][-1] == "failed"
    rig.values.clear()
    await rig.api.patch("City", "city", {"metadata": {"annotations": {"provable.city/retry": found["refused"]}}})
    await rig.until("Ready")
    assert rig.versions() == {"identity": "1.1", "metering": "1.1"}


async def test_pods_that_fail_go_back(rig: Rig) -> None:
    rig.want("1.0", "identity", "metering")
    await rig.until("Ready")
    rig.cluster.broken["metering-1.1-aa"] = "it crashes"
    rig.want("1.1", "identity", "metering")
    found = await rig.until("RolledBack")
    assert "it crashes" in found["message"]
    assert rig.versions() == {"identity": "1.0", "metering": "1.0"}


async def test_a_service_that_can_have_no_canary_goes_back_with_the_reason(rig: Rig) -> None:
    rig.want("1.0", "identity", "metering")
    await rig.until("Ready")
    rig.want("1.1", "identity", "metering", entry={"canary": {"steps": [50]}})
    holding(
        rig.api, Target("identity", "1.1", "identity-1.1-aa"), service_documents("identity", "1.1", kind="StatefulSet")
    )
    found = await rig.until("RolledBack")
    assert "StatefulSet and can have no canary" in found["message"]


async def test_a_wrong_query_is_refused_before_anything_changes(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    rig.error = "parse error: unclosed left parenthesis"
    rig.want("1.1", "identity", gates=GATES)
    found = await rig.until("Failed")
    assert rig.error in found["message"]
    assert rig.versions() == {"identity": "1.0"}
    rig.error = ""
    await rig.until("Ready")


async def test_a_resource_that_cannot_be_read_is_refused_and_mended(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    rig.want("1.1", "identity", rings=3)
    found = await rig.until("Failed")
    assert "spec.rings" in found["message"]
    assert found["lastGood"]["version"] == "1.0", "what it remembered stays"
    written = len(rig.api.calls)
    await rig.reconciler.turn()
    assert len([one for one in rig.api.calls[written:] if one[1] == "City"]) == 0, "the same is not written twice"
    rig.want("1.1", "identity")
    await rig.until("Ready")


async def test_a_definition_older_than_the_operator_lets_nothing_begin(rig: Rig) -> None:
    """What is not kept is not remembered: a rollout that failed would be begun for ever."""
    rig.api.pruned = {"refused"}
    rig.want("1.0", "identity")
    found = await rig.until("Failed")
    assert "does not keep status.refused" in found["message"]
    assert "upgrade the chart city-crds" in found["message"]
    assert rig.versions() == {}
    rig.api.pruned = set()
    await rig.until("Ready")


async def test_a_second_city_is_told_that_there_is_one(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    rig.want("9.9", "identity", name="other")
    await rig.reconciler.turn()
    assert "holds the City city already" in rig.status("other")["message"]
    assert rig.versions() == {"identity": "1.0"}


async def test_paused_by_annotation_nothing_begins(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.api.patch("City", "city", {"metadata": {"annotations": {"provable.city/paused": "true"}}})
    await rig.until("Paused")
    assert rig.versions() == {}
    await rig.api.patch("City", "city", {"metadata": {"annotations": {"provable.city/paused": None}}})
    await rig.until("Ready")


async def test_approvals_name_the_rollout_that_would_begin(rig: Rig) -> None:
    rig.want("1.0", "identity", approvals={"required": 1})
    waiting = await rig.until("Waiting")
    assert waiting["next"]
    notes = {"provable.city/approvals": f'["{waiting["next"]}:ada"]'}
    await rig.api.patch("City", "city", {"metadata": {"annotations": notes}})
    await rig.until("Ready")


async def test_the_city_is_let_go(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    await rig.api.delete("City", "city")
    await rig.reconciler.turn()
    assert rig.api.names("City") == []
    assert rig.versions() == {"identity": "1.0"}
    assert await rig.reconciler.turn() == NOTHING_S


async def test_one_who_touches_the_city_all_the_time_holds_nothing_up_and_one_who_changes_it_does(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    touched = [0]

    def touch(verb: str, kind: str, name: str) -> None:
        if verb == "replace-status" and touched[0] % 2 == 0:
            rig.api.put(rig.api.objects["City", "city"])
        touched[0] += 1

    rig.api.before = touch
    rig.want("1.1", "identity")
    await rig.until("Ready")
    assert touched[0] > 4

    def change(verb: str, kind: str, name: str) -> None:
        rig.api.before = lambda verb, kind, name: None
        rig.want("1.3", "identity")

    rig.want("1.2", "identity")
    rig.api.before = change
    await rig.lease.once()
    await rig.until("Ready")
    assert rig.versions() == {"identity": "1.3"}
    assert "1.2" not in [one["to"] for one in rig.status()["history"]]


async def test_a_pause_of_another_rollout_holds_nothing_up(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.api.patch("City", "city", {"metadata": {"annotations": {"provable.city/paused": "g9-1-abcdef"}}})
    await rig.until("Ready")


async def test_what_is_refused_is_not_asked_for_all_the_time(rig: Rig) -> None:
    rig.want("1.0", "identity", "metering")
    await rig.until("Ready")
    rig.want("1.1", "identity")
    rig.api.refusals["delete", "Deployment"] = PermissionDenied("deployments is forbidden")
    pauses = []
    for _ in range(40):
        await rig.lease.once()
        pauses.append(await rig.reconciler.turn())
        rig.cluster.settle()
        rig.now[0] += 1.0
    assert pauses[-3:] == [AWAY_S[-1]] * 3
    rig.api.refusals.clear()
    await rig.until("Ready")
    assert rig.versions() == {"identity": "1.1"}


async def test_a_status_that_somebody_else_wrote_is_left_for_a_look(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.until("Ready")
    rig.api.objects["City", "city"]["status"] = {"rollout": {"id": 3}}
    await rig.lease.once()
    assert await rig.reconciler.turn() == NOTHING_S
    assert rig.status() == {"rollout": {"id": 3}}
    assert [one for one in rig.api.objects.values() if one["kind"] == "Event" and one["reason"] == "Damaged"]


async def test_one_that_does_not_lead_only_waits(rig: Rig) -> None:
    rig.want("1.0", "identity")
    assert await rig.reconciler.turn() == FOLLOW_S
    assert not rig.api.calls


async def test_a_leader_that_loses_the_lease_in_the_middle_stops(rig: Rig) -> None:
    rig.want("1.0", "identity")
    await rig.lease.once()
    await rig.reconciler.turn()

    def lost(verb: str, kind: str, name: str) -> None:
        rig.lease._until = 0.0

    rig.api.before = lost
    for _ in range(5):
        await rig.reconciler.turn()
    assert [one for one in rig.api.calls if one[1] not in ("Lease", "Event")] == [
        ("patch", "City", "city"),
        ("replace-status", "City", "city"),
    ], "what was under way when it was lost, and no more"


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (Conflict("changed"), 0.1),
        (Unavailable("away"), AWAY_S[0]),
        (PermissionDenied("no"), AWAY_S[0]),
        (RuntimeError("odd"), AWAY_S[0]),
    ],
)
async def test_whatever_a_round_meets_the_next_one_looks_again(rig: Rig, error: Exception, pause_s: float) -> None:
    rig.want("1.0", "identity")
    await rig.lease.once()

    def fail(verb: str, kind: str, name: str) -> None:
        raise error

    rig.api.before = fail
    assert await rig.reconciler.turn() == pause_s
    if not isinstance(error, Conflict):
        assert [await rig.reconciler.turn() for _ in range(7)] == [*AWAY_S[1:], AWAY_S[-1], AWAY_S[-1]]
    rig.api.before = lambda verb, kind, name: None
    await rig.until("Ready")


async def test_it_wakes_at_once_when_it_hears_of_something(rig: Rig) -> None:
    task = asyncio.create_task(rig.reconciler.run())
    rig.want("1.0", "identity")
    await rig.lease.once()
    rig.waker.wake()
    rig.waker.wake()
    async with asyncio.timeout(5):
        while not rig.status():
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_data_of_versions_long_past_is_collected_after_a_rollout(rig: Rig) -> None:
    labels = {"app.kubernetes.io/part-of": "provable-city", "provable.city/version": "0.1"}
    rig.api.put({"kind": "ConfigMap", "metadata": {"name": "identity-0.1-aa", "labels": labels}}, 9_999.0)
    rig.want("1.0", "identity")
    await rig.until("Ready")
    await rig.reconciler.turn()
    assert rig.api.names("ConfigMap") == ["identity-1.0-aa"]
