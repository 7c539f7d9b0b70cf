"""The API server goes and comes back, hangs, or is not there at all: the operator waits, tells once, and ends in good order."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from infra.kubernetes.control_plane import Cluster
from infra.native import free_port
from tests.cluster.api.rig import Operator, Rig, gates

ENVIRONMENT = 3


async def test_the_api_server_is_started_again_in_the_middle_of_a_rollout(rig: Rig, cluster: Cluster) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    await rig.want(await rig.version("1.1.0", canary=[50], gates=gates(rig.knobs.prometheus)))
    await rig.until(lambda status: bool((status.get("rollout") or {}).get("id")), "begun")
    await asyncio.to_thread(cluster.api.restart)
    await rig.running("1.1.0")
    assert operator.process.returncode is None, "it outlived it"
    asked = time.monotonic()
    await rig.want(await rig.version("1.2.0"))
    await rig.until(lambda status: bool(status.get("rollout")), "begun")
    assert time.monotonic() - asked < 5.0, "its watch is alive again"
    await rig.running("1.2.0")


async def test_while_the_api_server_hangs_nothing_is_done_and_the_lease_runs_out(rig: Rig, cluster: Cluster) -> None:
    operator = await rig.operator()
    await rig.want(await rig.version("1.0.0"))
    await rig.running("1.0.0")
    cluster.api.pause()
    try:
        assert await told(operator, "not-leading", 40.0)
    finally:
        cluster.api.resume()
    await rig.want(await rig.version("1.1.0"))
    await rig.running("1.1.0")
    unanswered = [one for one in operator.lines() if one["event"] == "api-away"]
    assert len(unanswered) <= 1, "told once, not at every try"


async def told(operator: Operator, event: str, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        if any(one["event"] == event for one in operator.lines()):
            return True
        await asyncio.sleep(0.1)
    return False


async def test_without_a_cluster_there_is_one_clear_line(tmp_path: Path) -> None:
    code, said = await run(tmp_path / "absent")
    assert code == ENVIRONMENT
    assert len(said.splitlines()) == 1
    assert "no cluster" in said
    assert "KUBECONFIG" in said


async def test_a_dead_api_server_is_asked_a_limited_number_of_times(rig: Rig, tmp_path: Path) -> None:
    text = rig.kubeconfig.read_text(encoding="utf-8")
    port = rig.api.server.rpartition(":")[2]
    dead = tmp_path / "dead"
    dead.write_text(text.replace(f":{port}", f":{free_port()}"), encoding="utf-8")
    begun = time.monotonic()
    code, said = await run(dead)
    assert code == ENVIRONMENT
    assert len(said.splitlines()) == 1
    assert "did not answer 10 times" in said
    assert time.monotonic() - begun < 60.0
    for action in ("status", "approve"):
        code, said = await run(dead, "rollout", action)
        assert code == ENVIRONMENT
        assert "does not answer" in said


async def run(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("CITY_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", *(arguments or ("operator",)), "--namespace", "x",
        env={**variables, "KUBECONFIG": str(kubeconfig), "HOME": "/nowhere"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return int(process.returncode or 0), said.decode()
