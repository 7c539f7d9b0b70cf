"""Who signs: a member's certificate, and signers for it. Used by the gateway client; nothing here talks to a network.

Sources: msp/identities.proto (`SerializedIdentity`); Fabric takes ECDSA signatures over SHA-256 as DER with a low S
(https://hyperledger-fabric.readthedocs.io/en/release-2.5/msp.html), and Ed25519 ones over the message (channel capability V3_0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from fabric_protos.msp import identities_pb2

from citykit.ledger.fabric.errors import IdentityError

_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
"""Orders of the curves' base points (NIST SP 800-186, 3.2.1)."""


@dataclass(frozen=True)
class Identity:
    """A member of an organisation: MSP id and X.509 certificate (PEM)."""

    msp_id: str
    certificate: bytes

    def __post_init__(self) -> None:
        if not self.msp_id:
            raise IdentityError("an identity needs the id of its organisation's MSP")
        try:
            x509.load_pem_x509_certificate(self.certificate)
        except ValueError as error:
            raise IdentityError(f"the certificate of a member of {self.msp_id} is no X.509 PEM: {error}") from None

    @cached_property
    def serialized(self) -> bytes:
        """msp.SerializedIdentity, as it is named in headers."""
        message = identities_pb2.SerializedIdentity(mspid=self.msp_id, id_bytes=self.certificate)
        return bytes(message.SerializeToString(deterministic=True))


class Signer(Protocol):
    """Signs whole messages; `digest` is what a signer elsewhere would be given for the same message."""

    def sign(self, message: bytes) -> bytes: ...


class EcdsaSigner:
    """ECDSA on P-256 or P-384 over SHA-256, DER with low S.

    Raises:
        IdentityError: a key on another curve.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if key.curve.name not in _ORDERS:
            raise IdentityError(f"a key is on P-256 or P-384, not {key.curve.name}")
        self._key = key

    def sign(self, message: bytes) -> bytes:
        return self.sign_digest(sha256(message).digest())

    def sign_digest(self, digest: bytes) -> bytes:
        """The signature over a SHA-256 digest: what an offline signer does."""
        signature = self._key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        return low_s(signature, self._key.curve.name)


class Ed25519Signer:
    """Ed25519 over the message itself (RFC 8032)."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def low_s(signature: bytes, curve: str) -> bytes:
    """A DER signature with S in the lower half of the curve's order; Fabric refuses the other form.

    Args:
        curve: "secp256r1" or "secp384r1".
    """
    r, s = utils.decode_dss_signature(signature)
    order = _ORDERS[curve]
    return utils.encode_dss_signature(r, order - s) if s > order // 2 else signature


def read_signer(pem: bytes, password: bytes | None = None) -> EcdsaSigner | Ed25519Signer:
    """The signer for a private key in PEM.

    Raises:
        IdentityError: not a private key, a wrong password, or a kind of key Fabric does not take.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError):
        raise IdentityError(
            "the private key cannot be read: PEM is expected, and its password where it has one"
        ) from None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return EcdsaSigner(key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return Ed25519Signer(key)
    raise IdentityError(f"a private key is ECDSA on P-256 or P-384, or Ed25519, not {type(key).__name__}")


def read_identity(msp_id: str, certificate: Path, key: Path) -> tuple[Identity, EcdsaSigner | Ed25519Signer]:
    """A member and its signer from two PEM files.

    Raises:
        IdentityError: a file that cannot be read or used, or a key that is not the certificate's; it names the file.
    """
    try:
        member = Identity(msp_id, certificate.read_bytes())
        secret = key.read_bytes()
    except OSError as error:
        raise IdentityError(f"{error.filename} cannot be read: {error.strerror}") from None
    except IdentityError as error:
        raise IdentityError(f"{certificate}: {error}") from None
    try:
        signer = read_signer(secret)
        require_pair(member.certificate, secret)
    except IdentityError as error:
        raise IdentityError(f"{key}, {certificate}: {error}") from None
    return member, signer


def require_pair(certificate: bytes, key: bytes) -> None:
    """Raises IdentityError unless a private key (PEM) is the certificate's."""
    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise IdentityError(
            "a certificate or its private key cannot be read; PEM without a password is expected"
        ) from None
    if public != private.public_key():
        raise IdentityError("the private key is not that of the certificate")
