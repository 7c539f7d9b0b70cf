"""People: logins, names, roles, passwords, and the subject each service knows them by."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from services.identity.domain.errors import IdentityError

PASSWORD_MIN, PASSWORD_MAX = 12, 1_024
NAME_MAX = 200
PURPOSE_MAX = 500
AUDIENCE_MAX = 40
ROLES = ("auditor", "billing", "contractor", "operator", "registrar", "resident")
_LOGIN = re.compile(r"[a-z0-9-]{2,40}")
_AUDIENCE = re.compile(r"[a-z][a-z0-9-]{0,39}")
_HASH_BYTES = 32
_MEMORY_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's parameters (RFC 7914, 2), kept with each hash so that they can rise: memory is 128 * n * r bytes."""

    n: int = 2**14
    r: int = 8
    p: int = 1

    def __str__(self) -> str:
        return f"scrypt:{self.n}:{self.r}:{self.p}"


def cost_of(text: str) -> Cost:
    """The inverse of `str(cost)`.

    Raises:
        ValueError: no such text.
    """
    kind, n, r, p = text.split(":")
    if kind != "scrypt":
        raise ValueError(f"passwords are hashed with scrypt, not {kind}")
    return Cost(int(n), int(r), int(p))


def password_hash(password: str, salt: bytes, cost: Cost) -> bytes:
    """32 bytes; takes time and memory by design, so run it in a thread."""
    n, r, p = cost.n, cost.r, cost.p
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, dklen=_HASH_BYTES, maxmem=_MEMORY_MAX)


def require_login(login: str) -> str:
    """Raises IdentityError where it is no login."""
    if not _LOGIN.fullmatch(login):
        raise IdentityError("bad-login", "a login has 2 to 40 lower-case letters, digits and hyphens", "login")
    return login


def require_person(login: str, display_name: str, roles: frozenset[str], password: str) -> None:
    """Checks what a person is created from.

    Raises:
        IdentityError: naming the field.
    """
    require_login(login)
    if not 1 <= len(display_name) <= NAME_MAX or not display_name.isprintable():
        raise IdentityError("bad-name", f"a display name has 1 to {NAME_MAX} printable characters", "display_name")
    if not roles or not roles <= frozenset(ROLES):
        raise IdentityError("bad-roles", f"a person has at least one role of {', '.join(ROLES)}", "roles")
    if password and not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise IdentityError("bad-password", f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters", "password")


def require_purpose(purpose: str, field: str = "purpose") -> str:
    """Raises IdentityError where nothing, or too much, is said."""
    if not 1 <= len(purpose.strip()) <= PURPOSE_MAX:
        raise IdentityError(
            f"bad-{field}", f"say the {field} in 1 to {PURPOSE_MAX} characters; the person will read it", field
        )
    return purpose


def require_audience(audience: str, field: str = "audience") -> str:
    """Raises IdentityError where it is no name of a service or organisation."""
    if not _AUDIENCE.fullmatch(audience):
        message = f"a name of 1 to {AUDIENCE_MAX} lower-case letters, digits and hyphens, for instance metering"
        raise IdentityError(f"bad-{field}", f"{field} is {message}", field)
    return audience


def pairwise_subject(key: bytes, person: str, audience: str) -> str:
    """A person's identifier at one service (OpenID Connect Core 8.1), 40 hex digits. Without the key nobody can link two."""
    return hmac.new(key, f"city.pairwise.v1\n{audience}\n{person}".encode(), hashlib.sha256).hexdigest()[:40]
