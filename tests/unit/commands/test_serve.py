"""`city serve`: what it needs before it starts, which clock it follows, when it ends; and what the page says while a demo starts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest

from city.simulation.v1 import simulation_service_pb2 as simulation
from city.simulation.v1.simulation_service_pb2_grpc import (
    SimulationServiceServicer,
    add_SimulationServiceServicer_to_server,
)
from citykit.absent import AbsentBus, AbsentLedger
from citykit.bus.port import Subscription
from citykit.clock import RealClock
from citykit.errors import EnvironmentFault, SettingsError
from citykit.ids import seeded_randomness
from citykit.keys import read_root_key
from citykit.settings import CitySettings, GeneralSettings, ServicesSettings
from citykit.shared_clock import FollowedClock, KeptClock
from citykit.testing.polling import until
from infra.certificates import ensure_certificates
from infra.native import free_port
from services.__main__ import main
from services.commands import serve
from services.starting import Arrival, StartingGate, Told
from services.world import CLOCK, real_world


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CITY_")]:
        monkeypatch.delenv(name)


def test_what_is_missing_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        assert main(["serve", *words]) in (2, 3)
        return capsys.readouterr().err

    assert "city run --backbone real" in said("metering", "--state", str(tmp_path))
    monkeypatch.setenv("CITY_GENERAL_MODE", "cluster")
    assert "CITY_SERVICES_CERTIFICATES" in said("metering", "--state", str(tmp_path))
    monkeypatch.setenv("CITY_SERVICES_CERTIFICATES", str(tmp_path / "{service}"))
    assert "CITY_SERVICES_ROOT_KEY_FILE" in said("metering", "--state", str(tmp_path))
    monkeypatch.setenv("CITY_SERVICES_ROOT_KEY_FILE", str(tmp_path / "root"))
    assert "root key" in said("metering", "--state", str(tmp_path))
    (tmp_path / "root").write_bytes(b"short")
    assert "has 5 bytes, not 32" in said("metering", "--state", str(tmp_path))
    (tmp_path / "root").write_bytes(bytes(32))
    assert "CITY_FABRIC_MEMBERS" in said("metering", "--state", str(tmp_path))
    assert "`make up` writes one" in said("metering", "--settings", str(tmp_path / "none"))


def test_a_city_on_real_parts_says_when_they_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--backbone", "real", "--up", str(tmp_path)]
    assert main(words) == 2
    assert "`make up` writes one" in capsys.readouterr().err
    (tmp_path / "settings.env").write_text("# part: Kafka\n", encoding="utf-8")
    assert main(words) == 3
    assert "start them with `make up`" in capsys.readouterr().err


def test_settings_of_the_environment_go_above_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.env"
    file.write_text("CITY_BUS_PARTITIONS=8\nCITY_GENERAL_MODE=cluster\n", encoding="utf-8")
    monkeypatch.setenv("CITY_BUS_PARTITIONS", "2")
    found = serve.settings_of(file)
    assert (found.bus.partitions, found.general.mode) == (2, "cluster")


def test_the_clock_is_the_demos_in_a_demo_and_the_machines_elsewhere(tmp_path: Path) -> None:
    KeptClock(tmp_path / CLOCK, 1_000)
    assert isinstance(serve.clock_of(CitySettings(), tmp_path), FollowedClock)
    elsewhere = replace(CitySettings(), general=GeneralSettings(mode="cluster"))
    assert isinstance(serve.clock_of(elsewhere, tmp_path), RealClock)


def test_an_address_to_listen_on() -> None:
    assert serve.read_listen("0.0.0.0:8080") == ("0.0.0.0", 8080)
    for wrong in ("8080", ":8080", "host:", "host:port"):
        with pytest.raises(SettingsError, match="host:port"):
            serve.read_listen(wrong)


async def test_a_gateway_needs_certificates_and_key_but_neither_bus_nor_ledger(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["gateway"])
    (tmp_path / "root").write_bytes(bytes(32))
    services = ServicesSettings(
        addresses=f"gateway=127.0.0.1:{free_port()}",
        certificates=str(tmp_path / "{service}"),
        root_key_file=str(tmp_path / "root"),
    )
    settings = replace(CitySettings(), services=services)
    async with real_world(tmp_path / "state", settings, RealClock(), seeded_randomness(1), "gateway") as world:
        assert isinstance(world.bus, AbsentBus)
        assert isinstance(world.ledger, AbsentLedger)
        assert not world.whole
        assert world.root_key == read_root_key(tmp_path / "root")


async def test_what_a_process_does_not_have_answers_questions_and_refuses_work() -> None:
    bus, ledger = AbsentBus(), AbsentLedger()
    nothing = Subscription("g", (), cast(Any, None))
    assert (await bus.topics(), await bus.prune(), await ledger.height()) == ((), 0, 0)
    assert await bus.caught_up(nothing)
    await bus.close()
    await ledger.close()
    for call in (bus.publish(()), bus.replay("t"), ledger.evaluate("c", "f", {}), ledger.status("t"), ledger.evidence("t"),
                 ledger.block(0), ledger.submit("c", "f", {}, submitter="s", request_id="r")):  # fmt: skip
        with pytest.raises(EnvironmentFault, match="this process has no"):
            await call
    for act in (bus.dead_letters, ledger.events, ledger.trust, lambda: bus.consume(nothing)):
        with pytest.raises(EnvironmentFault, match="this process has no"):
            act()


async def test_a_service_started_by_a_demo_ends_with_it(tmp_path: Path) -> None:
    """The process that starts ours is killed; ours sees that it has another parent."""
    code = (
        "import asyncio, sys, pathlib; from services.commands.serve import _watch_parent\n"
        "async def main():\n"
        "    stopping = asyncio.Event()\n"
        "    pathlib.Path(sys.argv[1]).touch()\n"
        "    await _watch_parent(stopping)\n"
        "    pathlib.Path(sys.argv[1] + '.ended').touch()\n"
        "asyncio.run(main())"
    )
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}, {str(tmp_path / 'seen')!r}])"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", child, stdout=subprocess.DEVNULL)
    await until((tmp_path / "seen").exists, "the service has begun to watch", limit_s=60)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until((tmp_path / "seen.ended").exists, "the service has ended")


class Replay(SimulationServiceServicer):
    """The demo's control, as far as a starting gateway asks it."""

    phase = "backfill"

    async def GetReplay(self, request: Any, context: Any) -> Any:
        answer = simulation.GetReplayResponse(phase=self.phase)
        answer.city_time.seconds = 1_475_535_600
        return answer


@pytest.fixture
async def replay(tmp_path: Path) -> AsyncIterator[tuple[Replay, grpc.aio.Channel]]:
    control, server = Replay(), grpc.aio.server()  # type: ignore[abstract]
    add_SimulationServiceServicer_to_server(cast(Any, control), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield control, channel
    await server.stop(None)


async def page(gate: StartingGate) -> tuple[int, str]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await gate({"type": "http", "path": "/"}, cast(Any, None), send)
    return sent[0]["status"], sent[1]["body"].decode()


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the city"})


async def test_the_page_of_a_gateway_alone_says_how_far_the_demo_is(replay: tuple[Replay, grpc.aio.Channel]) -> None:
    control, channel = replay
    gate = StartingGate(application, Arrival(lambda service: channel).progress)
    status, text = await page(gate)
    assert (status, "2016-10-03T23:00:00Z" in text) == (503, True)
    control.phase = "live"
    assert await page(gate) == (200, "the city")
    control.phase = "backfill"
    assert await page(gate) == (200, "the city"), "what was there once is not taken away"


async def test_the_page_waits_for_the_demo(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/nobody") as channel:
        status, text = await page(StartingGate(application, Arrival(lambda service: channel).progress))
    assert (status, "waiting for the demo" in text) == (503, True)


async def test_each_answer_of_the_page_is_told(tmp_path: Path) -> None:
    told, seen = Told(), SimpleNamespace(count=0)

    def note() -> None:
        seen.count += 1

    gate = StartingGate(application, told.progress, note)
    assert (await page(gate))[0] == 503
    told.say("days: 1 of 3")
    assert "days: 1 of 3" in (await page(gate))[1]
    told.say(None)
    assert [(await page(gate))[0], (await page(gate))[0], seen.count] == [200, 200, 2]
