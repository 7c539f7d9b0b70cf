"""Parking and payments over HTTP, over fake services: places, publications, callbacks, checks, states as words, the live stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from citykit import errors
from citykit.clock import ReplayClock
from services.gateway.app.live import city_picture
from tests.system.fake_calls import NOW, fake_token
from tests.system.fake_parking import RESERVATION
from tests.system.fake_purse import PAYMENT
from tests.system.fakes import FakeCity, fake_city
from tests.system.test_gateway import client_of, problem_of

RESIDENT = {"Authorization": f"Bearer {fake_token('resident')}"}
KEY = RESIDENT | {"Idempotency-Key": "k-1"}
SPACE = f"/api/v1/parking/reservations/{RESERVATION}"
ARRIVAL = "arrival=2016-11-08T14:00:00Z&stay_minutes=120"
DAY = "from=2016-11-07T00:00:00Z&to=2016-11-08T00:00:00Z"


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[FakeCity]:
    async with fake_city(tmp_path) as found:
        yield found


@pytest.fixture
async def client(city: FakeCity) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(city) as found:
        yield found


async def test_degrees_become_ten_millionths_exactly(city: FakeCity, client: httpx.AsyncClient) -> None:
    for where in (
        "lat=52.4794999&lon=-1.9026",
        "latitude_e7=524794999&longitude_e7=-19026000",
        "lat=-0.0000001&lon=180",
    ):
        answer = await client.get(f"/api/v1/parking/advice?{where}&{ARRIVAL}&walk_minutes_max=10&count=2")
        assert len(answer.json()["advice"]) == 2, answer.text
    asked = [(request.latitude_e7, request.longitude_e7) for request in city.calls.of("Advise")]
    assert asked == [(524_794_999, -19_026_000), (524_794_999, -19_026_000), (-1, 1_800_000_000)]
    request = city.calls.of("Advise")[0]
    assert (request.arrival_time.seconds, request.stay_minutes, request.walk_minutes_max) == (NOW + 7_200, 120, 10)


@pytest.mark.parametrize(
    ("where", "status", "field"),
    [
        ("lon=-1.9", 400, "lat"),
        ("lat=52.4", 400, "lon"),
        ("lat=90.0000001&lon=0", 400, "lat"),
        ("lat=52.47949999&lon=0", 422, "query.lat"),
        ("lat=1e1&lon=0", 422, "query.lat"),
        ("latitude_e7=1.5&longitude_e7=0", 422, "query.latitude_e7"),
    ],
)
async def test_a_place_that_is_none_is_named(client: httpx.AsyncClient, where: str, status: int, field: str) -> None:
    answer = await client.get(f"/api/v1/parking/advice?{where}&{ARRIVAL}")
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("format", "media_type"),
    [
        ("datex-table", "application/xml"),
        ("datex-status", "application/xml"),
        ("smart-data-models", "application/ld+json"),
    ],
)
async def test_publications_are_documents(
    city: FakeCity, client: httpx.AsyncClient, format: str, media_type: str
) -> None:
    path = f"/api/v1/parking/publications/{format}"
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, first.headers["content-type"], again.status_code) == (200, media_type, 304)
    assert city.calls.of("GetPublication")[0].format == format
    problem_of(await client.get("/api/v1/parking/publications/gtfs"), 422, "invalid-request")


async def test_a_callback_goes_on_byte_for_byte(city: FakeCity, client: httpx.AsyncClient) -> None:
    body = b'{"b":1, "a":\xc3\xa9 }'
    answer = await client.post("/api/v1/payments/callbacks", content=body, headers={"Provider-Signature": "t=1,v1=00"})
    assert (answer.status_code, answer.content) == (204, b"")
    request = city.calls.of("ReceiveCallback")[0]
    assert (request.body, request.signature) == (body, "t=1,v1=00")
    assert city.calls.of("ExchangeToken") == []


async def test_a_callback_is_refused_in_words(city: FakeCity, client: httpx.AsyncClient) -> None:
    path = "/api/v1/payments/callbacks"
    unsigned = problem_of(await client.post(path, content=b"{}"), 422, "invalid-request")
    assert unsigned["errors"][0]["field"] == "header.provider-signature"
    large = problem_of(
        await client.post(path, content=b" " * 16_385, headers={"Provider-Signature": "s"}), 413, "body-too-large"
    )
    assert "16384 bytes" in large["detail"]
    problem_of(await client.post(path, headers={"Provider-Signature": "s"}), 400, "invalid-argument")
    assert city.calls.of("ReceiveCallback") == []
    assert (await client.post(path, content=b" " * 16_384, headers={"Provider-Signature": "s"})).status_code == 204
    forged = await client.post(path, content=b"{}", headers={"Provider-Signature": "forged"})
    problem_of(forged, 403, "bad-signature")


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (f"{SPACE}/check", "receipts"),
        (f"/api/v1/payments/{PAYMENT}/check", "inclusion"),
        (f"/api/v1/statement-check?{DAY}", "statement"),
    ],
)
async def test_everything_paid_is_checked_by_the_verifier(
    city: FakeCity, client: httpx.AsyncClient, path: str, last: str
) -> None:
    good = (await client.post(path, headers=RESIDENT)).json()
    assert good["ok"] and good["steps"][-1]["step"] == last
    assert "demonstration" in good["caveat"]
    city.calls.bundle = "garbage"
    problem_of(await client.post(path, headers=RESIDENT), 503, "unavailable")


async def test_a_failed_step_of_a_session_is_named(city: FakeCity, client: httpx.AsyncClient) -> None:
    city.calls.bundle = "broken"
    bad = (await client.post(f"{SPACE}/check", headers=RESIDENT)).json()
    assert (bad["ok"], [step["step"] for step in bad["steps"] if not step["ok"]]) == (False, ["signatures"])


async def test_a_day_is_one_of_the_calendar(client: httpx.AsyncClient) -> None:
    billing = {"Authorization": f"Bearer {fake_token('billing')}"}
    for day, status in (("2016-11-31", 400), ("yesterday", 422), ("0", 422)):
        assert (await client.get(f"/api/v1/payments/reconciliation/{day}", headers=billing)).status_code == status


async def test_an_unknown_outcome_is_a_state_and_no_error(client: httpx.AsyncClient) -> None:
    rows = (await client.get("/api/v1/payments", headers=RESIDENT)).json()["payments"]
    assert [(row["state"], row["waiting_for"]) for row in rows] == [
        ("captured", ""),
        ("unknown", "authorise"),
        ("declined", ""),
    ]
    mandate = {"payee": "parking", "limit_minor": 5_000, "currency": "GBP", "payment_method": "pm_later"}
    made = (await client.post("/api/v1/payments/mandates", json=mandate, headers=KEY)).json()
    confirmed = await client.post(f"{SPACE}/confirm", json=made, headers=KEY)
    assert (confirmed.status_code, confirmed.json()["state"]) == (200, "confirming"), confirmed.text


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/v1/payments/mandates", {"limit_minor": 0}, "body.limit_minor"),
        ("/api/v1/payments/mandates", {"limit_minor": True}, "body.limit_minor"),
        ("/api/v1/payments/mandates", {"limit_minor": 2**53}, "body.limit_minor"),
        ("/api/v1/payments/mandates", {"currency": "gbp"}, "body.currency"),
        ("/api/v1/payments/mandates", {"payment_method": "4111 1111"}, "body.payment_method"),
    ],
)
async def test_amounts_and_currencies_are_checked(
    client: httpx.AsyncClient, path: str, body: dict[str, object], field: str
) -> None:
    good = {"payee": "parking", "limit_minor": 5_000, "currency": "GBP", "payment_method": "pm_visa"}
    problem = problem_of(await client.post(path, json=good | body, headers=KEY), 422, "invalid-request")
    assert problem["errors"][0]["field"] == field


async def test_the_words_of_a_service_reach_the_caller(city: FakeCity, client: httpx.AsyncClient) -> None:
    city.calls.errors["Hold"] = errors.FailedPrecondition("no bay is free then", reason="no-bay", field="from_time")
    span = {"lot": "bull-ring", "from_time": "2016-11-08T14:00:00Z", "to_time": "2016-11-08T16:00:00Z"}
    body = problem_of(await client.post("/api/v1/parking/reservations", json=span, headers=KEY), 409, "no-bay")
    assert (body["detail"], body["errors"][0]["field"]) == ("no bay is free then", "from_time")
    problem_of(await client.get("/api/v1/parking/reservations/other", headers=RESIDENT), 404, "not-found")


async def test_the_picture_has_parking_and_money(city: FakeCity) -> None:
    calls = city.app.state.parts.calls
    picture = await city_picture(calls, ReplayClock(NOW))
    parking = picture["parking"]
    assert parking["lots"] == {"counted": 4, "disputed": 1, "stale": 1, "unknown": 2}
    assert (parking["double_bookings"], parking["reservations"], parking["sessions"]) == (0, 983, 920)
    assert 0 < parking["free"] < parking["capacity"] == 577 + 690 + 470 + 387
    assert (picture["payments"]["captured"], picture["payments"]["sum_minor"]) == (903, 0)
    city.calls.errors |= {"GetPaymentsBooks": errors.Unavailable("away"), "GetParkingBooks": errors.Unavailable("away")}
    away = await city_picture(calls, ReplayClock(NOW))
    assert (away["parking"], away["payments"], away["load"] is None) == (None, None, False)
