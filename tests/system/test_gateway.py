"""The HTTP API over fake services: what each route asks of whom, and how errors, pages, ETags and keys behave."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from citykit import errors
from citykit.settings import CitySettings
from tests.system.fake_calls import TX, fake_token
from tests.system.fake_metering import BILL
from tests.system.fake_parking import RESERVATION
from tests.system.fake_purse import PAYMENT
from tests.system.fakes import FakeCity, fake_city

DAY = "from=2016-11-07T00:00:00Z&to=2016-11-08T00:00:00Z"
RESIDENT = {"Authorization": f"Bearer {fake_token('resident')}"}
ADVICE = "/api/v1/parking/advice?lat=52.4795&lon=-1.9026&arrival=2016-11-08T14:00:00Z&stay_minutes=120"
SPACE = f"/api/v1/parking/reservations/{RESERVATION}"
HOME = "/api/v1/meter-points/mp-0001"


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


READS = [
    ("/api/v1/city", None, "city_time"),
    ("/api/v1/load?slots=3", None, "points"),
    ("/api/v1/tariffs", None, "tariffs"),
    ("/api/v1/logs", None, "heads"),
    ("/api/v1/logs/metering.readings", None, "anchored_size"),
    ("/api/v1/logs/metering.readings/inclusion?index=5", None, "hashes"),
    ("/api/v1/logs/metering.readings/consistency?from_size=5&to_size=9", None, "hashes"),
    (f"/api/v1/ledger/transactions/{TX}", None, "evidence"),
    ("/api/v1/neighbourhood", None, "attributions"),
    ("/api/v1/replay", None, "faults_available"),
    ("/trust.json", None, "format"),
    ("/.well-known/openid-configuration", None, "issuer"),
    ("/oidc/jwks", None, "keys"),
    ("/api/v1/me", "resident", "login"),
    ("/api/v1/me", "contractor", "login"),
    ("/api/v1/me/contracts", "resident", "contracts"),
    ("/api/v1/me/consents", "resident", "consents"),
    ("/api/v1/me/accesses", "resident", "accesses"),
    ("/api/v1/me/export", "contractor", "login"),
    (f"{HOME}/usage?{DAY}&resolution=slot", "resident", "points"),
    (f"{HOME}/usage?{DAY}&purpose=asked", "operator", "points"),
    (f"{HOME}/readings-bundle?{DAY}", "resident", "kind"),
    ("/api/v1/bills", "resident", "bills"),
    (f"/api/v1/bills/{BILL}", "resident", "total_minor"),
    (f"/api/v1/bills/{BILL}/document", "billing", "lines"),
    (f"/api/v1/bills/{BILL}/bundle", "resident", "kind"),
    ("/api/v1/parking/lots", None, "lots"),
    (ADVICE, None, "advice"),
    ("/api/v1/parking/calibration", None, "bins"),
    ("/api/v1/parking/access-keys", None, "keys"),
    ("/api/v1/parking/books", None, "double_bookings"),
    ("/api/v1/forecasting/models", None, "models"),
    ("/api/v1/payments/books", None, "sum_minor"),
    ("/api/v1/parking/reservations", "resident", "reservations"),
    (SPACE, "resident", "state"),
    (f"{SPACE}/bundle", "resident", "kind"),
    ("/api/v1/payments", "resident", "payments"),
    (f"/api/v1/payments/{PAYMENT}", "resident", "captured_minor"),
    (f"/api/v1/payments/{PAYMENT}", "billing", "captured_minor"),
    (f"/api/v1/payments/{PAYMENT}/receipt-bundle", "resident", "kind"),
    (f"/api/v1/statement-bundle?{DAY}", "resident", "kind"),
    ("/api/v1/payments/reconciliation/2016-11-07", "auditor", "differences"),
    ("/api/v1/forecasting/explanation?series=parking/bull-ring&time=2016-11-08T14:00:00Z", "operator", "words"),
    ("/api/v1/appeals", "operator", "appeals"),
    ("/api/v1/quarantine", "auditor", "entries"),
    ("/api/v1/refusals", "operator", "entries"),
    ("/api/v1/meters", "operator", "states"),
    ("/api/v1/devices", "registrar", "devices"),
    ("/api/v1/devices/meter-0001", "auditor", "keys"),
    ("/api/v1/people/person-1?purpose=asked", "registrar", "login"),
    ("/api/v1/pairwise-subjects?login=ada", "registrar", "subject"),
]


@pytest.mark.parametrize(("path", "role", "member"), READS)
async def test_reads_answer(client: httpx.AsyncClient, path: str, role: str | None, member: str) -> None:
    response = await client.get(path, headers=as_role(role) if role else {})
    assert response.status_code == 200, response.text
    assert member in response.json()


PERIOD = {"from_date": "2016-10-04", "to_date": "2016-11-04"}
APPEAL = {
    "meter_point": "mp-0001",
    "from_time": "2016-11-07T00:00:00Z",
    "to_time": "2016-11-08T00:00:00Z",
    "statement": "It was the car.",
}
VOUCHERS = {"vouchers": [{"document": "{}", "signature": "00" * 64, "manufacturer": "sim"}]}
LOT = {
    "id": "bull-ring",
    "name": "Bull Ring",
    "operator": "City car parks",
    "capacity": 577,
    "latitude_e7": 524_774_000,
    "longitude_e7": -18_936_000,
    "open_hours": [{"weekday": 0, "from_minute": 0, "to_minute": 1_440}],
    "tariff": "bays-2016",
}
SPAN = {"from_time": "2016-11-08T14:00:00Z", "to_time": "2016-11-08T16:00:00Z"}
MATCH = SPAN | {"id": "match", "name": "Match", "latitude_e7": 0, "longitude_e7": 0, "cars": 900}
MANDATE = {"payee": "parking", "limit_minor": 5_000, "currency": "GBP", "payment_method": "pm_visa"}
REFUND = {"amount_minor": 100, "reason": "complaint"}
WRITES = [
    ("/api/v1/parking/lots", "operator", {"lots": [LOT]}, 200, "RegisterLots"),
    ("/api/v1/parking/events", "operator", {"events": [MATCH]}, 204, "AddCityEvents"),
    ("/api/v1/parking/tariffs", "billing", {"tariff": {"id": "bays-2017"}}, 201, "PublishParkingTariff"),
    ("/api/v1/parking/permits", "billing", SPAN | {"subject": "s", "price_basis_points": 0}, 201, "GrantPermit"),
    ("/api/v1/parking/reservations", "resident", SPAN | {"lot": "bull-ring"}, 201, "Hold"),
    (f"{SPACE}/confirm", "resident", {"mandate": "mandate-visa-1"}, 200, "Confirm"),
    (f"{SPACE}/extend", "resident", {"to_time": "2016-11-08T18:00:00Z"}, 200, "Extend"),
    (f"{SPACE}/cancel", "resident", None, 200, "Cancel"),
    (f"{SPACE}/access", "resident", {"act": "exit"}, 200, "IssueAccess"),
    (f"{SPACE}/unlock", "resident", None, 200, "Unlock"),
    (f"{SPACE}/refund", "billing", REFUND, 200, "RefundSession"),
    ("/api/v1/payments/mandates", "resident", MANDATE, 201, "CreateMandate"),
    (f"/api/v1/bills/{BILL}/payment", "resident", {"payment_method": "pm_visa"}, 201, "PayBill"),
    (f"/api/v1/payments/{PAYMENT}/refund", "billing", REFUND, 200, "Refund"),
    ("/api/v1/me/consents", "resident", {"purpose": "advice", "recipient": "forecasting"}, 201, "RecordConsent"),
    ("/api/v1/me/consents/consent-1/withdrawal", "resident", None, 200, "WithdrawConsent"),
    ("/api/v1/me/erasure", "resident", {"confirm_login": "ada"}, 200, "EraseMe"),
    ("/api/v1/appeals", "resident", APPEAL, 201, "CreateAppeal"),
    ("/api/v1/appeals/appeal-1/decision", "operator", {"granted": True, "reason": "the car"}, 200, "DecideAppeal"),
    ("/api/v1/quarantine/meter-0017/release", "operator", {"decision": "sensor replaced"}, 200, "ReleaseDevice"),
    ("/api/v1/tariffs", "billing", {"tariff": {"id": "homes-2017"}}, 201, "PublishTariff"),
    (
        "/api/v1/contracts",
        "billing",
        {"meter_point": "mp-1", "subject": "s", "tariff": "t", "from_date": "2016-10-04"},
        201,
        "CreateContract",
    ),
    ("/api/v1/contracts/contract-1/end", "billing", {"to_date": "2016-11-04"}, 200, "EndContract"),
    ("/api/v1/billing-runs", "billing", PERIOD, 201, "RunBilling"),
    (f"/api/v1/bills/{BILL}/correction", "billing", {"reason": "late readings"}, 201, "CorrectBill"),
    ("/api/v1/devices", "registrar", VOUCHERS, 201, "RegisterDevices"),
    (
        "/api/v1/devices/meter-0017/revocation",
        "operator",
        {"reason": "stolen", "last_sequence": 5},
        200,
        "RevokeDevice",
    ),
    (
        "/api/v1/people",
        "registrar",
        {"login": "ada", "display_name": "Ada", "roles": ["resident"], "password": "x" * 12},
        201,
        "CreatePerson",
    ),
]


@pytest.mark.parametrize(("path", "role", "body", "status", "rpc"), WRITES)
async def test_writes_need_a_key_and_act_once(
    city: FakeCity, client: httpx.AsyncClient, path: str, role: str, body: dict[str, Any] | None, status: int, rpc: str
) -> None:
    headers = as_role(role)
    problem_of(await client.post(path, json=body, headers=headers), 400, "idempotency-key")
    assert city.calls.of(rpc) == []
    answers = [await client.post(path, json=body, headers=headers | {"Idempotency-Key": "k-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, status], answers[0].text
    assert answers[0].content == answers[1].content
    first, second = city.calls.of(rpc)
    assert first == second
    assert first.request_id.startswith("gw-")


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 101, "é"])
async def test_an_unfit_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    headers = [(b"authorization", RESIDENT["Authorization"].encode()), (b"idempotency-key", key.encode())]
    response = await client.post("/api/v1/me/consents", json={"purpose": "a", "recipient": "b"}, headers=headers)
    problem_of(response, 400, "idempotency-key")


async def test_a_key_with_other_content_is_refused(client: httpx.AsyncClient) -> None:
    headers = RESIDENT | {"Idempotency-Key": "k-1"}
    await client.post("/api/v1/me/consents", json={"purpose": "a", "recipient": "b"}, headers=headers)
    again = await client.post("/api/v1/me/consents", json={"purpose": "a", "recipient": "c"}, headers=headers)
    problem_of(again, 422, "request-id-reused")


async def test_two_people_with_one_key_do_not_meet(city: FakeCity, client: httpx.AsyncClient) -> None:
    for who in ("ada", "contractor-1"):
        headers = {"Authorization": f"Bearer {fake_token('resident', who)}", "Idempotency-Key": "k-1"}
        response = await client.post("/api/v1/me/consents", json={"purpose": "a", "recipient": who}, headers=headers)
        assert response.status_code == 201, response.text
    first, second = city.calls.of("RecordConsent")
    assert first.request_id != second.request_id


async def test_services_get_a_token_of_their_own_audience(city: FakeCity, client: httpx.AsyncClient) -> None:
    for path in ("/api/v1/bills", "/api/v1/bills", "/api/v1/me"):
        await client.get(path, headers=RESIDENT)
    assert [request.audience for request in city.calls.of("ExchangeToken")] == ["metering", "identity"]


async def test_a_refused_token_is_exchanged_anew(city: FakeCity, client: httpx.AsyncClient) -> None:
    await client.get("/api/v1/bills", headers=RESIDENT)
    city.calls.errors["ListBills"] = errors.Unauthenticated("the signing key is gone")
    problem_of(await client.get("/api/v1/bills", headers=RESIDENT), 401, "unauthenticated")
    city.calls.errors.clear()
    assert (await client.get("/api/v1/bills", headers=RESIDENT)).status_code == 200
    assert len(city.calls.of("ExchangeToken")) == 2


def secured(city: FakeCity) -> list[tuple[str, str]]:
    paths = city.app.openapi()["paths"]
    return [
        (method, path)
        for path, item in paths.items()
        for method, operation in item.items()
        if operation.get("security")
    ]


async def test_every_secured_route_refuses_strangers(city: FakeCity, client: httpx.AsyncClient) -> None:
    routes = secured(city)
    assert len(routes) > 30
    for method, path in routes:
        url = path.replace("{transaction}", TX)
        response = await client.request(method, url.replace("{", "").replace("}", ""))
        problem_of(response, 401, "no-token")
        bad = await client.request(
            method, url.replace("{", "").replace("}", ""), headers={"Authorization": "Bearer forged.forged.forged"}
        )
        assert bad.status_code in {400, 401, 422}, f"{method} {path}: {bad.text}"
    assert {rpc for rpc, _ in city.calls.requests} <= {"ExchangeToken"}


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer " + "a" * 9_000])
async def test_other_credentials_are_refused(client: httpx.AsyncClient, header: str) -> None:
    assert (await client.get("/api/v1/me", headers={"Authorization": header})).status_code == 401


async def test_other_roles_are_refused_by_the_service(client: httpx.AsyncClient) -> None:
    problem_of(await client.get("/api/v1/meters", headers=RESIDENT), 403, "permission-denied")
    problem_of(await client.get("/api/v1/bills", headers=as_role("operator")), 403, "permission-denied")


async def test_the_framework_s_errors_are_problems_too(client: httpx.AsyncClient) -> None:
    problem_of(await client.get("/api/v1/nothing"), 404, "no-such-path")
    wrong = await client.delete("/api/v1/city")
    problem_of(wrong, 405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET"
    body = problem_of(await client.get("/api/v1/load?slots=0"), 422, "invalid-request")
    assert body["errors"][0]["field"] == "query.slots"
    headers = RESIDENT | {"Idempotency-Key": "k", "Content-Type": "application/json"}
    problem_of(await client.post("/api/v1/me/consents", content=b"{", headers=headers), 422, "invalid-request")
    typo = {"purpose": "a", "recipient": "b", "recipent": "c"}
    body = problem_of(await client.post("/api/v1/me/consents", json=typo, headers=headers), 422, "invalid-request")
    assert body["errors"][0]["field"] == "body.recipent"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused(city: FakeCity, client: httpx.AsyncClient, announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    content: Any = b" " * 2_000_000 if announced else chunks()
    headers = RESIDENT | {"Idempotency-Key": "k", "Content-Type": "application/json"}
    problem_of(await client.post("/api/v1/me/consents", content=content, headers=headers), 413, "body-too-large")
    assert city.calls.of("RecordConsent") == []


async def test_an_unexpected_error_tells_nothing(
    city: FakeCity, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    city.calls.errors["ListTariffs"] = errors.Damaged("record 5 of tariffs does not verify")
    problem_of(await client.get("/api/v1/tariffs"), 500, "data-damaged")

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret inside")

    parts = city.app.state.parts
    city.app.state.parts = dataclasses.replace(parts, calls=type("Broken", (), {"ask": broken})())
    with caplog.at_level(logging.ERROR):
        response = await client.get("/api/v1/tariffs")
    problem_of(response, 500, "internal")
    assert "secret" not in response.text
    assert "request-failed" in caplog.text


async def test_documents_have_etags(client: httpx.AsyncClient) -> None:
    for path in (
        f"/api/v1/bills/{BILL}/document",
        f"/api/v1/bills/{BILL}/bundle",
        "/trust.json",
        "/",
        "/page/style.css",
        "/api/v1/me/export",
    ):
        first = await client.get(path, headers=RESIDENT)
        again = await client.get(path, headers=RESIDENT | {"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
        assert again.headers["etag"] == first.headers["etag"]


async def test_head_is_get_without_the_content(client: httpx.AsyncClient) -> None:
    for path in ("/", "/api/v1/city", f"/api/v1/bills/{BILL}/document", "/nothing"):
        got, asked = [await client.request(method, path, headers=RESIDENT) for method in ("GET", "HEAD")]
        assert (asked.status_code, asked.content) == (got.status_code, b"")
        assert asked.headers["content-length"] == got.headers["content-length"]
    assert (await client.head("/api/v1/live")).status_code == 405
    assert 'route="/api/v1/bills/{bill}/document"' in (await client.get("/metrics")).text


async def test_pages_follow_the_token(city: FakeCity, client: httpx.AsyncClient) -> None:
    token, found = "", []
    while True:
        page = (await client.get(f"/api/v1/devices?page_size=40&page_token={token}", headers=as_role("auditor"))).json()
        found += [device["id"] for device in page["devices"]]
        if not (token := page["next_page_token"]):
            break
    assert len(found) == len(set(found)) == 100
    await client.get("/api/v1/devices?page_size=9999", headers=as_role("auditor"))
    assert city.calls.of("ListDevices")[-1].page_size == CitySettings().gateway.page_max


async def test_security_headers_are_on_every_answer(client: httpx.AsyncClient) -> None:
    for path in ("/", "/page/main.js", "/api/v1/city", "/nothing", "/api/v1/me", "/trust.json"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers


async def test_log_files_are_served_by_their_tlog_paths(client: httpx.AsyncClient) -> None:
    tile = await client.get("/logs/metering.readings/tile/entries/x001/067.p/5")
    assert tile.content == b"metering.readings/tile/entries/x001/067.p/5"
    assert "immutable" in tile.headers["cache-control"]
    checkpoint = await client.get("/logs/metering.readings/checkpoint")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert "no-cache" in checkpoint.headers["cache-control"]
    for path in ("tile/../../etc/passwd", "tile/0/1", "tile/0/000/..%2f..", "tile/zero/000"):
        assert (await client.get(f"/logs/metering.readings/{path}")).status_code in {404, 422}
    problem_of(await client.get("/logs/other/checkpoint"), 404, "not-found")


async def test_green_button_is_a_download(city: FakeCity, client: httpx.AsyncClient) -> None:
    response = await client.get(f"{HOME}/green-button?{DAY}", headers=RESIDENT)
    assert response.headers["content-type"] == "application/xml"
    assert "attachment" in response.headers["content-disposition"]
    assert response.text.endswith("</feed>")
    city.calls.errors["DownloadGreenButton"] = errors.NotFound("not your meter point")
    problem_of(await client.get(f"{HOME}/green-button?{DAY}", headers=RESIDENT), 404, "not-found")


@pytest.mark.parametrize(
    "span",
    [
        "",
        "from=2016-11-07T00:00:00Z",
        "from=2016-11-07&to=2016-11-08",
        "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z",
    ],
)
async def test_a_range_is_checked(client: httpx.AsyncClient, span: str) -> None:
    response = await client.get(f"{HOME}/usage?{span}", headers=RESIDENT)
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_bill_is_checked_by_the_verifier(client: httpx.AsyncClient) -> None:
    good = (await client.post(f"/api/v1/bills/{BILL}/check", headers=RESIDENT)).json()
    assert good["ok"] and {step["step"] for step in good["steps"]} >= {"inclusion", "signatures", "total"}
    assert "demonstration" in good["caveat"] and "python -m verifier" in good["command"]
    bad = (await client.post("/api/v1/bills/bill-broken/check", headers=RESIDENT)).json()
    assert not bad["ok"]
    assert [step["step"] for step in bad["steps"] if not step["ok"]] == ["signatures"]
    problem_of(await client.post("/api/v1/bills/bill-garbage/check", headers=RESIDENT), 503, "unavailable")
    problem_of(await client.post("/api/v1/bills/other/check", headers=RESIDENT), 404, "not-found")


async def test_readiness_tells_the_truth(city: FakeCity, client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).status_code == 200
    parts = (await client.get("/readyz")).json()["parts"]
    assert parts == dict.fromkeys(("identity", "metering", "notary", "parking", "payments"), "ready")
    city.calls.errors["ListLogs"] = errors.Unavailable("away")
    body = problem_of(await client.get("/readyz"), 503, "not-ready")
    assert body["errors"] == [{"field": "parts.notary", "message": "unavailable"}]
    assert (await client.get("/livez")).status_code == 200
    city.calls.errors = {"GetPaymentsBooks": errors.NotFound("not here", reason="service-absent")}
    assert (await client.get("/readyz")).json()["parts"]["payments"] == "service-absent"


async def test_metrics_name_routes_and_no_ids(client: httpx.AsyncClient) -> None:
    await client.get("/api/v1/bills/bill-secret", headers=RESIDENT)
    text = (await client.get("/metrics")).text
    assert 'route="/api/v1/bills/{bill}"' in text
    assert "bill-secret" not in text


async def test_no_token_reaches_the_log(
    city: FakeCity, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    city.calls.errors["ListBills"] = errors.Damaged("a record")
    with caplog.at_level(logging.DEBUG):
        await client.get("/api/v1/bills", headers=RESIDENT)
        await client.post("/demo/session", json={"as": "resident:ada"})
    assert RESIDENT["Authorization"].split()[1] not in caplog.text
    assert "a password" not in caplog.text
