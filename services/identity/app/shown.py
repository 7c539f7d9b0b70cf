"""Tokens shown for an exchange: the city's own, and those of an outside issuer where a setting names one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from citykit.access import ACCEPTED, TOKEN_TYPE, unverified
from citykit.errors import Unauthenticated, Unavailable
from citykit.settings import IdentitySettings
from services.identity.app.people import GATEWAY

LEEWAY_S = 60
TOKEN_MAX = 8_192
_FRESH_S = 300.0
_ANSWER_MAX = 1_048_576
_TIMEOUT_S = 10.0
_BY_KIND = {"OKP": ("Ed25519", "EdDSA"), "EC": ("ES256",), "RSA": ("RS256", "PS256")}
"""What an outside issuer may sign with, by the kind of its key, so that no key is used for another algorithm."""
Read = Callable[[IdentitySettings], str]


class Shown:
    """Verifies.

    Args:
        name: of the city's own issuer.
        own_keys: its JWK set.
        read: the outside issuer's JWK set, blocking; replaced in tests.
    """

    def __init__(
        self, settings: IdentitySettings, name: str, own_keys: dict[str, Any], now: Callable[[], float] = time.time,
        read: Read | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._own_name = name
        self._own = _by_id(own_keys)
        self._now = now
        self._read = read or read_keys
        self._outside: dict[str, Any] = {}
        self._read_at = float("-inf")

    def is_outside(self, claims: Mapping[str, Any]) -> bool:
        return bool(self._settings.issuer) and claims.get("iss") == self._settings.issuer

    async def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token for the gateway.

        Raises:
            Unauthenticated: with what is wrong. Unavailable: the outside issuer's keys cannot be had.
        """
        if len(token) > TOKEN_MAX:
            raise Unauthenticated(f"a token has at most {TOKEN_MAX} characters", reason="token-malformed")
        header, loose = unverified(token)
        outside = self.is_outside(loose)
        if not outside and loose.get("iss") != self._own_name:
            raise Unauthenticated(f"the token's issuer is not {self._own_name}; log in here", reason="token-issuer")
        if not outside and header.get("typ") != TOKEN_TYPE:
            raise Unauthenticated(
                "this is no access token; send the access token, not the ID token", reason="token-type"
            )
        keys = await self._outside_keys(str(header.get("kid"))) if outside else self._own
        key = keys.get(str(header.get("kid")))
        if key is None:
            raise Unauthenticated("the token's key is not one of its issuer's; log in again", reason="token-key")
        claims = _decoded(token, key, str(header.get("alg")), outside=outside)
        self._check(claims)
        return claims

    def _check(self, claims: Mapping[str, Any]) -> None:
        audiences, expires, starts = claims.get("aud"), claims.get("exp"), claims.get("nbf", 0)
        if GATEWAY not in (audiences if isinstance(audiences, list) else [audiences]):
            raise Unauthenticated("only a token for the gateway can be exchanged", reason="token-audience")
        if not isinstance(expires, int) or expires + LEEWAY_S <= self._now():
            raise Unauthenticated("the token has expired; log in again", reason="token-expired")
        if not isinstance(starts, int) or starts - LEEWAY_S > self._now():
            raise Unauthenticated("the token is not valid yet; check the clock", reason="token-not-yet-valid")
        if not isinstance(claims.get("sub"), str):
            raise Unauthenticated("the token names nobody; log in again", reason="token-malformed")

    async def _outside_keys(self, kid: str) -> dict[str, Any]:
        """Kept for five minutes; an unknown key makes it read again, at most every ten seconds."""
        age = self._now() - self._read_at
        if age > _FRESH_S or (kid not in self._outside and age > _TIMEOUT_S):
            try:
                text = await asyncio.to_thread(self._read, self._settings)
                self._outside = _by_id(json.loads(text))
            except (OSError, ValueError, JoseError) as error:
                raise Unavailable(
                    f"the keys of {self._settings.issuer} cannot be had now ({type(error).__name__}); try again,"
                    " or name a file with CITY_IDENTITY_ISSUER_JWKS_FILE",
                    reason="issuer-unavailable",
                    retry_after_s=_TIMEOUT_S,
                ) from None
            self._read_at = self._now()
        return self._outside


def _decoded(token: str, key: Any, algorithm: str, *, outside: bool) -> dict[str, Any]:
    allowed = _BY_KIND.get(key.key_type, ()) if outside else ACCEPTED
    if algorithm not in allowed:
        raise Unauthenticated(
            f"the token is signed with {algorithm}, its key is for {' or '.join(allowed)}", reason="token-algorithm"
        )
    try:
        return dict(jwt.decode(token, key, algorithms=[algorithm]).claims)
    except (JoseError, ValueError):
        raise Unauthenticated("the token's signature does not hold; log in again", reason="token-signature") from None


def _by_id(jwks: Any) -> dict[str, Any]:
    """Usable keys by their ids; at most 100."""
    if not isinstance(jwks, dict) or not isinstance(jwks.get("keys"), list):
        raise ValueError("no JWK set")
    usable = [key for key in jwks["keys"][:100] if key.get("kid") and key.get("kty") in _BY_KIND]
    return {str(key["kid"]): JWKRegistry.import_key(key) for key in usable}


def read_keys(settings: IdentitySettings) -> str:
    """The outside issuer's JWK set: from the file if one is named, else by its discovery document over https.

    Raises:
        OSError: it cannot be had. ValueError: an address that is not https, or no discovery document.
    """
    if settings.issuer_jwks_file:
        return Path(settings.issuer_jwks_file).read_text(encoding="utf-8")
    found = json.loads(_fetch(f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration"))
    if found.get("issuer") != settings.issuer:
        raise ValueError("the discovery document is of another issuer")
    return _fetch(str(found["jwks_uri"]))


def _fetch(address: str) -> str:
    if not address.startswith("https://"):
        raise ValueError("an outside issuer is reached over https only")
    with urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - https, checked above
        body: bytes = answer.read(_ANSWER_MAX)
    return body.decode()
