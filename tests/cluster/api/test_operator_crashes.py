"""What happens to the operator: killed at every kind of step, doubled, stopped in its tracks, disturbed. The rollout arrives, once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from citykit.errors import Conflict
from operators.city.kube import Object
from tests.cluster.api.rig import Operator, Rig, gates

KINDS = ("RunJob", "ApplyCanary", "ApplyStable", "RemoveCanary", "saved")
KILLED_EACH = 2


async def happened(operator: Operator, kind: str, count: int, wait_s: float = 60.0) -> bool:
    """Until the operator's log shows the count-th step of a kind; False: the operator went on without one."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if sum(one.get("step") == kind or one["event"] == kind for one in operator.lines()) >= count:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_killed_at_every_kind_of_step_the_upgrade_arrives_once(rig: Rig) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0", jobs=True))
    await rig.running("1.0.0")
    await rig.want(await rig.version("1.1.0", jobs=True, canary=[50], gates=gates(rig.knobs.prometheus)))
    before = {kind: sum(one.get("step") == kind or one["event"] == kind for one in operator.lines()) for kind in KINDS}
    killed = []
    for kind in KINDS:
        assert await happened(operator, kind, before[kind] + 1), f"{kind} in {operator.lines()[-5:]}"
        operator.kill()  # the step is told of before it is done: this falls into the middle of it
        await operator.process.wait()
        killed.append(kind)
        operator = await rig.operator()
        before = dict.fromkeys(KINDS, 0)
    found = await rig.running("1.1.0")
    assert killed == list(KINDS)
    assert set((await rig.versions()).items()) == {(name, "1.1.0") for name in ("identity", "metering", "gateway")}
    assert [one["outcome"] for one in found["history"]] == ["Succeeded", "Succeeded"]
    assert len(await rig.api.list("Job")) == 4, "no Job ran twice"


async def test_killed_while_it_rolls_back_it_rolls_back(rig: Rig) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    rig.knobs.broken["gateway", "answers"] = "it does not"
    spec = await rig.version("1.1.0", canary=[50])
    rig.knobs.broken.clear()
    await rig.want(spec)
    await rig.until(lambda status: bool(status.get("rollout")) and "gateway" in status["message"], "at the gateway")
    rig.knobs.broken["gateway", "answers"] = "it does not"
    for _ in range(KILLED_EACH):
        await rig.until(lambda status: status.get("phase") in ("RollingBack", "RolledBack"), "rolling back")
        operator.kill()
        await operator.process.wait()
        operator = await rig.operator()
    found = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert set((await rig.versions()).items()) == {(name, "1.0.0") for name in ("identity", "metering", "gateway")}
    assert [one["outcome"] for one in found["history"]] == ["Succeeded", "RolledBack"]


async def test_of_two_operators_one_acts_and_when_it_hangs_the_other(rig: Rig) -> None:
    first = await rig.operator("a")
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    second = await rig.operator("b")
    await rig.want(await rig.version("1.1.0"))
    await rig.running("1.1.0")
    assert not [one for one in second.lines() if one["event"] in ("acts", "saved")], "it only watched"

    first.process.send_signal(signal.SIGSTOP)
    await rig.want(await rig.version("1.2.0"))
    await rig.running("1.2.0")
    first.process.send_signal(signal.SIGCONT)
    before = len([one for one in first.lines() if one["event"] in ("acts", "saved")])
    await rig.want(await rig.version("1.3.0"))
    await rig.running("1.3.0")
    assert len([one for one in first.lines() if one["event"] in ("acts", "saved")]) == before, "what hung leads no more"
    lease = await rig.api.get("Lease", "provable-city-operator") or {}
    assert lease["spec"]["holderIdentity"] == "b"
    assert await second.stop() == 0, "it gives the Lease back"
    await rig.want(await rig.version("1.4.0"))
    await rig.running("1.4.0")


async def test_somebody_who_writes_the_city_all_the_time_holds_nothing_up(rig: Rig) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    disturbing = asyncio.create_task(_disturb(rig))
    try:
        await rig.want(await rig.version("1.1.0"))
        await rig.running("1.1.0")
    finally:
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
    assert not [one for one in operator.lines() if one["level"] == "ERROR"]


async def _disturb(rig: Rig) -> None:
    number = 0
    while True:
        number += 1
        with contextlib.suppress(Conflict):
            await rig.annotate(noise=str(number))
        await asyncio.sleep(0.03)


async def test_a_new_schema_of_the_resource_disturbs_nothing(rig: Rig, widen_schema: Callable[[], Any]) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await widen_schema()
    await rig.want(await rig.version("1.1.0"))
    await rig.running("1.1.0")


async def test_deleting_the_city_leaves_its_services_running(rig: Rig) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await rig.api.delete("City", "city")
    await gone(rig)
    assert set((await rig.versions()).values()) == {"1.0.0"}
    await rig.want(await rig.version("1.1.0"))
    await rig.running("1.1.0")


@pytest.mark.parametrize("operated", [True, False])
async def test_an_uninstall_leaves_only_volumes(rig: Rig, operated: bool) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    volume: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-postgres-0"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await rig.api.create(volume)
    if not operated:
        await operator.stop()
    code, said = await rig.city("operator", "uninstall", "--wait", "30" if operated else "2")
    assert code == 0, said
    assert ("taking the finalizer off" in said) == (not operated)
    assert "left are the volumes: data-postgres-0" in said
    assert await rig.versions() == {}
    assert not [
        one for kind in ("City", "Service", "ConfigMap", "Job") for one in await rig.api.list(kind) if _ours(one)
    ]
    assert [one["metadata"]["name"] for one in await rig.api.list("PersistentVolumeClaim")] == ["data-postgres-0"]


def _ours(found: Object) -> bool:
    return "app.kubernetes.io/part-of" in (found["metadata"].get("labels") or {}) or found["kind"] == "City"


async def gone(rig: Rig, wait_s: float = 30.0) -> None:
    end = time.monotonic() + wait_s
    while await rig.api.get("City", "city") is not None:
        assert time.monotonic() < end, rig.told()
        await asyncio.sleep(0.1)
