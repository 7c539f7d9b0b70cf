"""The process: what it says where there is no cluster, no City or no right, and that it comes up and goes down in good order."""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from citykit.errors import CityError, EnvironmentFault, NotFound, PermissionDenied, Unavailable
from citykit.settings import CitySettings, ObservabilitySettings, ServicesSettings
from infra.certificates import ensure_certificates
from infra.native import free_port
from operators.city import handlers, main
from operators.city.handlers import Waker
from operators.city.kube import KubeApi
from operators.city.main import Options, first_answer, serve
from services.commands import operator, rollout
from tests.unit.operators.fake_api import FakeApi


class Reached(FakeApi):
    """With what `KubeApi` has besides."""

    server = "https://api.test"

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Reached:
    found = Reached()
    monkeypatch.setattr(main, "open_api", lambda namespace, **_: found)
    return found


def options(folder: Path, port: int = 0) -> Options:
    return Options("city", "a", folder, folder / "token", port)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unavailable("it does not answer"), "did not answer 3 times"),
        (NotFound("no such kind"), "helm install city-crds"),
        (PermissionDenied("cities is forbidden"), "cities is forbidden; the operator's Role"),
    ],
)
async def test_what_is_missing_is_said_in_one_line(api: Reached, error: CityError, said: str) -> None:
    api.failing = error
    with pytest.raises(EnvironmentFault, match=said) as found:
        await first_answer(cast(KubeApi, api), 3, 0.0)
    assert "\n" not in found.value.message


async def test_an_answer_that_comes_late_is_an_answer(api: Reached) -> None:
    api.failing = Unavailable("not yet")
    task = asyncio.create_task(first_answer(cast(KubeApi, api), 1_000, 0.0))
    await asyncio.sleep(0)
    api.failing = None
    await task


def watching_until(done: asyncio.Event) -> Callable[..., Any]:
    async def watching(namespace: str, wake: Callable[[], None], stop: asyncio.Event) -> None:
        wake()
        tasks = [asyncio.create_task(one.wait()) for one in (done, stop)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    return watching


async def test_it_serves_metrics_and_the_webhook_and_ends_when_told(
    api: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_certificates(tmp_path, ["operator"])
    done, port, webhook = asyncio.Event(), free_port(), free_port()
    monkeypatch.setattr(main, "watching", watching_until(done))
    settings = CitySettings(
        observability=ObservabilitySettings(port=port),
        services=ServicesSettings(addresses="metering=localhost:1", certificates=str(tmp_path / "{service}")),
    )
    task = asyncio.create_task(serve(settings, options(tmp_path / "operator", webhook)))
    async with asyncio.timeout(10):
        while not (api.objects.get(("Lease", "provable-city-operator"))):
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(asked, port, "/livez") == {"status": "alive", "parts": {}}
    assert (await asyncio.to_thread(asked, port, "/readyz"))["parts"] == {"api-server": "ready"}
    text = await asyncio.to_thread(text_of, port, "/metrics")
    assert "city_operator_rounds_total" in text
    assert "city_operator_leading" in text
    _, writer = await asyncio.open_connection("127.0.0.1", webhook)
    writer.close()
    done.set()
    await task
    assert api.closed
    assert api.objects["Lease", "provable-city-operator"]["spec"]["holderIdentity"] == ""


async def test_an_api_server_that_stays_away_ends_it(
    api: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "watching", watching_until(asyncio.Event()))
    monkeypatch.setattr(main, "DEAD_S", -1.0)
    monkeypatch.setattr(main, "_LOOK_S", 0.01)
    with pytest.raises(EnvironmentFault, match="the API server has not answered for 0 s"):
        await serve(CitySettings(), options(tmp_path))


async def test_what_kopf_gives_up_on_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: Any) -> None:
        raise RuntimeError("watching broke")

    monkeypatch.setattr("kopf.operator", fail)
    with pytest.raises(EnvironmentFault, match=r"RuntimeError: watching broke"):
        await handlers.watching("city", lambda: None, asyncio.Event())


def test_kopf_writes_nothing_and_waits_for_nothing_for_ever() -> None:
    found = handlers.settings()
    assert not found.posting.enabled
    assert found.scanning.disabled
    limits = (found.watching.server_timeout, found.watching.client_timeout, found.watching.connect_timeout)
    assert all(limit is not None and limit <= 600 for limit in (*limits, found.networking.request_timeout))
    assert handlers.registry(lambda: None)._changing.get_all_handlers() == []


async def test_news_wait_no_longer_than_the_first_of_them() -> None:
    waker = Waker()
    await waker.wait(0.0)
    assert waker.taken() is None
    waker.wake()
    first = waker.heard
    waker.wake()
    await waker.wait(60.0)
    assert waker.taken() == first
    assert waker.taken() is None


def test_the_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    parts = parser.add_subparsers()
    operator.add(parts)
    rollout.add(parts)
    assert parser.parse_args(["operator", "--namespace", "x"]).run is operator.run
    found = parser.parse_args(["operator", "uninstall", "--namespace", "x", "--wait", "3"])
    assert (found.run, found.namespace, found.wait) == (operator.run_uninstall, "x", 3.0)
    for action in rollout.ACTIONS:
        assert parser.parse_args(["rollout", action, "--json"]).action == action


def text_of(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def asked(port: int, path: str) -> dict[str, Any]:
    return dict(json.loads(text_of(port, path)))
