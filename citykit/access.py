"""Who may call: access tokens (RFC 9068, Ed25519 only), and the one interceptor that enforces the rule each RPC declares in its proto."""

from __future__ import annotations

import base64
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from nacl.signing import SigningKey

from city.access.v1 import access_pb2
from citykit.edge import service_of
from citykit.errors import PermissionDenied, SettingsError, Unauthenticated, Unavailable
from citykit.settings import CitySettings
from citykit.telemetry import traceparent

ALGORITHM = "Ed25519"
"""RFC 9864; tokens that say `EdDSA` for the same curve are read too."""
ACCEPTED = ("Ed25519", "EdDSA")
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068's name of the type
SERVICES_ISSUER = "services"
SERVICE_TOKEN_S = 300
_LEEWAY_S = 60
_KEYS_FRESH_S = 300.0
_CACHE_MAX = 4_096
_TOKEN_MAX = 8_192
_OPEN = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"}
)
"""gRPC's own services, which carry no option of ours."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls.

    Attributes:
        subject: pairwise per audience for people; `service:<name>` for services.
    """

    subject: str
    roles: frozenset[str]
    audience: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What an RPC declares."""

    roles: frozenset[str]
    public: bool


_CALLER: ContextVar[Principal | None] = ContextVar("caller", default=None)


def caller() -> Principal:
    """Who makes the present call.

    Raises:
        Unauthenticated: nobody known (a public RPC called without a token).
    """
    found = _CALLER.get()
    if found is None:
        raise Unauthenticated("this needs an access token; log in and send it as a bearer token")
    return found


def caller_or_none() -> Principal | None:
    """Who makes the present call, if a token said so."""
    return _CALLER.get()


def role_name(role: int) -> str:
    """`ROLE_STAFF` -> `staff`."""
    return access_pb2.Role.Name(role).removeprefix("ROLE_").lower()  # type: ignore[arg-type]  # enum values are ints


def rules_of(services: Sequence[str]) -> dict[str, Rule]:
    """The rule of each RPC ("/package.Service/Method") of the named services, from their descriptors.

    Raises:
        SettingsError: an RPC without a rule, or with both roles and public.
    """
    rules: dict[str, Rule] = {}
    for service in services:
        if service in _OPEN:
            continue
        descriptor = descriptor_pool.Default().FindServiceByName(service)  # type: ignore[no-untyped-call]
        for method in descriptor.methods:
            option = method.GetOptions().Extensions[access_pb2.access]
            if bool(option.roles) == option.public:
                raise SettingsError(
                    f"{service}.{method.name} must declare either roles or public in city.access.v1.access"
                )
            roles = frozenset(role_name(role) for role in option.roles)
            rules[f"/{service}/{method.name}"] = Rule(roles, option.public)
    return rules


def signing_key(seed: bytes) -> OKPKey:
    """The Ed25519 JWK (RFC 8037) of a 32-byte seed; its kid is the RFC 7638 thumbprint."""

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    public = bytes(SigningKey(seed).verify_key)
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": text(public), "d": text(seed)})
    key.ensure_kid()
    return key


def mint(key: OKPKey, claims: Mapping[str, Any], *, kind: str = TOKEN_TYPE) -> str:
    """A signed token."""
    return jwt.encode({"alg": ALGORITHM, "typ": kind, "kid": key.kid}, dict(claims), key, algorithms=list(ACCEPTED))


class ServiceTokens:
    """The tokens a service shows another: short-lived, signed with the city's internal key.

    Args:
        seed: 32 bytes, the same for all services of one city.
    """

    def __init__(self, seed: bytes, name: str, now: Callable[[], float] = time.time) -> None:
        self._key = signing_key(seed)
        self._name = name
        self._now = now
        self._made: dict[str, tuple[str, float]] = {}

    @property
    def public_key(self) -> OKPKey:
        return OKPKey.import_key(self._key.as_dict(private=False))

    def token(self, audience: str) -> str:
        """A token for one callee; kept until it has half its life left."""
        token, expires = self._made.get(audience, ("", 0.0))
        if expires - self._now() < SERVICE_TOKEN_S / 2:
            expires = int(self._now()) + SERVICE_TOKEN_S
            claims = {
                "iss": SERVICES_ISSUER,
                "sub": f"service:{self._name}",
                "aud": audience,
                "roles": ["service"],
                "exp": expires,
                "iat": int(self._now()),
            }
            token = mint(self._key, claims)
            self._made[audience] = (token, expires)
        return token


class KeySource:
    """The public keys of the city's tokens: identity's JWKS, kept for five minutes. (Tokens of an outside issuer are exchanged at identity.)

    Args:
        dial: reaches a service by name.
    """

    def __init__(self, dial: Callable[[str], grpc.aio.Channel], now: Callable[[], float] = time.time) -> None:
        self._dial = dial
        self._now = now
        self._keys: dict[str, OKPKey] = {}
        self._read_at = float("-inf")

    async def key(self, kid: str) -> OKPKey | None:
        """The key with this id, or None. An unknown id makes it read again, at most once a second."""
        age = self._now() - self._read_at
        if age > _KEYS_FRESH_S or (kid not in self._keys and age > 1.0):
            self._keys = keys_of(await self._read())
            self._read_at = self._now()
        return self._keys.get(kid)

    async def _read(self) -> str:
        from city.identity.v1 import identity_service_pb2 as identity  # noqa: PLC0415 - only where tokens are verified
        from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub  # noqa: PLC0415

        try:
            answer = await IdentityServiceStub(self._dial("identity")).GetJwks(identity.GetJwksRequest(), timeout=5.0)
        except grpc.aio.AioRpcError as error:
            message = "the keys of the token's issuer cannot be had now; try again"
            raise Unavailable(message, reason="issuer-unavailable", retry_after_s=1.0) from error
        return answer.json


def keys_of(jwks: str) -> dict[str, OKPKey]:
    """The Ed25519 keys of a JWK set (RFC 7517) by their ids; others are left out."""
    keys = json.loads(jwks).get("keys", [])
    return {key["kid"]: OKPKey.import_key(key) for key in keys if key.get("kty") == "OKP" and key.get("kid")}


class TokenVerifier:
    """Reads access tokens: Ed25519, type, issuer, audience, time, roles. Good ones are kept until they expire (4,096 at most)."""

    def __init__(
        self, settings: CitySettings, keys: KeySource, services_key: OKPKey, now: Callable[[], float] = time.time
    ) -> None:
        self._issuer = f"https://{settings.general.city}"
        self._keys = keys
        self._services_key = services_key
        self._now = now
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    async def principal(self, token: str, audience: str) -> Principal:
        """Who the token speaks for.

        Raises:
            Unauthenticated: with what is wrong and what to do.
        """
        digest = sha256(f"{audience}\n{token}".encode()).digest()
        known = self._known.get(digest)
        if known is None or known[1] <= self._now():
            claims = await self._claims(token)
            known = (self._check(claims, audience), float(claims["exp"]) + _LEEWAY_S)
            self._known[digest] = known
            if len(self._known) > _CACHE_MAX:
                self._known.popitem(last=False)
        return known[0]

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _TOKEN_MAX:
            raise Unauthenticated(f"a token is at most {_TOKEN_MAX} characters", reason="token-malformed")
        header, claims = unverified(token)
        if header.get("alg") not in ACCEPTED:
            raise Unauthenticated(
                f"tokens are signed with Ed25519, not {header.get('alg')!r}; ask the city's token endpoint for one",
                reason="token-algorithm",
            )
        if str(header.get("typ", "")).removeprefix("application/") != TOKEN_TYPE:
            raise Unauthenticated(
                "this is no access token (typ at+jwt); send the access token, not the ID token", reason="token-type"
            )
        key = (
            self._services_key if claims.get("iss") == SERVICES_ISSUER else await self._keys.key(str(header.get("kid")))
        )
        if key is None:
            raise Unauthenticated("the token's key is not one of its issuer's; log in again", reason="token-key")
        try:
            return dict(jwt.decode(token, key, algorithms=list(ACCEPTED)).claims)
        except (JoseError, ValueError):
            raise Unauthenticated(
                "the token's signature does not hold; log in again", reason="token-signature"
            ) from None

    def _check(self, claims: Mapping[str, Any], audience: str) -> Principal:
        expires, starts = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int) or not isinstance(starts, int) or expires + _LEEWAY_S <= self._now():
            raise Unauthenticated("the token has expired; ask for a new one", reason="token-expired")
        if starts - _LEEWAY_S > self._now():
            raise Unauthenticated("the token is not valid yet; check the clock", reason="token-not-yet-valid")
        if claims.get("iss") not in (self._issuer, SERVICES_ISSUER):
            raise Unauthenticated(f"the token's issuer is not {self._issuer}; log in here", reason="token-issuer")
        audiences = claims.get("aud")
        if audience not in (audiences if isinstance(audiences, list) else [audiences]):
            raise Unauthenticated(
                f"the token is for another audience, not {audience}; exchange it first", reason="token-audience"
            )
        roles, subject = claims.get("roles"), claims.get("sub")
        if not isinstance(roles, list) or not isinstance(subject, str):
            raise Unauthenticated("the token lacks a subject or roles; log in again", reason="token-malformed")
        if "service" in roles and claims["iss"] != SERVICES_ISSUER:
            raise Unauthenticated("only the city's own services have the role service", reason="token-issuer")
        return Principal(subject, frozenset(map(str, roles)), audience, str(claims["iss"]))


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims before the signature is checked, to choose the key.

    Raises:
        Unauthenticated: not three base64url parts of JSON objects.
    """

    def part(text: str) -> dict[str, Any]:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(value, dict):
            raise TypeError
        return value

    try:
        header, claims, _ = token.split(".")
        return part(header), part(claims)
    except (ValueError, TypeError):
        raise Unauthenticated(
            "the bearer token is no JSON web token; send the access token as it was issued", reason="token-malformed"
        ) from None


class AccessCheck:
    """Enforces the rule of each RPC; the audience is the service's name. A `citykit.edge.Check`."""

    def __init__(self, verifier: TokenVerifier, rules: Mapping[str, Rule]) -> None:
        self._verifier = verifier
        self._rules = rules

    async def __call__(self, method: str, metadata: Mapping[str, Any], context: Any) -> None:
        if method.lstrip("/").partition("/")[0] not in _OPEN:
            _CALLER.set(await self._admit(method, metadata))

    async def _admit(self, method: str, metadata: Mapping[str, Any]) -> Principal | None:
        rule = self._rules.get(method, Rule(frozenset(), public=False))
        kind, _, token = str(metadata.get("authorization", "")).partition(" ")
        if not token:
            if rule.public:
                return None
            raise Unauthenticated("this call needs an access token; send `authorization: Bearer <token>`")
        if kind.lower() != "bearer":
            raise Unauthenticated("the authorization must be a bearer token (RFC 6750)", reason="token-malformed")
        principal = await self._verifier.principal(token, service_of(method.lstrip("/").partition("/")[0]))
        if not rule.public and not rule.roles & principal.roles:
            allowed, held = (", ".join(sorted(roles)) or "nobody" for roles in (rule.roles, principal.roles))
            raise PermissionDenied(f"{method.rpartition('/')[2]} is for {allowed}, not for {held}")
        return principal


class _Bearer:
    """Adds the token and the trace to a call's metadata; a token the caller gave wins."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _details(self, details: Any) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if "authorization" not in metadata:
            metadata.add("authorization", f"Bearer {self._token()}")
        if trace := traceparent():
            metadata.add("traceparent", trace)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryUnary(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._details(client_call_details), request)


class _UnaryStream(_Bearer, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._details(client_call_details), request)


class _StreamUnary(_Bearer, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._details(client_call_details), request_iterator)


class _StreamStream(_Bearer, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._details(client_call_details), request_iterator)


_KINDS = (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)


def bearer_client_interceptors(tokens: ServiceTokens, audience: str) -> list[Any]:
    """Interceptors that show this service's token to `audience` unless the call carries one."""
    return [kind(lambda: tokens.token(audience)) for kind in _KINDS]


def bearer_interceptors_of(token: str) -> list[Any]:
    """Interceptors that show one given token."""
    return [kind(lambda: token) for kind in _KINDS]
