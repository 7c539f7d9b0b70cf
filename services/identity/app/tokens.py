"""The city's own tokens: access tokens (RFC 9068), ID tokens, keys and discovery document. Used by logins and by `city token`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from citykit.access import ALGORITHM, mint, signing_key
from citykit.ids import Randomness, new_id
from citykit.settings import CitySettings

ID_TOKEN = "JWT"  # noqa: S105 - the type's name in OpenID Connect


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a token is for.

    Attributes:
        subject: pairwise for the audience.
        client: the application that asked.
    """

    subject: str
    audience: str
    roles: tuple[str, ...]
    client: str


class Issuer:
    """Signs tokens. Their times are the machine's: the bearer's machine has no other clock.

    Args:
        seed: Ed25519, 32 bytes.
    """

    def __init__(
        self, settings: CitySettings, seed: bytes, randomness: Randomness, now: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._key = signing_key(seed)
        self._randomness = randomness
        self._now = now
        self.name = f"https://{settings.general.city}"
        self.life_s = settings.identity.token_minutes * 60

    def access_token(self, bearer: Bearer, *, token: str, life_s: int) -> str:
        """An access token. `token`: its id (jti)."""
        now = int(self._now())
        claims = {
            "iss": self.name, "sub": bearer.subject, "aud": bearer.audience, "roles": list(bearer.roles),
            "client_id": bearer.client, "scope": "openid", "jti": token, "iat": now, "exp": now + life_s,
        }  # fmt: skip
        return mint(self._key, claims)

    def id_token(self, subject: str, client: str, nonce: str) -> str:
        """An ID token (OpenID Connect Core 2)."""
        now = int(self._now())
        claims = {
            "iss": self.name,
            "sub": subject,
            "aud": client,
            "iat": now,
            "exp": now + self.life_s,
            "auth_time": now,
        }
        return mint(self._key, {**claims, **({"nonce": nonce} if nonce else {})}, kind=ID_TOKEN)

    def new_token_id(self) -> str:
        return new_id("token", self._randomness)

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "use": "sig", "alg": ALGORITHM, "kid": self._key.kid}]}

    def metadata(self) -> str:
        """OpenID Connect Discovery 1.0, section 3; JSON."""
        base = self._settings.general.public_url.rstrip("/") or self.name
        return json.dumps({
            "issuer": self.name,
            "authorization_endpoint": f"{base}/oidc/authorize",
            "token_endpoint": f"{base}/oidc/token",
            "jwks_uri": f"{base}/oidc/jwks",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "token_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid"],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce"],
            "authorization_response_iss_parameter_supported": True,
        })  # fmt: skip
