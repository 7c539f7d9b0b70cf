"""A trial on a running city: homes, a month of readings, bills; checked over HTTP alone; repeated without doubling anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from citykit.errors import Damaged, FailedPrecondition, PermissionDenied, Unavailable
from citykit.settings import CitySettings, IdentitySettings, NotarySettings
from services.demo import trial, trial_load
from services.testing import TestCity, embedded_city

SEED, HOMES = 7, 2
NOW = 1_796_083_200
"""2026-12-01 in UTC."""
PLAN = trial.plan_of(date(2026, 12, 1), SEED, HOMES)
SERVICES = ("identity", "metering", "parking", "payments", "notary", "gateway")


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[TestCity]:
    maker = ",".join(f"{name}={key.hex()}" for name, key in PLAN.neighbourhood().manufacturers.items())
    settings = replace(
        CitySettings(),
        notary=NotarySettings(anchor_interval_s=0.05),
        identity=IdentitySettings(manufacturers=maker),
    )
    async with embedded_city(tmp_path / "city", services=SERVICES, start=NOW, settings=settings) as found:
        yield found


@pytest.fixture
async def client(city: TestCity) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(city.process.services["gateway"].http)
    async with httpx.AsyncClient(transport=transport, base_url="https://city.test") as found:
        yield found


def test_the_month_before_last_is_billed() -> None:
    assert (PLAN.begins, PLAN.ends) == (date(2026, 10, 1), date(2026, 11, 1))
    january = trial.plan_of(date(2026, 1, 31), SEED, HOMES)
    assert (january.begins, january.ends) == (date(2025, 11, 1), date(2025, 12, 1))


async def test_a_bill_is_checked_from_outside(city: TestCity, client: httpx.AsyncClient, tmp_path: Path) -> None:
    said: list[str] = []
    await trial.set_up(city.process, PLAN, tmp_path, said.append)
    assert "2980 readings" in said[1]  # two homes, 31 days, the hour that the end of summer time repeats
    secret = trial.password(city.world.root_key, "ada")
    lines = await trial.check(client, secret, tmp_path / "out")
    assert "FAIL" not in lines and "bill" in lines

    await trial.set_up(city.process, PLAN, tmp_path, said.append)
    assert "0 readings" in said[4] and said[5] == said[2]
    found = await MeteringServiceStub(city.dial("metering")).ListChainHeads(
        metering.ListChainHeadsRequest(devices=["meter-001", "meter-002"])
    )
    assert {head.sequence for head in found.heads} == {32}


async def test_what_was_changed_on_the_way_is_refused(
    city: TestCity, client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trial.set_up(city.process, PLAN, tmp_path, lambda _: None)
    honest = trial.Outside.get

    async def dear(outside: trial.Outside, path: str) -> httpx.Response:
        answer = await honest(outside, path)
        if path.endswith("/bundle"):
            return httpx.Response(200, content=answer.content.replace(b"meter-001", b"meter-002"))
        return answer

    monkeypatch.setattr(trial.Outside, "get", dear)
    with pytest.raises(Damaged, match="the verifier refuses the bill"):
        await trial.check(client, trial.password(city.world.root_key, "ada"), tmp_path / "out")


async def test_a_stranger_is_told_so(client: httpx.AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="was refused"):
        await trial.check(client, "wrong", tmp_path)


async def test_a_city_that_does_not_answer_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_ANSWER_POLL_S", 0.0)
    said: list[str] = []
    left = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]

    async def act() -> None:
        if left:
            raise grpc.aio.AioRpcError(left.pop(), grpc.aio.Metadata(), grpc.aio.Metadata(), "", "")

    await trial.patiently(act, said.append)
    assert (left, len(said)) == ([], 1)
    left.append(grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(PermissionDenied):
        await trial.patiently(act, said.append)
    monkeypatch.setattr(trial, "_ANSWER_TRIES", 1)
    left.append(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable, match="did not answer in time"):
        await trial.patiently(act, said.append)


async def test_a_load_begins_once_its_resident_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_load, "RETRY_S", 0.0)
    outside = trial.Outside(httpx.AsyncClient())
    away = [httpx.ConnectError("away"), Unavailable("not ready")]

    async def log_in(login: str, secret: str) -> None:
        if away:
            raise away.pop()
        outside.headers = {"authorization": f"{login} {secret}"}

    monkeypatch.setattr(outside, "log_in", log_in)
    await trial_load.logged_in(outside, "ada", "secret")
    assert (outside.headers, away) == ({"authorization": "ada secret"}, [])
    monkeypatch.setattr(trial_load, "LOGIN_TRIES", 1)
    away.append(Unavailable("not ready"))
    with pytest.raises(Unavailable):
        await trial_load.logged_in(outside, "ada", "secret")
