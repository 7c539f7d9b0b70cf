"""What a process says of itself: alive and ready only when it is, and which part is not."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy import MetaData, text

from city.operations.v1 import operations_service_pb2 as pb
from city.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from citykit import telemetry
from citykit.bus.port import Message, Record, Subscription
from citykit.errors import EnvironmentFault, Unavailable
from citykit.operations.health import SERVING, Health, Part
from citykit.operations.http import own_port
from citykit.operations.invariants import Board
from citykit.operations.pulse import Pulse
from citykit.service import Context, Finding, Freeze, Invariant, Job, Service
from citykit.settings import CitySettings, ObservabilitySettings
from citykit.testing.polling import until
from services.testing import START, embedded_city
from tests.unit.citykit.test_run import READINGS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and body (JSON where it is), asked in this thread."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            status, body = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, body = error.code, error.read().decode()
    return status, json.loads(body) if body.startswith("{") else body


async def asked(port: int, path: str) -> tuple[int, Any]:
    return await asyncio.to_thread(get, port, path)


def settings(port: int, **changes: Any) -> CitySettings:
    return replace(CitySettings(), observability=replace(ObservabilitySettings(port=port), **changes))


def with_store(ctx: Context) -> Service:
    (ctx.directory / "migrations").mkdir(exist_ok=True)
    return Service(ctx.name, store=ctx.open_store(MetaData(), ctx.directory / "migrations"))


# --- alive ---------------------------------------------------------------------------------------


def test_an_act_over_its_time_is_a_problem_until_it_ends() -> None:
    now = [100.0]
    pulse = Pulse(1_000, lambda: now[0])
    with pulse.doing("metering/estimates", 600):
        now[0] += 600
        assert pulse.problems() == {}
        now[0] += 5
        assert pulse.problems() == {"metering/estimates": "over its time by 5 s"}
    assert pulse.problems() == {}


def test_a_loop_that_stands_still_is_a_problem() -> None:
    now = [100.0]
    pulse = Pulse(30, lambda: now[0])
    now[0] += 31
    assert pulse.problems() == {"event-loop": "has not come round for 31 s"}


async def test_a_task_that_ended_is_a_problem_and_one_that_was_cancelled_is_none() -> None:
    pulse = Pulse(30)

    async def fails() -> None:
        raise ValueError("on purpose")

    async def waits() -> None:
        await asyncio.Event().wait()

    ended, stopped = pulse.keep("a/relay", fails()), pulse.keep("b/relay", waits())
    stopped.cancel()
    await asyncio.wait({ended, stopped})
    assert pulse.problems() == {"a/relay": "ended with ValueError"}


async def test_a_blocked_event_loop_is_told_from_outside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citykit.operations.http._LOOP_S", 0.05)
    port = free_port()
    async with embedded_city(tmp_path, services=[], settings=settings(port, stalled_s=0.3)):
        assert (await asked(port, "/livez"))[0] == 200
        end = time.monotonic() + 20
        while (found := get(port, "/livez"))[0] == 200:  # asked in the loop's own thread: the loop stands still
            assert time.monotonic() < end
        assert found[0] == 503
        assert "has not come round" in found[1]["parts"]["event-loop"]
        assert get(port, "/readyz")[1]["parts"] == {"event-loop": "does not answer"}


async def test_a_job_that_never_returns_makes_the_process_not_alive(tmp_path: Path) -> None:
    port = free_port()

    def build(ctx: Context) -> Service:
        return Service(ctx.name, jobs=(Job("hangs", asyncio.Event().wait, 1.0, stuck_s=0.05),))

    async with embedded_city(tmp_path, services=[], settings=settings(port), more={"jobs": build}):

        async def told() -> bool:
            status, body = await asked(port, "/livez")
            return status == 503 and set(body["parts"]) == {"jobs/hangs"}

        await until(told, "the job is named")


async def test_a_batch_that_is_never_done_makes_the_process_not_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citykit.run._BATCH_STUCK_S", 0.05)
    port, go_on = free_port(), asyncio.Event()

    async def hang(records: Sequence[Record]) -> None:
        await go_on.wait()

    def build(ctx: Context) -> Service:
        return Service(ctx.name, subscriptions=(Subscription("reader", (READINGS,), hang),))

    async with embedded_city(tmp_path, services=[], settings=settings(port), more={"reader": build}) as city:
        await city.bus.publish([Message(READINGS, "k", b"x")])

        async def told() -> bool:
            status, body = await asked(port, "/livez")
            return status == 503 and set(body["parts"]) == {f"reader/{READINGS}"}

        await until(told, "the batch is named")
        go_on.set()


async def test_a_relay_outlives_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with embedded_city(tmp_path, services=[], more={"one": with_store}) as city:
        publish, tries = city.bus.publish, []

        async def fails_once(messages: Any) -> None:
            tries.append(len(messages))
            if len(tries) == 1:
                raise OSError("on purpose")
            await publish(messages)

        monkeypatch.setattr(city.bus, "publish", fails_once)
        store = city.process.stores["one"]
        await store.write(lambda unit: unit.publish(Message(READINGS, "k", b"x")))
        await until(lambda: len(tries) == 2, "the message is published at the second try")
        assert city.process.pulse.problems() == {}


# --- ready ---------------------------------------------------------------------------------------


async def test_every_part_of_a_city_is_named_and_ready(tmp_path: Path) -> None:
    port = free_port()
    async with embedded_city(tmp_path, services=[], settings=settings(port), more={"one": with_store}):
        status, body = await asked(port, "/readyz")
        assert (status, body["status"]) == (200, "ready")
        assert body["parts"] == {"store.one": "ready", "bus": "ready", "ledger": "ready"}


async def test_a_database_behind_this_version_is_not_ready(tmp_path: Path) -> None:
    port = free_port()
    async with embedded_city(tmp_path, services=[], settings=settings(port), more={"one": with_store}) as city:
        store = city.process.stores["one"]
        await store.write(lambda unit: unit.connection.execute(text("DELETE FROM kit_version")) and None)

        async def told() -> bool:
            status, body = await asked(port, "/readyz")
            return status == 503 and body["parts"]["store.one"] == "not-migrated"

        await until(told, "the store is named")


async def test_what_is_away_is_named_and_costs_the_others_nothing() -> None:
    async def away() -> None:
        raise Unavailable("on purpose", reason="bus-away")

    async def broken() -> None:
        raise ValueError("row (ada, 1)")

    async def well() -> None: ...

    health = Health([Part("bus", away), Part("ledger", broken), Part("store.a", well)], Pulse(30), 5)
    health.state = SERVING
    answer = await health.readiness()
    assert answer.status == 503
    assert answer.body["parts"] == {"bus": "bus-away", "ledger": "ValueError", "store.a": "ready"}
    assert telemetry.PART_READY.labels("bus")._value.get() == 0
    assert telemetry.PART_READY.labels("store.a")._value.get() == 1


async def test_a_part_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citykit.operations.health.FRESH_S", -1.0)
    asked_times, go = [], asyncio.Event()

    async def hangs() -> None:
        asked_times.append(1)
        await go.wait()

    health = Health([Part("bus", hangs)], Pulse(30), 0.02)
    health.state = SERVING
    for _ in range(3):
        assert (await health.readiness()).body["parts"] == {"bus": "no answer within 0.02 s"}
    assert len(asked_times) == 1
    go.set()
    await until(lambda: _ready(health), "it is ready once it has answered")
    await health.close()


async def _ready(health: Health) -> bool:
    return (await health.readiness()).ok


async def test_a_process_is_not_ready_before_it_serves_and_after_it_stops_serving(tmp_path: Path) -> None:
    seen: list[str] = []

    def build(ctx: Context) -> Service:
        async def note() -> None:
            operations = held[0].operations
            assert operations is not None
            seen.append(str((await operations.health.readiness()).body["state"]))

        return Service(ctx.name, stop=note)

    held: list[Any] = []
    async with embedded_city(tmp_path, services=[], more={"noting": build}) as city:
        held.append(city.process)
        assert city.process.operations is not None
        assert (await city.process.operations.health.readiness()).ok
    assert seen == ["draining"]
    assert (await Health([], Pulse(30), 1).readiness()).body == {
        "status": "not-ready",
        "state": "starting",
        "parts": {},
    }


# --- the port ------------------------------------------------------------------------------------


async def test_metrics_are_prometheus_text_and_other_paths_are_told(tmp_path: Path) -> None:
    port = free_port()
    health = Health([], Pulse(30), 1)
    with own_port("127.0.0.1", port, health):
        status, body = await asked(port, "/metrics")
        assert status == 200
        assert "# TYPE city_rpc_seconds histogram" in body
        assert "process_resident_memory_bytes" in body
        assert await asked(port, "/nothing") == (404, "here are /livez, /metrics, /readyz\n")
        with pytest.raises(EnvironmentFault, match="CITY_OBSERVABILITY_PORT"), own_port("127.0.0.1", port, health):
            pass


# --- invariants ----------------------------------------------------------------------------------


async def test_an_invariant_is_told_with_since_when_and_looked_at_only_when_due() -> None:
    now, holds, looks = [100.0], [True], []

    async def look() -> Finding:
        looks.append(now[0])
        return Finding(holds[0], f"seen at {now[0]:.0f}")

    board = Board({"a": Service("a", invariants=(Invariant("sums-to-zero", look, 30.0),))}, lambda: now[0])

    async def told(at: float) -> tuple[bool, float, str]:
        now[0] = at
        (state,) = await board.states()
        return state.holds, state.since, state.evidence

    assert await told(100) == (True, 100, "seen at 100")
    assert await told(120) == (True, 100, "seen at 100")
    assert await told(130) == (True, 100, "seen at 130")
    holds[0] = False
    assert await told(160) == (False, 160, "seen at 160")
    assert await told(190) == (False, 160, "seen at 190")
    assert looks == [100, 130, 160, 190]
    assert telemetry.INVARIANT_HOLDS.labels("a", "sums-to-zero")._value.get() == 0


async def test_who_cares_from_when_on_gets_a_newer_look_and_not_too_many() -> None:
    now, looks = [100.0], []

    async def look() -> Finding:
        looks.append(now[0])
        return Finding(True, "")

    board = Board({"a": Service("a", invariants=(Invariant("no-gap", look, 300.0),))}, lambda: now[0])
    for at, not_before in ((100, 0), (105, 103), (109, 103), (110, 103), (200, 103), (201, 200)):
        now[0] = at
        await board.states(not_before)
    assert looks == [100, 110, 201]


async def test_looks_go_on_by_themselves_and_measure(tmp_path: Path) -> None:
    looked, looks = asyncio.Event(), []

    async def look() -> Finding:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("on purpose")
        looked.set()
        return Finding(True, "nothing counted")

    def build(ctx: Context) -> Service:
        return Service(ctx.name, invariants=(Invariant("holds", look),))

    more: dict[str, Callable[[Context], Service]] = {"looked-at": build, "one": with_store}
    async with embedded_city(tmp_path, services=[], settings=settings(0, look_s=0.1), more=more):
        async with asyncio.timeout(20):
            await looked.wait()
        measured = telemetry.PART_READY.labels("store.one")._value.get
        await until(lambda: measured() == 1, "parts are measured")


# --- calls ---------------------------------------------------------------------------------------


async def test_invariants_and_freezes_are_told_over_grpc(tmp_path: Path) -> None:
    async def look() -> Finding:
        return Finding(False, "2 of 3 rows")

    async def frozen() -> Freeze:
        return Freeze("an election is open", START + 60.5)

    def build(ctx: Context) -> Service:
        return Service(ctx.name, invariants=(Invariant("rows-match", look),), freeze=frozen)

    async with embedded_city(tmp_path, services=[], more={"votes": build, "one": with_store}) as city:
        stub: Any = OperationsServiceStub(city.dial("operations"))
        (told,) = (await stub.ListInvariants(pb.ListInvariantsRequest(service="votes"))).invariants
        assert (told.service, told.name, told.holds, told.evidence) == ("votes", "rows-match", False, "2 of 3 rows")
        assert 0 < told.since.seconds == told.checked_at.seconds
        assert list((await stub.ListInvariants(pb.ListInvariantsRequest())).invariants) == [told]
        assert not (await stub.ListInvariants(pb.ListInvariantsRequest(service="one"))).invariants
        freeze = await stub.GetFreeze(pb.GetFreezeRequest(service="votes"))
        assert (freeze.reason, freeze.until.seconds, freeze.until.nanos) == (
            "an election is open",
            START + 60,
            500_000_000,
        )
        assert not (await stub.GetFreeze(pb.GetFreezeRequest(service="one"))).reason
        with pytest.raises(grpc.aio.AioRpcError, match="it runs votes, one"):
            await stub.GetFreeze(pb.GetFreezeRequest(service="nobody"))
        with pytest.raises(grpc.aio.AioRpcError, match="needs an access token"):
            await OperationsServiceStub(city.process.anonymous()).ListInvariants(pb.ListInvariantsRequest())


async def test_grpc_health_follows_readiness(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=[], settings=settings(0, look_s=0.1), more={"one": with_store}) as city:
        stub: Any = HealthStub(city.process.anonymous())

        async def says(service: str = "") -> int:
            return int((await stub.Check(HealthCheckRequest(service=service))).status)

        assert await says() == await says("city.operations.v1.OperationsService") == HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await says("city.nothing.v1.Nothing")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        store = city.process.stores["one"]
        await store.write(lambda unit: unit.connection.execute(text("DELETE FROM kit_version")) and None)

        async def not_serving() -> bool:
            return bool(await says() == HealthCheckResponse.NOT_SERVING)

        await until(not_serving, "a store that is not ready is told")
