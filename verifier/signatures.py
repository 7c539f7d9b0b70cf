"""Signatures: Ed25519 and ES256."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

_HALF = 32


def ed25519_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032; key of 32 bytes, signature of 64."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def es256_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    """ECDSA on P-256 with SHA-256; key an uncompressed point of 65 bytes, signature r || s."""
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
        r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
        public.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return len(signature) == 2 * _HALF


def device_signature_holds(algorithm: str, key: bytes, message: bytes, signature: bytes) -> bool:
    return {"EdDSA": ed25519_holds, "ES256": es256_holds}[algorithm](key, message, signature)
