"""Who is a member: creators and endorsers checked against their organisation's authority; signing with a member's key.

Fabric's rules: the certificate is the authority's own issue, valid now, no authority itself; an ECDSA signature over SHA-256 has a low S
(so that nobody can make a second valid signature of it); an Ed25519 signature is over the message itself.
"""

from __future__ import annotations

import datetime
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import NameOID
from fabric_protos.msp import identities_pb2
from google.protobuf.message import DecodeError

from citykit.errors import PermissionDenied
from citykit.ledger.devpeer.certificates import Issued
from citykit.ledger.devpeer.policy import ROLES, Principal

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of P-256 (SEC 2, 2.4.2)."""
_ECDSA = ec.ECDSA(hashes.SHA256())
_CACHE_MAX = 1_000
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class NotMember(PermissionDenied):
    """An identity or signature that does not hold; the message names no key and no certificate."""

    default_reason = "access-denied"


@dataclass(frozen=True)
class Member:
    """A checked identity. `serialized` is its `msp.SerializedIdentity`."""

    serialized: bytes
    msp_id: str
    role: str
    key: PublicKey
    begins: datetime.datetime
    ends: datetime.datetime

    @property
    def principal(self) -> Principal:
        return Principal(self.msp_id, self.role)

    def check_signature(self, message: bytes, signature: bytes) -> None:
        """Raises NotMember if `signature` is not this member's over `message`."""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, message)
                return
            if decode_dss_signature(signature)[1] > _ORDER // 2:
                raise NotMember(f"a signature of {self.msp_id} has a high S; sign with the low one")
            self.key.verify(signature, message, _ECDSA)
        except (InvalidSignature, ValueError):
            raise NotMember(f"a signature of {self.msp_id} does not hold") from None


class Members:
    """Every organisation's members.

    Args:
        authorities: MSP id -> certificate of its authority.
        clock: now, in UTC.
    """

    def __init__(self, authorities: Mapping[str, x509.Certificate], clock: Callable[[], datetime.datetime]) -> None:
        self._authorities = authorities
        self._clock = clock
        self._seen: OrderedDict[bytes, Member] = OrderedDict()

    def member(self, serialized: bytes) -> Member:
        """The member behind a serialized identity.

        Raises:
            NotMember: unknown organisation, foreign, expired or malformed certificate.
        """
        found = self._known(serialized)
        if not found.begins <= self._clock() <= found.ends:
            raise NotMember(f"a certificate of {found.msp_id} is valid to {found.ends:%Y-%m-%d %H:%M} UTC; renew it")
        return found

    def signed(self, serialized: bytes, message: bytes, signature: bytes) -> Member:
        """The member who signed `message`."""
        member = self.member(serialized)
        member.check_signature(message, signature)
        return member

    def signed_before(self, serialized: bytes, message: bytes, signature: bytes) -> Member:
        """The member who signed a stored `message`; the certificate may have expired since."""
        member = self._known(serialized)
        member.check_signature(message, signature)
        return member

    def _known(self, serialized: bytes) -> Member:
        found = self._seen.get(serialized)
        if found is None:
            found = self._seen[serialized] = self._read(serialized)
            if len(self._seen) > _CACHE_MAX:
                self._seen.popitem(last=False)
        return found

    def _read(self, serialized: bytes) -> Member:
        try:
            identity = identities_pb2.SerializedIdentity.FromString(serialized)
            certificate = x509.load_pem_x509_certificate(identity.id_bytes)
        except (DecodeError, ValueError):
            raise NotMember("an identity is malformed: a PEM certificate and the name of its organisation") from None
        authority = self._authorities.get(identity.mspid)
        if authority is None:
            raise NotMember(f"organisation {identity.mspid!r} is not on this channel")
        self._check_issue(certificate, authority, identity.mspid)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise NotMember(f"a certificate of {identity.mspid} has no ECDSA P-256 or Ed25519 key")
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return Member(serialized, identity.mspid, _role(certificate), key, begins, ends)

    @staticmethod
    def _check_issue(certificate: x509.Certificate, authority: x509.Certificate, msp_id: str) -> None:
        try:
            certificate.verify_directly_issued_by(authority)
            own = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            own = False
        except (InvalidSignature, ValueError, TypeError):
            raise NotMember(f"a certificate was not issued by the authority of {msp_id}") from None
        if own:
            raise NotMember(f"an authority of {msp_id} is no member that may sign")


class Signer:
    """A member's own key: endorses, or signs blocks."""

    def __init__(self, msp_id: str, issued: Issued) -> None:
        self.msp_id = msp_id
        key = serialization.load_pem_private_key(issued.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise NotMember(f"the key of {msp_id} is neither ECDSA P-256 nor Ed25519")
        self._key = key
        self.certificate = issued.certificate
        self.serialized = bytes(
            identities_pb2.SerializedIdentity(mspid=msp_id, id_bytes=issued.certificate).SerializeToString()
        )

    def sign(self, message: bytes) -> bytes:
        """A signature over `message`, of low S."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        r, s = decode_dss_signature(self._key.sign(message, _ECDSA))
        return encode_dss_signature(r, min(s, _ORDER - s))


def _role(certificate: x509.Certificate) -> str:
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return next((str(unit.value) for unit in units if unit.value in ROLES), "member")
