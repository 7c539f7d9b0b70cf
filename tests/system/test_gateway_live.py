"""The demo's sessions and faults, and the live stream, over fake services and real HTTP."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from citykit import errors
from citykit.settings import CitySettings, GatewaySettings, GeneralSettings
from tests.system.fake_calls import fake_token
from tests.system.fakes import FakeCity, fake_city
from tests.system.serving import served

RESIDENT = {"Authorization": f"Bearer {fake_token('resident')}"}


def as_role(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {fake_token(role, f'staff-{role}')}"}


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[FakeCity]:
    async with fake_city(tmp_path) as found:
        yield found


@pytest.fixture
async def client(city: FakeCity) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(city) as found:
        yield found


def client_of(city: FakeCity) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(city.app), base_url="https://city.test")


def problem_of(response: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body = response.json()
    assert (body["status"], body["reason"]) == (status, reason)
    assert body["detail"]
    assert isinstance(body, dict)
    return body


async def test_a_city_without_a_simulation_says_so(tmp_path: Path) -> None:
    async with fake_city(tmp_path, simulation=False) as city, client_of(city) as client:
        for path in ("/api/v1/neighbourhood", "/api/v1/replay"):
            problem_of(await client.get(path), 404, "service-absent")


async def test_demo_sessions_are_there_in_a_demo_only(tmp_path: Path) -> None:
    embedded = dataclasses.replace(CitySettings(), general=GeneralSettings(mode="embedded"))
    async with fake_city(tmp_path, embedded) as city, client_of(city) as client:
        problem_of(await client.post("/demo/session", json={"as": "resident:ada"}), 403, "not-a-demo")
        assert (await client.get("/api/v1/city")).json()["demo_logins"] == []
        assert city.calls.of("Authorize") == []


async def test_a_clusters_metrics_are_not_for_residents(tmp_path: Path) -> None:
    cluster = dataclasses.replace(CitySettings(), general=GeneralSettings(mode="cluster"))
    async with fake_city(tmp_path, cluster) as city, client_of(city) as client:
        assert "CITY_OBSERVABILITY_PORT" in problem_of(await client.get("/metrics"), 404, "not-found")["detail"]


async def test_a_demo_session_is_a_login_and_is_kept(city: FakeCity, client: httpx.AsyncClient) -> None:
    sessions = [(await client.post("/demo/session", json={"as": "resident:ada"})).json() for _ in range(2)]
    assert sessions[0]["access_token"] == sessions[1]["access_token"]
    assert 0 < sessions[0]["expires_in_s"] <= 900
    assert len(city.calls.of("Authorize")) == 1
    me = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {sessions[0]['access_token']}"})
    assert me.json()["login"] == "ada"
    problem_of(await client.post("/demo/session", json={"as": "resident:nobody"}), 404, "no-such-login")
    (city.directory / "demo-logins.json").unlink()
    problem_of(await client.post("/demo/session", json={"as": "staff:billing"}), 503, "unavailable")


async def test_faults_are_set_by_an_operator(client: httpx.AsyncClient) -> None:
    response = await client.put("/api/v1/faults", json={"faults": ["stuck"]}, headers=as_role("operator"))
    assert response.json() == {"faults": ["stuck"]}
    assert (await client.get("/api/v1/replay")).json()["faulted_devices"] == ["stuck:meter-0017"]
    problem_of(await client.put("/api/v1/faults", json={"faults": []}, headers=RESIDENT), 403, "permission-denied")


async def first_event(url: str, headers: dict[str, str]) -> dict[str, Any]:
    async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/api/v1/live", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert isinstance(event, dict)
                return event
    raise AssertionError("the stream ended without an event")


async def test_the_live_stream_shows_the_city(city: FakeCity) -> None:
    city.calls.errors["GetCityLoad"] = errors.Unavailable("away")
    async with served(city.app) as url:
        for last in ("", "5", "not a number"):
            event = await first_event(url, {"Last-Event-ID": last})
            assert event["city_time"] == "2016-11-08T12:00:00Z"
            assert event["replay"]["phase"] == "live"
            assert [head["log"] for head in event["heads"]] == [
                "metering.readings",
                "metering.events",
                "identity.events",
            ]
            assert event["quarantine"] == {"devices": 3, "held": 2, "reasons": {"drift": 1, "spike": 1, "stuck": 1}}
            assert event["load"] is None, "a part that is away is null"


async def test_live_streams_are_limited(tmp_path: Path) -> None:
    settings = dataclasses.replace(CitySettings(), gateway=GatewaySettings(streams_max=1))
    async with (
        fake_city(tmp_path, settings) as city,
        served(city.app) as url,
        httpx.AsyncClient() as client,
        client.stream("GET", f"{url}/api/v1/live") as response,
    ):
        lines = response.aiter_lines()  # held: an iterator that is collected closes its connection
        await anext(lines)
        refused = await client.get(f"{url}/api/v1/live")
        problem_of(refused, 429, "resource-exhausted")
        assert refused.headers["retry-after"] == "60"
