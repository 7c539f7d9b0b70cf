"""Rules of identity: vouchers, logins, roles, pairwise subjects, PKCE, receipts. Pure; time, keys and randomness come in as arguments."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PASSWORD_MIN, PASSWORD_MAX = 12, 1_024
NAME_MAX = 200
PURPOSE_MAX = 500
CODE_S = 60
_LOGIN = re.compile(r"[a-z0-9-]{2,40}")
_DEVICE = re.compile(r"[a-z0-9-]{1,64}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_KEY_BYTES = {"EdDSA": 32, "ES256": 65}
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}
_VOUCHER_FIELDS = ["algorithm", "device", "key", "model", "serial"]
PEOPLE_ROLES = frozenset({"resident", "contractor", "operator", "billing", "registrar", "auditor"})


class IdentityError(ValueError):
    """A rule is broken.

    Attributes:
        reason: machine word.
        field: which part of the request.
    """

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a manufacturer vouches for."""

    device: str
    key: bytes
    algorithm: str
    model: str
    serial: str


@dataclass(frozen=True, slots=True)
class Client:
    """An application that may ask for codes.

    Attributes:
        redirects: exact addresses; one that ends in `:*` stands for any port of a loopback address (RFC 8252, 7.3).
    """

    id: str
    redirects: tuple[str, ...]


CLIENTS = {
    client.id: client
    for client in (
        Client("dashboard", ("/",)),
        Client("city-app", ("city.provable.app:/callback", "http://127.0.0.1:*/callback", "http://[::1]:*/callback")),
    )
}


def voucher_of(document: Any) -> Voucher:
    """The voucher in a decoded document.

    Raises:
        IdentityError: other fields, or a key that does not fit its algorithm.
    """
    if (
        not isinstance(document, dict)
        or sorted(document) != _VOUCHER_FIELDS
        or not all(isinstance(v, str) for v in document.values())
    ):
        raise IdentityError(
            "bad-voucher", f"a voucher holds exactly the texts {', '.join(_VOUCHER_FIELDS)}", "vouchers"
        )
    require_device(document["device"], "vouchers")
    key = key_of(document["key"], document["algorithm"])
    return Voucher(document["device"], key, document["algorithm"], document["model"], document["serial"])


def require_device(device: str, field: str = "device") -> str:
    if not _DEVICE.fullmatch(device):
        raise IdentityError("bad-device", "a device id has 1 to 64 lower-case letters, digits and hyphens", field)
    return device


def key_of(text: str, algorithm: str) -> bytes:
    """A public key from lower-case hex.

    Raises:
        IdentityError: unknown algorithm or wrong length.
    """
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    require_key(key, algorithm)
    if key.hex() != text:
        raise IdentityError("bad-key", "a key is written in lower-case hex", "key")
    return key


def require_key(key: bytes, algorithm: str) -> None:
    if algorithm not in _KEY_BYTES:
        raise IdentityError("bad-algorithm", f"the algorithm is one of {', '.join(_KEY_BYTES)}", "algorithm")
    if len(key) != _KEY_BYTES[algorithm] or (algorithm == "ES256" and key[0] != 4):  # noqa: PLR2004 - SEC 1 uncompressed point
        raise IdentityError("bad-key", f"a key of {algorithm} has {_KEY_BYTES[algorithm]} bytes", "key")


def require_person(login: str, display_name: str, roles: frozenset[str], password: str) -> None:
    """Checks what a person is created from.

    Raises:
        IdentityError: naming the field.
    """
    if not _LOGIN.fullmatch(login):
        raise IdentityError("bad-login", "a login has 2 to 40 lower-case letters, digits and hyphens", "login")
    if not 1 <= len(display_name) <= NAME_MAX or not display_name.isprintable():
        raise IdentityError("bad-name", f"a display name has 1 to {NAME_MAX} printable characters", "display_name")
    if not roles or not roles <= PEOPLE_ROLES:
        raise IdentityError(
            "bad-roles", f"a person has at least one role of {', '.join(sorted(PEOPLE_ROLES))}", "roles"
        )
    if password and not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise IdentityError("bad-password", f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters", "password")


def require_purpose(purpose: str, field: str = "purpose") -> str:
    if not 1 <= len(purpose.strip()) <= PURPOSE_MAX:
        raise IdentityError(
            "bad-purpose", f"say the purpose in 1 to {PURPOSE_MAX} characters; the person will read it", field
        )
    return purpose


def pairwise_subject(key: bytes, person: str, audience: str) -> str:
    """A person's identifier at one service (OIDC Core 8.1): no two services share it, and only identity can link them."""
    return hmac.new(key, f"city.pairwise.v1\n{audience}\n{person}".encode(), hashlib.sha256).hexdigest()[:40]


def password_hash(password: str, salt: bytes) -> bytes:
    """scrypt (RFC 7914), N=16384, r=8, p=1."""
    return hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT)


def require_authorization(client_id: str, redirect_uri: str, challenge: str, method: str) -> Client:
    """Checks an authorization request (RFC 6749, 4.1.1; RFC 7636, 4.3).

    Raises:
        IdentityError: unknown client, foreign redirect, or no S256 challenge.
    """
    client = CLIENTS.get(client_id)
    if client is None:
        raise IdentityError("unknown-client", f"unknown client; there are {', '.join(CLIENTS)}", "client_id")
    if not any(_redirect_fits(redirect_uri, allowed) for allowed in client.redirects):
        raise IdentityError(
            "bad-redirect", f"{client_id} may be sent back only to {', '.join(client.redirects)}", "redirect_uri"
        )
    if method != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise IdentityError(
            "bad-challenge", "a PKCE challenge with method S256 is required (RFC 7636)", "code_challenge"
        )
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


def consent_receipt(consent: str, subject: str, purpose: str, recipient: str, city: str, at: str) -> dict[str, Any]:
    """The receipt of a consent; names follow ISO/IEC TS 27560. Its commitment goes to the log, the receipt to the person."""
    return {
        "consent_record_id": consent,
        "event_time": at,
        "event_type": "given",
        "pii_controller": city,
        "pii_principal": subject,
        "purpose": purpose,
        "recipient": recipient,
        "schema": "city.consent-receipt.v1",
    }


def withdrawal_receipt(receipt: dict[str, Any], at: str) -> dict[str, Any]:
    return {**receipt, "event_type": "withdrawn", "event_time": at}


def erasure_receipt(audiences: list[str], city: str, at: str) -> dict[str, Any]:
    """What an erasure destroyed and what stays."""
    return {
        "at": at,
        "city": city,
        "destroyed": [
            "login",
            "name",
            "password",
            "consents and their salts",
            "list of accesses",
            "links between services",
        ],
        "kept": ["salted commitments in the logs, which tell nothing without the salts"],
        "schema": "city.erasure-receipt.v1",
        "told": sorted(audiences),
    }


def rotation_message(document: bytes) -> bytes:
    """What the key in force signs to name its successor."""
    return b"city.device-rotation.v1\n" + document


def voucher_message(document: bytes) -> bytes:
    """What a manufacturer signs."""
    return b"city.voucher.v1\n" + document
