"""Access tokens: what is taken, and what is refused with which reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey, RSAKey

from city.access.v1 import access_pb2
from citykit import access
from citykit.access import KeySource, ServiceTokens, TokenVerifier, keys_of, mint, rules_of, signing_key, unverified
from citykit.errors import SettingsError, Unauthenticated, Unavailable
from citykit.settings import CitySettings

NOW = 1_700_000_000
KEY = signing_key(bytes(range(32)))
OTHER_KEY = signing_key(bytes(range(1, 33)))
SEED = bytes(range(32, 64))
CLAIMS: dict[str, Any] = {
    "iss": f"https://{CitySettings().general.city}", "sub": "s-1", "aud": "metering", "roles": ["resident"],
    "iat": NOW, "exp": NOW + 900,
}  # fmt: skip


class Keys(KeySource):
    """The city's keys without a city; counts what is asked."""

    def __init__(self, now: Callable[[], float] = lambda: NOW) -> None:
        super().__init__(self._nowhere, now)
        self.reads = 0
        self.away = False

    def _nowhere(self, _: str) -> grpc.aio.Channel:
        raise AssertionError("no test dials")

    async def _read(self) -> str:
        self.reads += 1
        if self.away:
            raise Unavailable("away")
        return json.dumps({"keys": [KEY.as_dict(private=False)]})


def verifier(keys: KeySource | None = None, now: Callable[[], float] = lambda: NOW) -> TokenVerifier:
    return TokenVerifier(CitySettings(), keys or Keys(), ServiceTokens(SEED, "any").public_key, now)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(**changes: Any) -> str:
    """A well-signed token, but for its header."""
    header = {"alg": "Ed25519", "typ": "at+jwt", "kid": KEY.kid, **changes}
    return f"{part(header)}.{mint(KEY, CLAIMS).split('.', 1)[1]}"


async def refused(token: str, audience: str = "metering") -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await verifier().principal(token, audience)
    return caught.value


async def test_a_good_token_says_who_calls() -> None:
    who = await verifier().principal(mint(KEY, CLAIMS), "metering")
    assert (who.subject, who.roles, who.audience, who.issuer) == (
        "s-1", frozenset({"resident"}), "metering", CLAIMS["iss"],
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_the_older_name_of_the_algorithm_is_read() -> None:
    token = jwt.encode({"alg": "EdDSA", "typ": "application/at+jwt", "kid": KEY.kid}, CLAIMS, KEY, algorithms=["EdDSA"])
    assert (await verifier().principal(token, "metering")).subject == "s-1"


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"exp": NOW - 61}, "token-expired", "ask for a new one"),
        ({"exp": NOW - 60}, "token-expired", "expired"),
        ({"exp": "soon"}, "token-expired", "expired"),
        ({"exp": None}, "token-expired", "expired"),
        ({"nbf": NOW + 61}, "token-not-yet-valid", "clock"),
        ({"nbf": "later"}, "token-expired", "expired"),
        ({"iss": "https://elsewhere.example"}, "token-issuer", "log in here"),
        ({"aud": "gateway"}, "token-audience", "exchange it first"),
        ({"aud": ["gateway", "notary"]}, "token-audience", "exchange it first"),
        ({"aud": None}, "token-audience", "not metering"),
        ({"roles": "operator"}, "token-malformed", "roles"),
        ({"sub": 7}, "token-malformed", "subject"),
        ({"roles": ["service"]}, "token-issuer", "only the city's own services"),
    ],
)
async def test_wrong_claims_are_refused(changes: dict[str, Any], reason: str, says: str) -> None:
    error = await refused(mint(KEY, {**CLAIMS, **changes}))
    assert error.reason == reason
    assert says in error.message


@pytest.mark.parametrize("changes", [{"exp": NOW - 59}, {"nbf": NOW + 60}, {"aud": ["gateway", "metering"]}])
async def test_clocks_may_differ_by_a_minute_and_audiences_may_be_many(changes: dict[str, Any]) -> None:
    assert await verifier().principal(mint(KEY, {**CLAIMS, **changes}), "metering")


async def test_a_swapped_algorithm_is_refused() -> None:
    public = KEY.as_dict(private=False)["x"]
    shared = OctKey.import_key(base64.urlsafe_b64decode(str(public) + "="))
    forged = [
        f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(CLAIMS)}.",
        jwt.encode({"alg": "HS256", "typ": "at+jwt", "kid": KEY.kid}, CLAIMS, shared),
        jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": KEY.kid}, CLAIMS, RSAKey.generate_key(2048)),
        with_header(alg=None),
    ]
    for token in forged:
        error = await refused(token)
        assert error.reason == "token-algorithm"
        assert "Ed25519" in error.message


async def test_an_id_token_is_no_access_token() -> None:
    assert (await refused(mint(KEY, CLAIMS, kind="JWT"))).reason == "token-type"
    assert (await refused(with_header(typ=None))).reason == "token-type"


async def test_another_key_is_refused() -> None:
    assert (await refused(mint(OTHER_KEY, CLAIMS))).reason == "token-key"
    stolen_name = jwt.encode(
        {"alg": "Ed25519", "typ": "at+jwt", "kid": KEY.kid}, CLAIMS, OTHER_KEY, algorithms=["Ed25519"]
    )
    assert (await refused(stolen_name)).reason == "token-signature"


async def test_a_changed_claim_breaks_the_signature() -> None:
    header, _, signature = mint(KEY, CLAIMS).split(".")
    error = await refused(f"{header}.{part({**CLAIMS, 'roles': ['operator']})}.{signature}")
    assert error.reason == "token-signature"


@pytest.mark.parametrize("token", ["x", "a.b.c", "a.b", "....", f"{part([1])}.{part({})}.x", "é.é.é", "a" * 8_193])
async def test_what_is_no_token_is_refused(token: str) -> None:
    assert (await refused(token)).reason == "token-malformed"


async def test_services_speak_with_the_internal_key_only() -> None:
    mine = ServiceTokens(SEED, "gateway", lambda: NOW)
    who = await verifier().principal(mine.token("metering"), "metering")
    assert (who.subject, who.roles, who.issuer) == ("service:gateway", frozenset({"service"}), "services")
    assert (await refused(mine.token("notary"))).reason == "token-audience"
    posing = {**CLAIMS, "iss": "services", "roles": ["service"]}
    assert (await refused(mint(KEY, posing))).reason == "token-signature"


def test_a_service_token_is_kept_for_half_its_life() -> None:
    now = [NOW]
    tokens = ServiceTokens(SEED, "gateway", lambda: now[0])
    first = tokens.token("metering")
    now[0] += 150
    assert tokens.token("metering") == first
    assert tokens.token("notary") != first
    now[0] += 1
    assert tokens.token("metering") != first


async def test_a_known_token_is_not_verified_again_until_it_expires() -> None:
    now = [NOW]
    keys = Keys(lambda: now[0])
    checked = verifier(keys, lambda: now[0])
    token = mint(KEY, CLAIMS)
    await checked.principal(token, "metering")
    now[0] += 901
    await checked.principal(token, "metering")
    assert keys.reads == 1
    with pytest.raises(Unauthenticated, match="another audience"):
        await checked.principal(token, "notary")
    now[0] += 60
    with pytest.raises(Unauthenticated, match="expired"):
        await checked.principal(token, "metering")


async def test_the_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_CACHE_MAX", 3)
    checked = verifier()
    for number in range(5):
        await checked.principal(mint(KEY, {**CLAIMS, "jti": str(number)}), "metering")
    assert len(checked._known) == 3


async def test_keys_are_read_again_when_old_or_unknown() -> None:
    now = [float(NOW)]
    keys = Keys(lambda: now[0])
    assert await keys.key(str(KEY.kid)) is not None
    assert await keys.key("unknown") is None
    assert keys.reads == 1
    now[0] += 1.5
    assert await keys.key("unknown") is None
    assert keys.reads == 2
    now[0] += 301
    keys.away = True
    with pytest.raises(Unavailable):
        await keys.key(str(KEY.kid))


async def test_an_issuer_that_is_away_says_when_to_try_again() -> None:
    def dial(_: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel("unix:/nowhere/at/all.sock")

    with pytest.raises(Unavailable) as caught:
        await KeySource(dial).key("any")
    assert (caught.value.reason, caught.value.retry_after_s) == ("issuer-unavailable", 1.0)


def test_only_ed25519_keys_are_read_from_a_set() -> None:
    rsa = {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"}
    nameless = {key: value for key, value in KEY.as_dict(private=False).items() if key != "kid"}
    assert list(keys_of(json.dumps({"keys": [rsa, nameless, KEY.as_dict(private=False)]}))) == [KEY.kid]


def test_a_key_names_itself_by_its_thumbprint() -> None:
    """RFC 8037, appendix A.3: the thumbprint of the key of RFC 8032's first test."""
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    assert signing_key(seed).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert isinstance(signing_key(seed), OKPKey)


def test_nobody_calls_outside_of_a_call() -> None:
    assert access.caller_or_none() is None
    with pytest.raises(Unauthenticated, match="log in"):
        access.caller()


def test_header_and_claims_can_be_read_before_they_are_trusted() -> None:
    header, claims = unverified(mint(KEY, CLAIMS))
    assert (header["kid"], claims) == (KEY.kid, CLAIMS)


def test_an_rpc_without_a_rule_stops_the_start() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="city/careless/v1/careless.proto", package="city.careless.v1")
    file.message_type.add(name="Empty")
    service = file.service.add(name="CarelessService")
    service.method.add(name="Open", input_type=".city.careless.v1.Empty", output_type=".city.careless.v1.Empty")
    descriptor_pool.Default().Add(file)  # type: ignore[no-untyped-call]
    with pytest.raises(SettingsError, match=r"CarelessService\.Open must declare either roles or public"):
        rules_of(["city.careless.v1.CarelessService"])


def test_grpcs_own_services_need_no_rule() -> None:
    assert rules_of(["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]) == {}


def test_roles_are_named_as_in_the_proto() -> None:
    assert access.role_name(access_pb2.ROLE_BILLING) == "billing"
