"""The authorization code flow: which applications there are, where they may be sent back to, and the PKCE proof."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.identity.domain.errors import IdentityError

CODE_S = 60
"""Life of an authorization code, seconds (RFC 6749, 4.1.2, allows 600)."""
NONCE_MAX = 500
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class Client:
    """An application that may ask for codes. All are public: none has a secret.

    Attributes:
        redirects: exact addresses; one with `:*` stands for any port of a loopback address (RFC 8252, 7.3).
    """

    id: str
    redirects: tuple[str, ...]


def clients_of(public_url: str) -> dict[str, Client]:
    """The city's applications: its own page, and the app on a phone or a desk.

    Args:
        public_url: where the city's page is reached from outside; empty where it is only on this machine.
    """
    pages = ("/", *([f"{public_url.rstrip('/')}/"] if public_url else []))
    app = ("city.provable.app:/callback", "http://127.0.0.1:*/callback", "http://[::1]:*/callback")
    return {client.id: client for client in (Client("dashboard", pages), Client("city-app", app))}


def require_authorization(
    clients: dict[str, Client], client_id: str, redirect_uri: str, challenge: str, method: str, nonce: str
) -> Client:
    """Checks an authorization request (RFC 6749, 4.1.1; RFC 7636, 4.3).

    Raises:
        IdentityError: unknown client, foreign redirect, no S256 challenge, or a nonce that is too long.
    """
    client = clients.get(client_id)
    if client is None:
        raise IdentityError("unknown-client", f"unknown client; there are {', '.join(clients)}", "client_id")
    if not any(_redirect_fits(redirect_uri, allowed) for allowed in client.redirects):
        raise IdentityError(
            "bad-redirect", f"{client_id} may be sent back only to {', '.join(client.redirects)}", "redirect_uri"
        )
    if method != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise IdentityError(
            "bad-challenge", "a PKCE challenge with method S256 is required (RFC 7636)", "code_challenge"
        )
    if len(nonce) > NONCE_MAX:
        raise IdentityError("bad-nonce", f"a nonce has at most {NONCE_MAX} characters", "nonce")
    return client


def _redirect_fits(redirect: str, allowed: str) -> bool:
    if ":*" not in allowed:
        return redirect == allowed
    try:
        port = urlsplit(redirect).port
    except ValueError:
        return False
    return port is not None and redirect == allowed.replace(":*", f":{port}")


def challenge_fits(verifier: str, challenge: str) -> bool:
    """RFC 7636, 4.6."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(digest, challenge)
