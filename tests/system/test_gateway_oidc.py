"""Discovery, the login page and the token endpoint over fake services: PKCE, login CSRF, errors of RFC 6749."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from citykit import errors
from tests.system.fakes import FakeCity, fake_city

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ASKED = {
    "response_type": "code",
    "client_id": "energy-app",
    "redirect_uri": "https://app.example/callback?from=city",
    "scope": "openid",
    "state": 'a"b<c>',
    "nonce": "n-1",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
LOGIN = {"login": "ada", "password": "a password for resident:ada"}


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[FakeCity]:
    async with fake_city(tmp_path) as found:
        yield found


@pytest.fixture
async def client(city: FakeCity) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(city.app, client=("192.0.2.7", 5))
    async with httpx.AsyncClient(transport=transport, base_url="https://city.test") as found:
        yield found


async def fields_of_page(client: httpx.AsyncClient, asked: dict[str, str] = ASKED) -> dict[str, str]:
    page = await client.get(f"/oidc/authorize?{urlencode(asked)}")
    assert page.status_code == 200, page.text
    return hidden_fields(page.text)


def hidden_fields(html: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', html)
    return {unescape(name): unescape(value) for name, value in found}


async def test_the_whole_flow_gives_a_token(city: FakeCity, client: httpx.AsyncClient) -> None:
    fields = await fields_of_page(client)
    answer = await client.post("/oidc/authorize", data=fields | LOGIN)
    assert answer.status_code == 303, answer.text
    back = urlsplit(answer.headers["location"])
    query = parse_qs(back.query)
    assert (back.netloc, query["from"], query["state"]) == ("app.example", ["city"], [ASKED["state"]])
    assert query["iss"] == ["https://provable.city/demo"]
    asked = city.calls.of("Authorize")[0]
    assert (asked.client_id, asked.code_challenge, asked.login) == ("energy-app", CHALLENGE, "ada")
    assert asked.throttle_key and "192.0.2.7" not in asked.throttle_key
    form = {
        "grant_type": "authorization_code",
        "code": query["code"][0],
        "redirect_uri": ASKED["redirect_uri"],
        "client_id": "energy-app",
        "code_verifier": "v" * 43,
    }
    tokens = await client.post("/oidc/token", data=form)
    assert tokens.status_code == 200
    assert tokens.headers["cache-control"] == "no-store"
    assert tokens.json()["token_type"] == "Bearer"
    assert city.calls.of("ExchangeCode")[0].code_verifier == "v" * 43
    me = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {tokens.json()['access_token']}"})
    assert me.status_code == 200


async def test_the_page_escapes_what_it_was_given(client: httpx.AsyncClient) -> None:
    page = await client.get(f"/oidc/authorize?{urlencode(ASKED | {'client_id': '<script>alert(1)</script>'})}")
    assert "<script" not in page.text
    assert hidden_fields(page.text)["state"] == ASKED["state"]


async def test_the_page_may_send_the_browser_back_to_the_client_only(client: httpx.AsyncClient) -> None:
    page = await client.get(f"/oidc/authorize?{urlencode(ASKED)}")
    assert "form-action 'self' https://app.example;" in page.headers["content-security-policy"]
    for odd in ("https://a.example;script-src *", "javascript:alert(1)", "https://[::1", "//x y"):
        page = await client.get(f"/oidc/authorize?{urlencode(ASKED | {'redirect_uri': odd})}")
        assert "form-action 'self';" in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].count("script-src") == 1


async def test_a_wrong_login_shows_the_page_again(city: FakeCity, client: httpx.AsyncClient) -> None:
    fields = await fields_of_page(client)
    answer = await client.post("/oidc/authorize", data=fields | {"login": "ada", "password": "wrong"})
    assert answer.status_code == 401
    assert "is wrong" in answer.text and "wrong password" not in answer.text
    again = await client.post("/oidc/authorize", data=hidden_fields(answer.text) | LOGIN)
    assert again.status_code == 303


async def test_a_gateway_that_is_refused_blames_no_password(city: FakeCity, client: httpx.AsyncClient) -> None:
    fields = await fields_of_page(client)
    city.calls.errors["Authorize"] = errors.Unauthenticated(
        "the certificate names nobody", reason="certificate-unknown"
    )
    answer = await client.post("/oidc/authorize", data=fields | LOGIN)
    assert (answer.status_code, answer.json()["reason"]) == (401, "certificate-unknown")


async def test_too_many_tries_are_a_problem(city: FakeCity, client: httpx.AsyncClient) -> None:
    fields = await fields_of_page(client)
    city.calls.errors["Authorize"] = errors.ResourceExhausted("too many failed logins; wait", retry_after_s=600)
    answer = await client.post("/oidc/authorize", data=fields | LOGIN)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "600")


async def test_a_form_of_another_browser_or_request_is_refused(city: FakeCity, client: httpx.AsyncClient) -> None:
    fields = await fields_of_page(client)
    changed = await client.post("/oidc/authorize", data=fields | LOGIN | {"redirect_uri": "https://evil.example/"})
    crossed = await client.post("/oidc/authorize", data=fields | LOGIN, headers={"Sec-Fetch-Site": "cross-site"})
    client.cookies.clear()
    stolen = await client.post("/oidc/authorize", data=fields | LOGIN)
    for answer in (changed, crossed, stolen):
        assert (answer.status_code, answer.json()["reason"]) == (403, "stale-form")
    assert city.calls.of("Authorize") == []


async def test_the_cookie_is_for_this_form_only(client: httpx.AsyncClient) -> None:
    page = await client.get(f"/oidc/authorize?{urlencode(ASKED)}")
    cookie = page.headers["set-cookie"].lower()
    for mark in ("httponly", "samesite=strict", "path=/oidc", "max-age=600", "secure"):
        assert mark in cookie


@pytest.mark.parametrize(
    "change",
    [
        {"response_type": "token"},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
        {"client_id": "x" * 501},
    ],
)
async def test_other_flows_are_refused(client: httpx.AsyncClient, change: dict[str, str]) -> None:
    answer = await client.get(f"/oidc/authorize?{urlencode(ASKED | change)}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


FORM = {
    "grant_type": "authorization_code",
    "code": "code-resident:ada",
    "redirect_uri": "r",
    "client_id": "c",
    "code_verifier": "v",
}


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (FORM | {"grant_type": "password"}, "unsupported_grant_type"),
        (FORM | {"code_verifier": ""}, "invalid_request"),
        (FORM | {"code": "unknown"}, "invalid_grant"),
    ],
)
async def test_token_errors_have_the_form_of_rfc_6749(
    client: httpx.AsyncClient, form: dict[str, str], error: str
) -> None:
    answer = await client.post("/oidc/token", data=form)
    assert answer.status_code == 400
    assert answer.json()["error"] == error
    assert answer.json()["error_description"]


async def test_a_form_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/oidc/token", json=FORM)).json()["error"] == "invalid_request"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"a=%ff", b"&".join(b"a%d=1" % number for number in range(30)), b"\xff"):
        answer = await client.post("/oidc/token", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_identity_away_is_no_oauth_error(city: FakeCity, client: httpx.AsyncClient) -> None:
    city.calls.errors["ExchangeCode"] = errors.Unavailable("away")
    answer = await client.post("/oidc/token", data=FORM)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
