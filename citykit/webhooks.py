"""Signatures of calls between the city and an outside party over HTTP: `t=<unix seconds>,v1=<HMAC-SHA256 hex>` over time and content.

Used for the payment provider's callbacks and for calls to it. The time keeps a recorded message from being good for ever; whoever
receives one must also take it twice without harm.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from citykit.errors import PermissionDenied

HEADER = "Provider-Signature"
TOLERANCE_S = 300
_FORM = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


def sign(secret: bytes, content: bytes, at: int) -> str:
    """The header's value. `at` is machine time, unix seconds."""
    return f"t={at},v1={_digest(secret, content, at)}"


def verify(secret: bytes, content: bytes, signature: str, now: int) -> None:
    """Raises: PermissionDenied, where the signature is not of this content and secret, or is old."""
    found = _FORM.fullmatch(signature)
    if found is None:
        raise PermissionDenied(
            f"the header {HEADER} must be t=<unix seconds>,v1=<HMAC-SHA256 as hex>", reason="signature-malformed"
        )
    at = int(found[1])
    if not hmac.compare_digest(found[2], _digest(secret, content, at)):
        raise PermissionDenied(
            "the signature does not hold; sign time and body with the shared key", reason="signature"
        )
    if abs(now - at) > TOLERANCE_S:
        raise PermissionDenied(
            f"the signature is of {at}, more than {TOLERANCE_S} s from now; sign again", reason="signature-old"
        )


def _digest(secret: bytes, content: bytes, at: int) -> str:
    return hmac.new(secret, f"{at}.".encode() + content, hashlib.sha256).hexdigest()
