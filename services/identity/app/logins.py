"""Logins: OpenID Connect with authorization code and PKCE, and the exchange of tokens between audiences."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from city.identity.v1 import identity_service_pb2 as pb
from citykit import telemetry
from citykit.errors import InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from citykit.service import Context
from citykit.store.port import Store
from services.identity import store as tables
from services.identity.app.people import GATEWAY, SALT_BYTES, People, password_fits
from services.identity.app.shown import Shown
from services.identity.app.throttle import Throttle
from services.identity.app.tokens import Bearer, Issuer
from services.identity.domain.errors import IdentityError
from services.identity.domain.oidc import CODE_S, challenge_fits, clients_of, require_authorization
from services.identity.domain.people import PASSWORD_MAX, Cost, require_audience, require_login

_NOBODY = SimpleNamespace(password_salt=bytes(SALT_BYTES), password_hash=b"", password_cost=str(Cost()))
"""Hashed against where there is no such login, so that an answer takes as long."""


class Logins:
    """The use cases."""

    def __init__(self, ctx: Context, store: Store, people: People, now: Callable[[], float] = time.time) -> None:
        self._ctx = ctx
        self._store = store
        self._people = people
        self._now = now
        self._settings = ctx.settings.identity
        self._issuer = Issuer(ctx.settings, ctx.key("token-signing"), ctx.randomness, now)
        self._shown = Shown(self._settings, self._issuer.name, self._issuer.jwks(), now)
        self._clients = clients_of(ctx.settings.general.public_url)
        self._throttle_key = ctx.key("throttle")
        self._throttle = Throttle(self._settings.login_tries, now)

    def metadata(self) -> str:
        """The discovery document.

        Raises:
            NotFound: an outside issuer does the logins.
        """
        self._require_own_logins()
        return self._issuer.metadata()

    def jwks(self) -> str:
        """The keys of the city's own tokens, JSON; with an outside issuer these are the exchanged ones."""
        return json.dumps(self._issuer.jwks())

    async def authorize(self, request: pb.AuthorizeRequest) -> str:
        """A code for a right login, bound to client, redirect and challenge.

        Raises:
            IdentityError: a wrong client, redirect or challenge. Unauthenticated: a wrong login. ResourceExhausted: too many.
        """
        self._require_own_logins()
        require_authorization(
            self._clients, request.client_id, request.redirect_uri, request.code_challenge,
            request.code_challenge_method, request.nonce,
        )  # fmt: skip
        keys = (self._hidden(f"login {request.login}"), self._hidden(f"address {request.throttle_key}"))
        self._throttle.begin(*keys)
        person = await self._store.read(lambda c: tables.person_by_login(c, request.login))
        fits = await password_fits(person or _NOBODY, request.password[:PASSWORD_MAX])
        telemetry.IDENTITY_LOGINS.labels("done" if fits else "refused").inc()
        if person is None or not fits:
            raise Unauthenticated("login or password is wrong", reason="wrong-login")
        self._throttle.succeeded(*keys)
        return await self._code(person.id, request)

    async def _code(self, person: str, request: pb.AuthorizeRequest) -> str:
        code, now = self._ctx.randomness(32).hex(), int(self._now())
        row = {
            "hash": sha256(code.encode()).digest(), "person": person, "client": request.client_id,
            "redirect": request.redirect_uri, "challenge": request.code_challenge, "nonce": request.nonce,
            "scope": "openid", "expires_at": now + CODE_S, "used": 0, "token": self._issuer.new_token_id(),
        }  # fmt: skip
        oldest = now - self._issuer.life_s - CODE_S
        await self._store.write(lambda unit: tables.save_code(unit, row, oldest))
        return code

    async def exchange_code(self, request: pb.ExchangeCodeRequest) -> pb.ExchangeCodeResponse:
        """Tokens for a code, once. A code that is shown again ends the token it gave before (RFC 6749, 4.1.2).

        Raises:
            InvalidArgument: reason invalid-grant; one message for every cause.
        """
        digest = sha256(request.code.encode()).digest()
        row = await self._store.write(lambda unit: tables.take_code(unit, digest))
        person = None
        if row is not None and self._code_fits(row, request):
            person = await self._store.read(lambda c: tables.person_by_id(c, row.person))
        if row is None or person is None:
            raise InvalidArgument(
                "the code is unknown, used, expired, or for another client, address or verifier; log in again",
                reason="invalid-grant",
            )
        subject = await self._people.subject(person.id, GATEWAY)
        bearer = Bearer(subject, GATEWAY, tuple(person.roles.split(",")), request.client_id)
        life_s = self._issuer.life_s
        return pb.ExchangeCodeResponse(
            access_token=self._issuer.access_token(bearer, token=row.token, life_s=life_s),
            id_token=self._issuer.id_token(subject, request.client_id, row.nonce),
            expires_in_s=life_s,
            scope=row.scope,
        )

    def _code_fits(self, row: Any, request: pb.ExchangeCodeRequest) -> bool:
        same = (row.client, row.redirect) == (request.client_id, request.redirect_uri)
        fresh = not row.used and row.expires_at > self._now()
        return same and fresh and challenge_fits(request.code_verifier, row.challenge)

    async def exchange_token(self, request: pb.ExchangeTokenRequest) -> pb.ExchangeTokenResponse:
        """A token for another audience with that audience's subject (RFC 8693); it never outlives the one shown.

        Raises:
            Unauthenticated: the token, its code or its person does not stand any more.
        """
        require_audience(request.audience)
        claims = await self._shown.claims(request.subject_token)
        if self._shown.is_outside(claims):
            person = await self._outsider(claims)
        else:
            person = await self._insider(claims)
        life_s = max(1, min(claims["exp"] - int(self._now()), self._issuer.life_s))
        subject = await self._people.subject(person.id, request.audience)
        bearer = Bearer(subject, request.audience, tuple(person.roles.split(",")), str(claims.get("client_id", "")))
        token = self._issuer.access_token(bearer, token=self._issuer.new_token_id(), life_s=life_s)
        return pb.ExchangeTokenResponse(access_token=token, expires_in_s=life_s)

    async def _insider(self, claims: dict[str, Any]) -> Any:
        if await self._store.read(lambda c: tables.token_revoked(c, str(claims.get("jti")))):
            raise Unauthenticated("the code of this token was used twice; log in again", reason="token-revoked")
        try:
            return await self._people.of_subject(claims["sub"], GATEWAY)
        except NotFound:
            raise _unknown_person() from None

    async def _outsider(self, claims: dict[str, Any]) -> Any:
        """The outside issuer says who logs in; what they may do stands here."""
        login = str(claims.get("preferred_username") or claims["sub"])
        person = await self._store.read(lambda c: tables.person_by_login(c, login))
        if person is None and self._settings.issuer_makes_residents:
            await self._add_resident(login)
            person = await self._store.read(lambda c: tables.person_by_login(c, login))
        if person is None:
            raise PermissionDenied(
                "this login is not registered with the city; ask its registrar", reason="unknown-person"
            )
        return person

    async def _add_resident(self, login: str) -> None:
        try:
            require_login(login)
        except IdentityError as error:
            raise Unauthenticated(f"the issuer's name for you cannot be a login: {error}", reason="bad-login") from None
        row = await self._people.new_row(login, login, frozenset({"resident"}), "")
        await self._store.write(lambda unit: self._people.add(unit, row))

    def _require_own_logins(self) -> None:
        if self._settings.issuer:
            raise NotFound(f"this city's logins are at {self._settings.issuer}; log in there", reason="outside-issuer")

    def _hidden(self, text: str) -> str:
        return hmac.new(self._throttle_key, text.encode(), "sha256").hexdigest()


def _unknown_person() -> Unauthenticated:
    return Unauthenticated("the person of this token is not known any more; log in again", reason="unknown-person")
