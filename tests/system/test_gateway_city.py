"""The gateway over the real services: a person signs in, reads, agrees, exports and erases; tokens of others are refused."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from citykit.bus.topics import TOPICS
from services.testing import TestCity, embedded_city

PASSWORD = "correct horse battery"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
ASKED = {
    "response_type": "code",
    "client_id": "dashboard",
    "redirect_uri": "/",
    "scope": "openid",
    "state": "s-1",
    "code_challenge": CHALLENGE,
}


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[TestCity]:
    async with embedded_city(tmp_path, services=["identity", "metering", "notary", "gateway"]) as found:
        people = IdentityServiceStub(found.dial("identity"))
        for login, role in (("ada", access_pb2.ROLE_RESIDENT), ("staff-operator", access_pb2.ROLE_OPERATOR)):
            await people.CreatePerson(
                identity.CreatePersonRequest(
                    request_id=f"person-{login}", login=login, display_name=login, roles=[role], password=PASSWORD
                )
            )
        yield found


@pytest.fixture
async def client(city: TestCity) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(city.process.services["gateway"].http)
    async with httpx.AsyncClient(transport=transport, base_url="https://city.test") as found:
        yield found


async def code_of(client: httpx.AsyncClient, login: str, password: str = PASSWORD) -> httpx.Response:
    page = await client.get(f"/oidc/authorize?{urlencode(ASKED)}")
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    form = {unescape(name): unescape(value) for name, value in hidden}
    return await client.post("/oidc/authorize", data=form | {"login": login, "password": password})


async def code_form(client: httpx.AsyncClient, login: str) -> dict[str, str]:
    """What the client sends to the token endpoint after a right login."""
    answer = await code_of(client, login)
    assert answer.status_code == 303, answer.text
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    return {
        "grant_type": "authorization_code",
        "client_id": "dashboard",
        "redirect_uri": "/",
        "code": code,
        "code_verifier": VERIFIER,
    }


async def tokens_of(client: httpx.AsyncClient, login: str) -> dict[str, str]:
    tokens = await client.post("/oidc/token", data=await code_form(client, login))
    assert tokens.status_code == 200, tokens.text
    found = tokens.json()
    assert isinstance(found, dict)
    return found


async def bearer(client: httpx.AsyncClient, login: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await tokens_of(client, login))['access_token']}"}


async def test_a_code_is_good_for_once_and_a_second_use_ends_what_it_gave(client: httpx.AsyncClient) -> None:
    form = await code_form(client, "ada")
    first, again = [await client.post("/oidc/token", data=form) for _ in range(2)]
    assert (first.status_code, again.json()["error"]) == (200, "invalid_grant")
    headers = {"Authorization": f"Bearer {first.json()['access_token']}"}
    assert (await client.get("/api/v1/me", headers=headers)).status_code == 401


async def test_a_resident_s_own_things(client: httpx.AsyncClient) -> None:
    ada = await bearer(client, "ada")
    me = (await client.get("/api/v1/me", headers=ada)).json()
    assert (me["login"], me["roles"]) == ("ada", ["resident"])
    for path, rows in (
        ("me/contracts", "contracts"),
        ("bills", "bills"),
        ("me/accesses", "accesses"),
        ("appeals", "appeals"),
    ):
        answer = await client.get(f"/api/v1/{path}", headers=ada)
        assert (answer.status_code, answer.json()[rows]) == (200, []), answer.text
    for path in ("quarantine", "meters", "devices", "refusals"):
        refused = await client.get(f"/api/v1/{path}", headers=ada)
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json"), path


async def test_a_consent_is_recorded_once_and_withdrawn(client: httpx.AsyncClient) -> None:
    ada = await bearer(client, "ada") | {"Idempotency-Key": "k-1"}
    body = {"purpose": "energy advice", "recipient": "forecasting"}
    first, again = [await client.post("/api/v1/me/consents", json=body, headers=ada) for _ in range(2)]
    assert (first.status_code, first.json()) == (201, again.json())
    other = await client.post("/api/v1/me/consents", json=body | {"purpose": "other"}, headers=ada)
    assert (other.status_code, other.json()["reason"]) == (422, "request-id-reused")
    path = f"/api/v1/me/consents/{first.json()['id']}/withdrawal"
    withdrawn = await client.post(path, headers=ada | {"Idempotency-Key": "k-2"})
    assert withdrawn.json()["withdrawn_at"] is not None
    consents = (await client.get("/api/v1/me/consents", headers=ada)).json()["consents"]
    assert [consent["id"] for consent in consents] == [first.json()["id"]]


async def test_the_same_key_of_two_people_is_two_acts(client: httpx.AsyncClient) -> None:
    ada, operator = await bearer(client, "ada"), await bearer(client, "staff-operator")
    body = {"purpose": "energy advice", "recipient": "forecasting"}
    first = await client.post("/api/v1/me/consents", json=body, headers=ada | {"Idempotency-Key": "k"})
    second = await client.post("/api/v1/me/consents", json=body, headers=operator | {"Idempotency-Key": "k"})
    assert (first.status_code, second.status_code) == (201, 403)


async def test_data_can_be_taken_away_and_destroyed(client: httpx.AsyncClient) -> None:
    ada = await bearer(client, "ada")
    assert "ada" in (await client.get("/api/v1/me/export", headers=ada)).text
    key = {"Idempotency-Key": "erase"}
    slip = await client.post("/api/v1/me/erasure", json={"confirm_login": "adam"}, headers=ada | key)
    assert slip.status_code in {400, 409}
    erased = await client.post(
        "/api/v1/me/erasure", json={"confirm_login": "ada"}, headers=ada | {"Idempotency-Key": "e-2"}
    )
    assert erased.status_code == 200, erased.text
    assert erased.json()["receipt"]
    assert (await code_of(client, "ada")).status_code == 401


async def test_forged_expired_and_foreign_tokens_are_refused(city: TestCity, client: httpx.AsyncClient) -> None:
    good = (await tokens_of(client, "ada"))["access_token"]
    head, claims, signature = good.split(".")
    forged = [f"{head}.{claims}.{'A' * len(signature)}", f"{head}.{claims}."]
    forged.append(base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=") + f".{claims}.")
    forged.append(city.token(role="resident", subject="somebody", audience="metering"))
    forged.append(city.token(role="resident", subject="somebody", audience="gateway", exp=1, iat=0))
    for token in forged:
        answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), answer.text
        assert "invalid_token" in answer.headers["www-authenticate"]


async def test_wrong_logins_are_counted(client: httpx.AsyncClient) -> None:
    statuses = [(await code_of(client, "ada", "a wrong password")).status_code for _ in range(12)]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429


async def test_the_public_side(city: TestCity, client: httpx.AsyncClient) -> None:
    ada = await bearer(client, "ada") | {"Idempotency-Key": "k-1"}
    await client.post("/api/v1/me/consents", json={"purpose": "energy advice", "recipient": "forecasting"}, headers=ada)
    await city.settle()
    assert (await client.get("/readyz")).status_code == 200
    heads = (await client.get("/api/v1/logs")).json()["heads"]
    assert {topic.log for topic in TOPICS if topic.log} == {head["log"] for head in heads}
    head = next(head for head in heads if head["log"] == "identity.events")
    checkpoint = await client.get("/logs/identity.events/checkpoint")
    assert checkpoint.text == head["checkpoint"]
    assert checkpoint.text.startswith("provable.city/demo/identity.events\n")
    tile = await client.get(f"/logs/identity.events/tile/0/000.p/{head['anchored_size']}")
    assert len(tile.content) == 32 * head["anchored_size"]
    evidence = (await client.get(f"/api/v1/ledger/transactions/{head['anchor_transaction']}")).json()["evidence"]
    assert evidence["envelope"]["transaction"]["id"] == head["anchor_transaction"]
    assert (await client.get("/trust.json")).json()["format"] == "city.trust.v1"
    metadata = (await client.get("/.well-known/openid-configuration")).json()
    assert metadata["issuer"] == "https://provable.city/demo"
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    key = (await client.get("/oidc/jwks")).json()["keys"][0]
    assert (key["crv"], "d" in key) == ("Ed25519", False)
    assert (await client.get("/api/v1/neighbourhood")).json()["reason"] == "service-absent"


LOT = {
    "id": "bull-ring",
    "name": "Bull Ring",
    "operator": "City car parks",
    "capacity": 577,
    "latitude_e7": 524_774_000,
    "longitude_e7": -18_936_000,
    "open_hours": [],
    "tariff": "bays-2016",
    "bays": ["b-01", "b-02"],
}
BAYS = {
    "id": "bays-2016", "version": 1, "currency": "GBP", "zone": "Europe/London", "valid_from": "2016-01-01", "step_minutes": 30,
    "bands": [{"name": "day", "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 0, "to_minute": 1440}], "price_minor_per_step": 60}],
    "cap_minor_per_day": 900, "overstay_minor_per_step": 150, "overstay_steps_max": 8, "no_show_minor": 200, "cancel_minor": 100,
    "cancel_free_minutes": 60, "grace_minutes": 10, "hold_minutes": 10, "vat_basis_points": 2_000,
}  # fmt: skip


@pytest.fixture
async def parking_city(tmp_path: Path) -> AsyncIterator[TestCity]:
    services = ["identity", "metering", "parking", "payments", "notary", "gateway"]
    async with embedded_city(tmp_path, services=services) as found:
        people = IdentityServiceStub(found.dial("identity"))
        for login, role in (
            ("ada", access_pb2.ROLE_RESIDENT),
            ("staff-operator", access_pb2.ROLE_OPERATOR),
            ("staff-billing", access_pb2.ROLE_BILLING),
        ):
            await people.CreatePerson(
                identity.CreatePersonRequest(
                    request_id=f"person-{login}", login=login, display_name=login, roles=[role], password=PASSWORD
                )
            )
        yield found


async def test_parking_and_payments_over_the_real_services(parking_city: TestCity) -> None:
    transport = httpx.ASGITransport(parking_city.process.services["gateway"].http)
    async with httpx.AsyncClient(transport=transport, base_url="https://city.test") as client:
        ada, operator, billing = [await bearer(client, who) for who in ("ada", "staff-operator", "staff-billing")]
        key = {"Idempotency-Key": "k-1"}
        published = await client.post("/api/v1/parking/tariffs", json={"tariff": BAYS}, headers=billing | key)
        assert published.status_code == 201, published.text
        registered = await client.post("/api/v1/parking/lots", json={"lots": [LOT]}, headers=operator | key)
        assert registered.json() == {"registered": 1}, registered.text
        lot = (await client.get("/api/v1/parking/lots")).json()["lots"][0]
        assert (lot["lot"]["id"], lot["state"]["quality"], lot["reservable_free"]) == ("bull-ring", "unknown", 2)
        books = (await client.get("/api/v1/payments/books")).json()
        assert (books["sum_minor"], books["captured"]) == (0, 0)
        assert (await client.get("/readyz")).json()["parts"]["payments"] == "ready"
        for path in ("parking/reservations", "payments"):
            assert (await client.get(f"/api/v1/{path}", headers=ada)).json()[path.split("/")[-1]] == []
        gone = await client.get("/api/v1/payments/payment-nobody", headers=ada)
        assert (gone.status_code, gone.json()["reason"]) == (404, "not-found")
        forged = await client.post(
            "/api/v1/payments/callbacks", content=b"{}", headers={"Provider-Signature": "t=1,v1=00"}
        )
        assert 400 <= forged.status_code < 500 and forged.headers["content-type"] == "application/problem+json"
        for format in ("datex-table", "datex-status", "smart-data-models"):
            publication = await client.get(f"/api/v1/parking/publications/{format}")
            assert publication.status_code == 200 and "bull-ring" in publication.text
