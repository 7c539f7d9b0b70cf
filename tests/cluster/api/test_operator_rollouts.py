"""Rollouts on a real API server, scheduler and controllers, with pretended nodes: forward, back, steered and refused."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from operators.city.kube import Object
from tests.cluster.api.rig import Rig, gates

REACTION_S = 2.0
RESIDENT_MB = 150.0


def ids(found: Object) -> list[tuple[str, str]]:
    return [(str(one["to"]), str(one["outcome"])) for one in found["history"]]


async def test_a_city_is_installed_and_upgraded_service_by_service(rig: Rig) -> None:
    operator = await rig.operator()
    with_gates: Any = gates(rig.knobs.prometheus)
    await rig.want(await rig.version("1.0.0", jobs=True, gates=with_gates))
    await rig.running("1.0.0")
    assert await rig.versions() == {"identity": "1.0.0", "metering": "1.0.0", "gateway": "1.0.0"}

    asked = time.monotonic()
    await rig.want(await rig.version("1.1.0", jobs=True, canary=[50], gates=with_gates))
    await rig.until(lambda status: bool(status.get("rollout")), "begun")
    reaction_s = time.monotonic() - asked
    found = await rig.running("1.1.0")

    assert reaction_s <= REACTION_S
    assert await rig.versions() == {"identity": "1.1.0", "metering": "1.1.0", "gateway": "1.1.0"}, "no canary is left"
    applied = [line["of"] for line in operator.lines() if line.get("step") == "ApplyStable"]
    order = [name for name in ("identity", "metering", "gateway") for one in applied if f"'{name}'" in one]
    assert [name for one in applied for name in ("identity", "metering", "gateway") if f"'{name}'" in one] == order[
        ::2
    ] * 2
    jobs = [one["metadata"]["name"] for one in await rig.api.list("Job")]
    assert len(jobs) == 4, "preflight and migrate, once a version"
    assert {one["gate"] for one in found["evidence"]} == {"errors", "invariants"}
    assert "operator" in rig.knobs.callers
    print(f"reaction {reaction_s:.2f} s, resident {operator.resident_mb:.0f} MB")
    assert operator.resident_mb <= RESIDENT_MB
    assert await operator.stop() == 0
    assert (await rig.api.get("Lease", "provable-city-operator") or {})["spec"]["holderIdentity"] == ""


async def test_a_canary_whose_figures_are_bad_goes_back_and_may_be_tried_again(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    rig.knobs.values["of_metering"] = 0.5
    query = "errors_of_${service}"
    await rig.want(await rig.version("1.1.0", canary=[50], gates=gates(rig.knobs.prometheus, query)))
    back = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert await rig.versions() == dict.fromkeys(("identity", "metering", "gateway"), "1.0.0")
    assert "result 0.5" in back["message"]
    assert back["lastGood"]["version"] == "1.0.0"
    assert [one for one in back["evidence"] if one["verdict"] == "failed" and one["step"].startswith("metering at 50")]

    del rig.knobs.values["of_metering"]
    await rig.annotate(retry=back["refused"])
    again = await rig.running("1.1.0")
    assert [outcome for _, outcome in ids(again)] == ["Succeeded", "RolledBack", "Succeeded"]


async def test_pods_that_never_become_ready_go_back_and_the_reason_is_told(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await rig.want(await rig.version("1.1.0", only=("gateway",), broken=True))
    back = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert await rig.versions() == dict.fromkeys(("identity", "metering", "gateway"), "1.0.0")
    assert "did not become ready" in back["message"]


async def test_a_broken_invariant_stops_a_version_whose_figures_are_fine(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    spec = await rig.version("1.1.0", canary=[50], gates=gates(rig.knobs.prometheus))
    rig.knobs.broken["metering", "no-gap-in-bills"] = "3 homes without a bill"
    await rig.want(spec)
    back = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert "no-gap-in-bills of metering is broken" in back["message"]
    assert "3 homes without a bill" in back["message"]
    assert set((await rig.versions()).values()) == {"1.0.0"}


async def test_a_person_pauses_promotes_and_aborts(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    rig.knobs.values["errors_total"] = 0.05  # neither good nor bad: it would wait for its deadline
    slow: Any = gates(rig.knobs.prometheus, deadlineSeconds=600)
    await rig.want(await rig.version("1.1.0", canary=[50], gates=slow))

    def stands_at(service: str) -> Any:
        return lambda status: any(one["name"] == service and one["phase"] == "Canary" for one in status["services"])

    stands = await rig.until(stands_at("identity"), "at identity's canary")
    await rig.annotate(paused=stands["rollout"]["id"])
    await rig.until(lambda status: status.get("phase") == "Paused", "paused")
    await rig.annotate(paused=None)
    for promoted, following in (("identity", "metering"), ("metering", "gateway")):
        code, said = await rig.city("rollout", "promote")
        assert (code, promoted in said) == (0, True), said
        await rig.until(stands_at(following), f"at {following}'s canary, and waiting there")
    await rig.annotate(abort=stands["rollout"]["id"])
    back = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert "abort" in back["message"].lower()
    assert await rig.versions() == dict.fromkeys(("identity", "metering", "gateway"), "1.0.0")


REFUSED = {
    "query": "parse error: unexpected end of input",
    "field": "spec.rings is not known to this operator",
    "cycle": "identity",
    "data": "metering-9.9.9-gone",
}


async def test_what_cannot_be_is_refused_before_anything_changes(
    rig: Rig, widen_schema: Callable[[], Awaitable[None]]
) -> None:
    """The webhook would refuse most of it earlier; here there is none."""
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await widen_schema()  # definitions of a newer chart than the operator's
    for wrong, said in REFUSED.items():
        await rig.want(await wrong_in(rig, wrong))
        status = await rig.until(
            lambda status, said=said: status.get("phase") in ("Failed", "Waiting") and said in status["message"],  # type: ignore[misc]
            f"refused with {said!r}",
        )
        assert not status.get("rollout")
        assert set((await rig.versions()).values()) == {"1.0.0"}
    assert not await rig.api.list("Job")
    await rig.want(await rig.version("1.2.0"))
    await rig.running("1.2.0")


async def wrong_in(rig: Rig, what: str) -> Object:
    spec = await rig.version("1.1.0", gates=gates(rig.knobs.prometheus, "sum((" if what == "query" else "errors_total"))
    if what == "field":
        spec["rings"] = 3
    if what == "cycle":
        spec["services"][0]["dependsOn"] = ["gateway"]
    if what == "data":
        spec["services"][1]["manifests"] = "metering-9.9.9-gone"
    return spec


async def test_a_service_that_asks_to_be_left_alone_is(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    rig.knobs.freezes["metering"] = "the month is being closed"
    await rig.want(await rig.version("1.1.0"))
    await rig.until(lambda status: "the month is being closed" in status.get("message", ""), "waiting")
    assert set((await rig.versions()).values()) == {"1.0.0"}
    rig.knobs.freezes.clear()
    await rig.running("1.1.0")


async def test_a_service_that_the_new_version_lacks_is_taken_away(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await rig.want(await rig.version("1.1.0", services=("identity", "metering")))
    await rig.running("1.1.0")
    assert await rig.versions() == {"identity": "1.1.0", "metering": "1.1.0"}
    assert "gateway" not in [one["metadata"]["name"] for one in await rig.api.list("Service")]


async def test_a_second_city_in_the_namespace_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await rig.want(await rig.version("2.0.0"), name="other")
    found: Object = {}
    end = time.monotonic() + 30
    while not found.get("message") and time.monotonic() < end:
        found = await rig.status("other")
    assert found["phase"] == "Failed"
    assert "holds the City city already" in found["message"]
    assert set((await rig.versions()).values()) == {"1.0.0"}
