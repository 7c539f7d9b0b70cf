"""Logins and tokens: OpenID Connect with authorization code and PKCE, token exchange; or the tokens of an outside issuer."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import ACCEPTED, keys_of, mint, signing_key, unverified
from citykit.errors import InvalidArgument, NotFound, ResourceExhausted, Unauthenticated
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.people import People
from services.identity.domain import CODE_S, challenge_fits, password_hash, require_authorization

GATEWAY = "gateway"
_HOUR_S = 3_600
_THROTTLED_MAX = 10_000
_LEEWAY_S = 60
_KEYS_FRESH_S = 300.0


class Throttle:
    """Failed tries within an hour, by key; the oldest keys are forgotten beyond 10,000."""

    def __init__(self, tries: int, now: Callable[[], float]) -> None:
        self._tries = tries
        self._now = now
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, *keys: str) -> None:
        """Raises ResourceExhausted where a key has failed too often."""
        for key in keys:
            recent = [at for at in self._failed.get(key, []) if at > self._now() - _HOUR_S]
            if len(recent) >= self._tries:
                wait = recent[0] + _HOUR_S - self._now()
                raise ResourceExhausted(
                    "too many failed logins; wait, then try again", reason="throttled", retry_after_s=wait
                )

    def failed(self, *keys: str) -> None:
        for key in keys:
            self._failed[key] = [*self._failed.get(key, [])[-self._tries :], self._now()]
            self._failed.move_to_end(key)
        while len(self._failed) > _THROTTLED_MAX:
            self._failed.popitem(last=False)


class Logins:
    """The use cases. Token times are of the machine's clock, since the bearer's machine has no other."""

    def __init__(self, ctx: Context, store: Store, people: People, now: Callable[[], float] = time.time) -> None:
        self._ctx = ctx
        self._store = store
        self._people = people
        self._now = now
        self._settings = ctx.settings.identity
        self._key = signing_key(ctx.key("token-signing"))
        self._throttle_key = ctx.key("throttle")
        self._throttle = Throttle(self._settings.login_tries, now)
        self._outside: dict[str, Any] = {}
        self._outside_read_at = float("-inf")

    @property
    def issuer(self) -> str:
        return f"https://{self._ctx.settings.general.city}"

    def metadata(self) -> str:
        """OpenID Connect Discovery 1.0, section 3."""
        if self._settings.issuer:
            raise NotFound(
                f"this city's logins are at {self._settings.issuer}; read its configuration there",
                reason="outside-issuer",
            )
        base = self._ctx.settings.general.public_url.rstrip("/") or self.issuer
        return json.dumps({
            "issuer": self.issuer,
            "authorization_endpoint": f"{base}/oidc/authorize",
            "token_endpoint": f"{base}/oidc/token",
            "jwks_uri": f"{base}/oidc/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["Ed25519"],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid"],
            "authorization_response_iss_parameter_supported": True,
        })  # fmt: skip

    def jwks(self) -> str:
        """RFC 7517."""
        public = self._key.as_dict(private=False)
        return json.dumps({"keys": [{**public, "use": "sig", "alg": "Ed25519", "kid": self._key.kid}]})

    async def authorize(self, request: pb.AuthorizeRequest) -> str:
        """A code for a right login, bound to client, redirect and challenge.

        Raises:
            InvalidArgument: a wrong client, redirect or challenge. Unauthenticated: a wrong login. ResourceExhausted: too many.
        """
        if self._settings.issuer:
            raise InvalidArgument(f"this city's logins are at {self._settings.issuer}", reason="outside-issuer")
        require_authorization(
            request.client_id, request.redirect_uri, request.code_challenge, request.code_challenge_method
        )
        keys = [self._hidden(f"login {request.login}"), self._hidden(f"address {request.throttle_key}")]
        self._throttle.check(*keys)
        person = await self._store.read(lambda c: tables.person_by_login(c, request.login))
        salt = person.password_salt if person is not None else bytes(16)
        hashed = await asyncio.to_thread(password_hash, request.password[:1024], salt)
        if person is None or not person.password_hash or not hmac.compare_digest(hashed, person.password_hash):
            self._throttle.failed(*keys)
            raise Unauthenticated("login or password is wrong", reason="wrong-login")
        code = self._ctx.randomness(32).hex()
        row = {
            "hash": sha256(code.encode()).digest(), "person": person.id, "client": request.client_id,
            "redirect": request.redirect_uri, "challenge": request.code_challenge, "nonce": request.nonce[:500],
            "scope": "openid", "expires_at": int(self._now()) + CODE_S, "used": 0,
        }  # fmt: skip
        await self._store.write(lambda unit: tables.save_code(unit, row, int(self._now())))
        return code

    async def exchange_code(self, request: pb.ExchangeCodeRequest) -> pb.ExchangeCodeResponse:
        """Tokens for a code, once.

        Raises:
            InvalidArgument: reason invalid-grant; one message for every cause.
        """
        digest = sha256(request.code.encode()).digest()

        def unit(work: Unit) -> Any:
            row = tables.code(work, digest)
            if row is not None:
                tables.use_code(work, digest)
            return row

        row = await self._store.write(unit)
        good = (
            row is not None
            and not row.used
            and row.expires_at > self._now()
            and (row.client, row.redirect) == (request.client_id, request.redirect_uri)
            and challenge_fits(request.code_verifier, row.challenge)
        )
        if not good:
            raise InvalidArgument(
                "the code is unknown, used, expired, or for another client, address or verifier; log in again",
                reason="invalid-grant",
            )
        person = await self._store.read(lambda c: tables.person_by_id(c, row.person))
        if person is None:
            raise InvalidArgument("the person is not known any more", reason="invalid-grant")
        access = await self._access_token(person, GATEWAY, request.client_id)
        identity_token = await self._id_token(person, request.client_id, row.nonce)
        return pb.ExchangeCodeResponse(
            access_token=access,
            id_token=identity_token,
            expires_in_s=self._settings.token_minutes * 60,
            scope=row.scope,
        )

    async def exchange_token(self, request: pb.ExchangeTokenRequest) -> pb.ExchangeTokenResponse:
        """A token for another audience, with that audience's pairwise subject (RFC 8693); never longer than the one shown."""
        if not request.audience.isascii() or not 1 <= len(request.audience) <= 40:  # noqa: PLR2004 - a service's name
            raise InvalidArgument("the audience is the name of a service", field="audience")
        claims = await self._verified(request.subject_token)
        if claims["iss"] == self.issuer:
            person = await self._person_of_subject(str(claims["sub"]))
        else:
            person = await self._person_of_outsider(claims)
        life = min(int(claims["exp"]) - int(self._now()), self._settings.token_minutes * 60)
        token = await self._access_token(person, request.audience, str(claims.get("client_id", "")), life)
        return pb.ExchangeTokenResponse(access_token=token, expires_in_s=life)

    async def _person_of_subject(self, subject: str) -> Any:
        try:
            return await self._people.of_subject(subject)
        except NotFound:
            raise Unauthenticated(
                "the person of this token is not known any more; log in again", reason="unknown-person"
            ) from None

    async def _person_of_outsider(self, claims: dict[str, Any]) -> Any:
        """The outside issuer says who logs in; what they may do stands here."""
        login = str(claims.get("preferred_username", claims.get("sub", "")))
        person = await self._store.read(lambda c: tables.person_by_login(c, login))
        if person is None:
            raise Unauthenticated(
                "this login is not registered with the city; ask its registrar", reason="unknown-person"
            )
        return person

    async def _verified(self, token: str) -> dict[str, Any]:
        header, loose = unverified(token)
        if header.get("alg") not in ACCEPTED:
            raise Unauthenticated("tokens are signed with Ed25519", reason="token-algorithm")
        outside = bool(self._settings.issuer) and loose.get("iss") == self._settings.issuer
        key = (await self._outside_keys()).get(str(header.get("kid"))) if outside else self._key
        if key is None:
            raise Unauthenticated("the token's key is not one of its issuer's; log in again", reason="token-key")
        try:
            claims = dict(jwt.decode(token, key, algorithms=list(ACCEPTED)).claims)
        except (JoseError, ValueError):
            raise Unauthenticated(
                "the token's signature does not hold; log in again", reason="token-signature"
            ) from None
        audiences = claims.get("aud")
        if GATEWAY not in (audiences if isinstance(audiences, list) else [audiences]):
            raise Unauthenticated("only a token for the gateway can be exchanged", reason="token-audience")
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= self._now():
            raise Unauthenticated("the token has expired; log in again", reason="token-expired")
        if not outside and header.get("typ") != "at+jwt":
            raise Unauthenticated(
                "this is no access token; send the access token, not the ID token", reason="token-type"
            )
        return claims

    async def _outside_keys(self) -> dict[str, Any]:
        if self._now() - self._outside_read_at > _KEYS_FRESH_S:
            text = await asyncio.to_thread(Path(self._settings.issuer_jwks_file).read_text, "utf-8")
            self._outside, self._outside_read_at = keys_of(text), self._now()
        return self._outside

    async def _access_token(self, person: Any, audience: str, client: str, life_s: int | None = None) -> str:
        now = int(self._now())
        claims = {
            "iss": self.issuer, "sub": await self._people.subject(person.id, audience), "aud": audience,
            "roles": person.roles.split(","), "client_id": client, "scope": "openid", "jti": self._ctx.randomness(12).hex(),
            "iat": now, "exp": now + (life_s if life_s is not None else self._settings.token_minutes * 60),
        }  # fmt: skip
        return mint(self._key, claims)

    async def _id_token(self, person: Any, client: str, nonce: str) -> str:
        now = int(self._now())
        claims = {
            "iss": self.issuer, "sub": await self._people.subject(person.id, GATEWAY), "aud": client, "iat": now,
            "exp": now + self._settings.token_minutes * 60, "auth_time": now, **({"nonce": nonce} if nonce else {}),
        }  # fmt: skip
        return mint(self._key, claims, kind="JWT")

    def _hidden(self, text: str) -> str:
        return hmac.new(self._throttle_key, text.encode(), "sha256").hexdigest()
