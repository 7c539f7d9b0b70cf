"""OpenID Connect over real gRPC: codes with PKCE, tokens, their exchange, limits of attempts, and an outside issuer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import TOKEN_TYPE, keys_of, mint, signing_key
from citykit.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable
from services.identity import store as tables
from tests.system.identity_city import APP, IdentityCity, challenge, claims_of, identity_city, refusal, settings

ONLY = ("identity",)
ISSUER = "https://logins.example"
OUTSIDE = signing_key(bytes(range(7, 39)))


async def test_a_login_gives_tokens_that_verify_with_the_published_keys(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        answer = await city.service().ExchangeCode(city.code_request(await city.code("ada")))
        keys = keys_of((await city.anyone().GetJwks(pb.GetJwksRequest())).json)
        [key] = keys.values()
        access = jwt.decode(answer.access_token, key, algorithms=["Ed25519"])
        assert access.header["typ"] == TOKEN_TYPE
        assert {name: access.claims[name] for name in ("iss", "aud", "roles", "client_id", "scope")} == {
            "iss": "https://provable.city/demo", "aud": "gateway", "roles": ["resident"], "client_id": APP, "scope": "openid",
        }  # fmt: skip
        assert access.claims["exp"] - access.claims["iat"] == answer.expires_in_s == 900
        identity = jwt.decode(answer.id_token, key, algorithms=["Ed25519"])
        assert (identity.claims["aud"], identity.claims["nonce"], identity.claims["sub"]) == (
            APP, "n-1", access.claims["sub"],
        )  # fmt: skip
        assert "ada" not in json.dumps([access.claims, identity.claims])


async def test_the_discovery_document_names_the_endpoints(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        found = json.loads((await city.anyone().GetProviderMetadata(pb.GetProviderMetadataRequest())).json)
        assert found["issuer"] == "https://provable.city/demo"
        assert found["token_endpoint"] == "https://provable.city/demo/oidc/token"
        assert found["code_challenge_methods_supported"] == ["S256"]
        assert found["subject_types_supported"] == ["pairwise"]
        keys = json.loads((await city.anyone().GetJwks(pb.GetJwksRequest())).json)["keys"]
        assert all("d" not in key and key["use"] == "sig" for key in keys)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_id": "stranger"}, "unknown-client"),
        ({"redirect_uri": "https://elsewhere.example/callback"}, "bad-redirect"),
        ({"redirect_uri": "http://127.0.0.1:5123/callback/"}, "bad-redirect"),
        ({"code_challenge_method": "plain"}, "bad-challenge"),
        ({"code_challenge": ""}, "bad-challenge"),
        ({"nonce": "n" * 501}, "bad-nonce"),
        ({"password": "wrong"}, "wrong-login"),
        ({"login": "nobody"}, "wrong-login"),
    ],
)
async def test_a_wrong_request_gives_no_code(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        assert (await refusal(city.service().Authorize(city.login("ada", **changes)))).reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "dashboard"},
        {"redirect_uri": "http://127.0.0.1:5124/callback"},
        {"code_verifier": "another-verifier-of-forty-three-characters-or-more"},
        {"code_verifier": "short"},
        {"code": "0" * 64},
    ],
)
async def test_a_code_is_bound_to_what_it_was_asked_for_and_is_lost_by_a_wrong_try(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        code = await city.code("ada")
        error = await refusal(city.service().ExchangeCode(city.code_request(code, **changes)))
        assert (type(error), error.reason) == (InvalidArgument, "invalid-grant")
        if "code" not in changes:
            assert (await refusal(city.service().ExchangeCode(city.code_request(code)))).reason == "invalid-grant"


async def test_a_code_that_is_used_twice_ends_its_token(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        code = await city.code("ada")
        token = (await city.service().ExchangeCode(city.code_request(code))).access_token
        await city.exchange(token, "metering")
        assert (await refusal(city.service().ExchangeCode(city.code_request(code)))).reason == "invalid-grant"
        error = await refusal(city.exchange(token, "metering"))
        assert (type(error), error.reason) == (Unauthenticated, "token-revoked")


async def test_a_code_lives_for_a_minute_and_is_kept_as_a_hash(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        code = await city.code("ada")
        store = city.city.process.stores["identity"]
        [row] = await store.read(lambda c: c.execute(tables.CODES.select()).all())
        assert 50 <= row.expires_at - time.time() <= 60
        assert code.encode() not in bytes(row.hash)
        assert row.challenge == challenge()
        await store.write(lambda unit: unit.execute(tables.CODES.update().values(expires_at=int(time.time()) - 1)))
        assert (await refusal(city.service().ExchangeCode(city.code_request(code)))).reason == "invalid-grant"
        await store.write(lambda unit: unit.execute(tables.CODES.update().values(expires_at=0)))
        await city.code("ada")
        assert len(await store.read(lambda c: c.execute(tables.CODES.select()).all())) == 1


async def test_a_person_erased_between_code_and_token_gets_none(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        made = await city.create("ada")
        code = await city.code("ada")
        store = city.city.process.stores["identity"]
        await store.write(lambda unit: unit.execute(tables.PEOPLE.delete().where(tables.PEOPLE.c.id == made.id)))
        assert (await refusal(city.service().ExchangeCode(city.code_request(code)))).reason == "invalid-grant"


async def test_failed_logins_are_limited_by_login_and_by_address(tmp_path: Path) -> None:
    async with identity_city(tmp_path, settings(login_tries=2), services=ONLY) as city:
        for login in ("ada", "bob", "cleo"):
            await city.create(login)
        wrong = "a wrong password"
        for number in range(2):
            request = city.login("ada", password=wrong, throttle_key=f"address-{number}")
            assert isinstance(await refusal(city.service().Authorize(request)), Unauthenticated)
        error = await refusal(city.service().Authorize(city.login("ada", throttle_key="address-9")))
        assert isinstance(error, ResourceExhausted)
        assert error.retry_after_s is not None
        assert 3_500 < error.retry_after_s <= 3_600
        for login in ("bob", "cleo"):
            request = city.login(login, password=wrong, throttle_key="address-5")
            assert isinstance(await refusal(city.service().Authorize(request)), Unauthenticated)
        for _ in range(3):
            assert await city.code("bob", throttle_key="address-6")
        assert isinstance(await refusal(city.code("bob", throttle_key="address-5")), ResourceExhausted)


async def test_an_exchanged_token_is_of_the_callee_and_never_lives_longer(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("olga", "operator")
        first = await city.token("olga")
        claims = {**claims_of(first), "exp": int(time.time()) + 100}
        answer = await city.service().ExchangeToken(
            pb.ExchangeTokenRequest(subject_token=city.forge(claims), audience="metering")
        )
        second = claims_of(answer.access_token)
        assert (second["aud"], second["roles"], second["client_id"]) == ("metering", ["operator"], APP)
        assert 98 <= answer.expires_in_s <= 100
        assert abs(second["exp"] - claims["exp"]) <= 1
        assert second["jti"] != claims["jti"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "metering"}, "token-audience"),
        ({"aud": ["metering", "notary"]}, "token-audience"),
        ({"exp": 1}, "token-expired"),
        ({"exp": "never"}, "token-expired"),
        ({"nbf": 2**40}, "token-not-yet-valid"),
        ({"iss": ISSUER}, "token-issuer"),
        ({"iss": "services"}, "token-issuer"),
        ({"sub": 7}, "token-malformed"),
        ({"sub": "somebody"}, "unknown-person"),
    ],
)
async def test_a_token_that_does_not_stand_is_not_exchanged(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        claims = {**claims_of(await city.token("ada")), **changes}
        error = await refusal(city.exchange(city.forge(claims), "metering"))
        assert (type(error), error.reason) == (Unauthenticated, reason)


async def test_what_is_no_access_token_of_ours_is_not_exchanged(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        claims = claims_of(await city.token("ada"))
        other = signing_key(bytes(32))
        own_kid = next(iter(keys_of((await city.anyone().GetJwks(pb.GetJwksRequest())).json)))
        posing = jwt.encode(
            {"alg": "Ed25519", "typ": TOKEN_TYPE, "kid": own_kid}, claims, other, algorithms=["Ed25519"]
        )
        forged_algorithm = jwt.encode(
            {"alg": "RS256", "typ": TOKEN_TYPE, "kid": own_kid}, claims, RSAKey.generate_key(2048)
        )
        cases = {
            city.forge(claims, kind="JWT"): "token-type",
            mint(other, claims): "token-key",
            posing: "token-signature",
            forged_algorithm: "token-algorithm",
            "nonsense": "token-malformed",
            "x" * 9_000: "token-malformed",
        }
        for token, reason in cases.items():
            assert (await refusal(city.exchange(token, "metering"))).reason == reason
        assert (await refusal(city.exchange(city.forge(claims), "No Such!"))).field == "audience"


# --- an outside issuer -----------------------------------------------------------------------------


def outside_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "aud": ["gateway"], "sub": "ada", "iat": now, "exp": now + 300, **changes}


def jwks_file(tmp_path: Path, *keys: Any) -> str:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}), encoding="utf-8")
    return str(path)


async def exchanged(city: IdentityCity, token: str) -> dict[str, Any]:
    return claims_of(await city.exchange(token, "metering"))


async def test_an_outside_issuer_says_who_and_the_city_says_what_they_may(tmp_path: Path) -> None:
    rsa, curve = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    for key in (rsa, curve):
        key.ensure_kid()
    chosen = settings(issuer=ISSUER, issuer_jwks_file=jwks_file(tmp_path, OUTSIDE, rsa, curve))
    async with identity_city(tmp_path / "state", chosen, services=ONLY) as city:
        await city.create("ada", password="")
        claims = outside_claims(roles=["operator"])
        tokens = [mint(OUTSIDE, claims, kind="JWT")]
        for key, algorithm in ((rsa, "RS256"), (curve, "ES256")):
            tokens.append(jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key))
        for token in tokens:
            found = await exchanged(city, token)
            assert (found["iss"], found["roles"]) == ("https://provable.city/demo", ["resident"])
        named = mint(OUTSIDE, outside_claims(sub="4711", preferred_username="ada"), kind="JWT")
        assert (await exchanged(city, named))["sub"] == found["sub"]
        me = city.bearer(await city.exchange(named, "identity"))
        assert (await me.GetPerson(pb.GetPersonRequest())).person.login == "ada"


async def test_an_outside_token_must_fit_its_key_and_its_person(tmp_path: Path) -> None:
    chosen = settings(issuer=ISSUER, issuer_jwks_file=jwks_file(tmp_path, OUTSIDE))
    async with identity_city(tmp_path / "state", chosen, services=ONLY) as city:
        await city.create("ada", password="")
        stranger = mint(OUTSIDE, outside_claims(sub="bob"), kind="JWT")
        error = await refusal(city.exchange(stranger, "metering"))
        assert (type(error), error.reason) == (PermissionDenied, "unknown-person")
        rsa = RSAKey.import_key({**RSAKey.generate_key(2048).as_dict(private=True), "kid": str(OUTSIDE.kid)})
        swapped = jwt.encode({"alg": "RS256", "kid": OUTSIDE.kid}, outside_claims(), rsa)
        assert (await refusal(city.exchange(swapped, "metering"))).reason == "token-algorithm"
        unknown = mint(signing_key(bytes(32)), outside_claims(), kind="JWT")
        assert (await refusal(city.exchange(unknown, "metering"))).reason == "token-key"
        late = mint(OUTSIDE, outside_claims(exp=int(time.time()) - 61), kind="JWT")
        assert (await refusal(city.exchange(late, "metering"))).reason == "token-expired"
        for call in (
            city.service().Authorize(city.login("ada")),
            city.anyone().GetProviderMetadata(pb.GetProviderMetadataRequest()),
        ):
            error = await refusal(call)
            assert (type(error), error.reason) == (NotFound, "outside-issuer")
            assert ISSUER in error.message


async def test_newcomers_become_residents_where_the_setting_says_so(tmp_path: Path) -> None:
    chosen = settings(issuer=ISSUER, issuer_jwks_file=jwks_file(tmp_path, OUTSIDE), issuer_makes_residents=1)
    async with identity_city(tmp_path / "state", chosen, services=ONLY) as city:
        token = mint(OUTSIDE, outside_claims(sub="newcomer", roles=["registrar"]), kind="JWT")
        first = await exchanged(city, token)
        assert first["roles"] == ["resident"]
        assert (await exchanged(city, token))["sub"] == first["sub"]
        unfit = mint(OUTSIDE, outside_claims(sub="Not A Login"), kind="JWT")
        assert (await refusal(city.exchange(unfit, "metering"))).reason == "bad-login"


async def test_keys_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    chosen = settings(issuer=ISSUER, issuer_jwks_file=str(tmp_path / "missing.json"))
    async with identity_city(tmp_path / "state", chosen, services=ONLY) as city:
        error = await refusal(city.exchange(mint(OUTSIDE, outside_claims(), kind="JWT"), "metering"))
        assert (type(error), error.reason) == (Unavailable, "issuer-unavailable")
        assert "CITY_IDENTITY_ISSUER_JWKS_FILE" in error.message
