"""One rollout judged by the real Prometheus: what it says of right, empty and wrong queries is what the fake of the other tests says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from citykit.errors import EnvironmentFault
from infra.native import Native
from infra.observability import prometheus
from operators.city.prometheus import Prometheus
from tests.cluster.api.rig import Rig, gates

SCRAPE_S = 1


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A server that scrapes itself: `up` is 1."""
    try:
        prometheus.install(tmp_path)
    except EnvironmentFault as fault:
        pytest.skip(fault.message)
    from infra.native import free_port  # noqa: PLC0415 - only where it runs

    port = free_port()
    target = prometheus.Target("prometheus", f"127.0.0.1:{port}")
    native = Native(prometheus.program(tmp_path / "prometheus", [target], port, every=f"{SCRAPE_S}s"), tmp_path)
    await asyncio.to_thread(native.start)
    try:
        await asyncio.to_thread(native.wait)
        await scraped(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(native.stop)


async def scraped(url: str, wait_s: float = 30.0) -> None:
    end = time.monotonic() + wait_s
    async with httpx.AsyncClient() as client:
        while (await Prometheus(url, client).ask("up")).values != (1.0,):
            assert time.monotonic() < end
            await asyncio.sleep(0.2)


async def test_what_it_answers_means_what_we_take_it_for(url: str) -> None:
    async with httpx.AsyncClient() as client:
        server = Prometheus(url, client)
        assert (await server.ask("up")).values == (1.0,)
        assert (await server.ask("scalar(up)")).values == (1.0,)
        assert (await server.ask("no_such_metric")).values == ()
        assert str((await server.ask("up * NaN")).values[0]) == "nan"
        assert "parse error" in (await server.ask("sum((")).wrong
        assert "matrix" in (await server.ask("up[1m]")).wrong
        assert "string" in (await server.ask('"text"')).wrong


async def test_a_rollout_judged_by_it_goes_forward_and_back(rig: Rig, url: str) -> None:
    await rig.operator()
    await rig.want(await rig.version("1.0.0", gates=gates(url, "1 - min(up)")))
    await rig.running("1.0.0")
    await rig.want(await rig.version("1.1.0", canary=[50], gates=gates(url, "up")))
    back = await rig.until(lambda status: status.get("phase") == "RolledBack", "rolled back")
    assert "result 1, and `result > 0.1` is a failure" in back["message"]
    await rig.want(await rig.version("1.2.0", gates=gates(url, "sum((")))
    refused = await rig.until(lambda status: status.get("phase") == "Failed", "refused")
    assert "parse error" in refused["message"]
