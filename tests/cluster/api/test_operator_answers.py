"""The API server answers, but not as one would like: versions that are gone, writes that conflict, watches that fall silent. The rollout arrives."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.api.between import Between, between
from tests.cluster.api.rig import Rig, gates

HEARD_S = 5.0
"""With a watch that lives; without, the operator looks every 15 s."""


@pytest.fixture
async def unruly(rig: Rig, tmp_path: Path) -> AsyncIterator[Between]:
    """What stands between the rig's operators and the API server."""
    async with between(rig.kubeconfig, tmp_path) as knobs:
        rig.operator_kubeconfig = knobs.kubeconfig
        yield knobs


async def begun(rig: Rig, version: str) -> float:
    """Wants a version and waits until its rollout has begun; seconds."""
    asked = time.monotonic()
    await rig.want(await rig.version(version))
    await rig.until(lambda status: (status.get("rollout") or {}).get("version") == version, f"{version} begun")
    return time.monotonic() - asked


async def test_after_410_it_lists_anew_and_hears_again(rig: Rig, unruly: Between) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    watches = unruly.seen["watch"]
    unruly.gone = 4
    unruly.break_watches()
    await rig.until(lambda _: unruly.gone == 0 and unruly.seen["watch"] >= watches + 8, "watched anew after 410")
    assert unruly.seen["gone"] == 4
    assert operator.process.returncode is None
    assert await begun(rig, "1.1.0") < HEARD_S, "its watches are alive again"
    await rig.running("1.1.0")


async def test_conflicts_delay_a_rollout_and_change_nothing_of_it(rig: Rig, unruly: Between) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    unruly.conflicts = 12
    await rig.want(await rig.version("1.1.0", canary=[50], gates=gates(rig.knobs.prometheus)))
    await rig.running("1.1.0")
    assert unruly.seen["conflict"] == 12
    assert set((await rig.versions()).values()) == {"1.1.0"}
    status = await rig.status()
    assert [one["outcome"] for one in status["history"]] == ["Succeeded", "Succeeded"], "each once"


async def test_a_watch_that_falls_silent_is_made_good_for(rig: Rig, unruly: Between) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    unruly.mute = True
    await begun(rig, "1.1.0")
    await rig.running("1.1.0")
    assert unruly.seen["swallowed"] > 0, "there was something to hear"
