"""Access documents: compact JWS of ES256, read strictly (docs/PROOFS.md, "Access document"; RFC 7515, RFC 7519).

Called by the step `access`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from verifier.canonical import Failure, Unreadable, decode, fields
from verifier.signatures import es256_holds

_PARTS, _SIGNATURE, _LENGTH_MAX = 3, 64, 4_096
_TYPE = "city-access+jwt"
_CLAIMS = {
    "iss": str, "aud": str, "sub": str, "jti": str, "act": str, "lot": str, "bay": str, "iat": int, "nbf": int, "exp": int,
}  # fmt: skip


def open_access(text: Any, keys: Mapping[str, bytes], where: str) -> tuple[str, Any]:
    """(key id, claims) of a document that one of `keys` (kid -> uncompressed point) signed.

    Raises:
        Failure: it is in another form, or nobody of them signed it.
    """
    if not isinstance(text, str) or len(text) > _LENGTH_MAX:
        raise Failure(f"{where} is no compact JWS of at most {_LENGTH_MAX} characters")
    parts = text.split(".")
    if len(parts) != _PARTS:
        raise Failure(f"{where} has {len(parts)} parts; a compact JWS has {_PARTS}")
    header = fields(_json(parts[0], f"{where}: header"), f"{where}: header", alg=str, kid=str, typ=str)
    if (header["alg"], header["typ"]) != ("ES256", _TYPE):
        raise Failure(f"{where} is of {header['alg']} and type {header['typ']}, not ES256 and {_TYPE}")
    key = keys.get(header["kid"])
    if key is None:
        raise Failure(f"{where} is signed by the key {header['kid']}, which the bundle does not show as published")
    signature = _bytes(parts[2], f"{where}: signature")
    if len(signature) != _SIGNATURE or not es256_holds(key, f"{parts[0]}.{parts[1]}".encode(), signature):
        raise Failure(f"{where}: the signature does not hold under the key {header['kid']}")
    return header["kid"], _claims(_json(parts[1], f"{where}: claims"), where)


def _claims(claims: Any, where: str) -> Any:
    fields(claims, f"{where}: claims", **_CLAIMS)
    if not claims["jti"].isdecimal() or str(int(claims["jti"])) != claims["jti"]:
        raise Failure(f"{where}: jti {claims['jti']!r} is no number in decimal")
    if claims["act"] not in ("entry", "exit"):
        raise Failure(f"{where}: act is {claims['act']!r}, not entry or exit")
    return claims


def _json(part: str, where: str) -> Any:
    try:
        return decode(_bytes(part, where), where)
    except Unreadable as error:
        raise Failure(str(error)) from None


def _bytes(part: str, where: str) -> bytes:
    """base64url without padding, in its one form."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode() or not data:
        raise Failure(f"{where} is not base64url in its one form")
    return data
