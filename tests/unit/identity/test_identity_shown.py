"""The limit of attempts, and where an outside issuer's keys come from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from citykit.access import mint, signing_key
from citykit.errors import ResourceExhausted, Unauthenticated, Unavailable
from citykit.settings import IdentitySettings
from services.identity.app import shown, throttle
from services.identity.app.shown import Shown, read_keys
from services.identity.app.throttle import Throttle

ISSUER = "https://logins.example/"
NOW = 1_700_000_000
KEY, NEXT = signing_key(bytes(range(32))), signing_key(bytes(range(1, 33)))
CLAIMS = {"iss": ISSUER, "aud": "gateway", "sub": "ada", "exp": NOW + 300}


def jwks(*keys: Any) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


class Issuer:
    """An outside issuer: what it publishes, and how often it is read."""

    def __init__(self) -> None:
        self.published = jwks(KEY)
        self.reads = 0
        self.now = float(NOW)

    def read(self, settings: IdentitySettings) -> str:
        self.reads += 1
        return self.published

    def shown(self) -> Shown:
        settings = IdentitySettings(issuer=ISSUER)
        return Shown(settings, "https://city", json.loads(jwks()), lambda: self.now, self.read)


async def test_keys_are_kept_and_a_new_one_is_found() -> None:
    issuer = Issuer()
    verifier = issuer.shown()
    for _ in range(3):
        assert (await verifier.claims(mint(KEY, CLAIMS)))["sub"] == "ada"
    assert issuer.reads == 1
    issuer.published = jwks(KEY, NEXT)
    with pytest.raises(Unauthenticated) as caught:
        await verifier.claims(mint(NEXT, CLAIMS))
    assert caught.value.reason == "token-key"
    issuer.now += 11
    assert await verifier.claims(mint(NEXT, CLAIMS))
    assert issuer.reads == 2
    issuer.published = jwks(NEXT)
    issuer.now += 280
    assert await verifier.claims(mint(KEY, CLAIMS))
    issuer.now += 30
    with pytest.raises(Unauthenticated):
        await verifier.claims(mint(KEY, CLAIMS))


@pytest.mark.parametrize("published", ["", "[]", '{"keys": 7}', "{"])
async def test_what_is_no_key_set_is_told(published: str) -> None:
    issuer = Issuer()
    issuer.published = published
    with pytest.raises(Unavailable, match="CITY_IDENTITY_ISSUER_JWKS_FILE"):
        await issuer.shown().claims(mint(KEY, CLAIMS))


async def test_keys_of_kinds_we_do_not_read_are_left_out() -> None:
    issuer = Issuer()
    secret = {"kty": "oct", "kid": KEY.kid, "k": "AAAA"}
    issuer.published = json.dumps({"keys": [secret, {"kty": "OKP"}]})
    with pytest.raises(Unauthenticated) as caught:
        await issuer.shown().claims(mint(KEY, CLAIMS))
    assert caught.value.reason == "token-key"


def served(monkeypatch: pytest.MonkeyPatch, pages: dict[str, object]) -> None:
    def open_(address: str, timeout: float) -> io.BytesIO:
        return io.BytesIO(json.dumps(pages[address]).encode())

    monkeypatch.setattr(shown, "urlopen", open_)


def test_keys_are_found_by_the_discovery_document(monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"issuer": ISSUER, "jwks_uri": "https://logins.example/keys"}
    pages: dict[str, object] = {
        "https://logins.example/.well-known/openid-configuration": where,
        "https://logins.example/keys": {"keys": []},
    }
    served(monkeypatch, pages)
    assert read_keys(IdentitySettings(issuer=ISSUER)) == '{"keys": []}'
    where["issuer"] = "https://other.example"
    with pytest.raises(ValueError, match="another issuer"):
        read_keys(IdentitySettings(issuer=ISSUER))
    where.update(issuer=ISSUER, jwks_uri="http://logins.example/keys")
    with pytest.raises(ValueError, match="https only"):
        read_keys(IdentitySettings(issuer=ISSUER))


def test_a_file_stands_for_an_issuer_that_cannot_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(KEY), encoding="utf-8")
    assert read_keys(IdentitySettings(issuer=ISSUER, issuer_jwks_file=str(path))) == jwks(KEY)


def test_tries_run_out_and_come_back_after_an_hour() -> None:
    now = [0.0]
    limit = Throttle(2, lambda: now[0])
    limit.begin("ada", "address")
    now[0] = 60
    limit.begin("ada", "address")
    with pytest.raises(ResourceExhausted, match="try again in 60 minutes") as caught:
        limit.begin("ada", "elsewhere")
    assert caught.value.retry_after_s == 3_540
    limit.begin("bob", "elsewhere")
    now[0] = 3_600
    limit.begin("ada", "elsewhere")


def test_a_right_login_takes_back_its_own_try_only() -> None:
    limit = Throttle(2, lambda: 0.0)
    limit.begin("ada")
    for _ in range(5):
        limit.begin("ada")
        limit.succeeded("ada")
    limit.begin("ada")
    with pytest.raises(ResourceExhausted):
        limit.begin("ada")
    limit.succeeded("nobody")


def test_the_memory_of_tries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_KEYS_MAX", 3)
    limit = Throttle(1, lambda: 0.0)
    for number in range(5):
        limit.begin(f"login-{number}")
    limit.begin("login-0")
    with pytest.raises(ResourceExhausted):
        limit.begin("login-4")
