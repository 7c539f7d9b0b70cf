"""Members of a Fabric channel: certificates under the trusted authorities, and the signatures made with their keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.x509.oid import NameOID

from verifier.canonical import Failure
from verifier.wire import Message

_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
_SERVICE = "city.service"
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}


@dataclass(frozen=True)
class Organisation:
    """An organisation's authorities. `unit` is the organisational unit of those who may sign here; empty: any member."""

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]
    unit: str


@dataclass(frozen=True)
class Member:
    """A member whose certificate was issued by a trusted authority of its organisation."""

    organisation: str
    certificate: x509.Certificate


def member_of(identity: bytes, organisations: Mapping[str, Organisation], where: str) -> Member:
    """The member behind a serialized identity.

    Raises:
        Failure: of no trusted organisation, not issued by it, or not of the unit that may sign.
    """
    message = Message(identity, where)
    name = message.text(1)
    known = organisations.get(name)
    if known is None:
        raise Failure(f"{where}: {name} is no trusted organisation")
    certificate = certificate_of(message.data(2), where)
    if not _issued(certificate, known):
        raise Failure(f"{where}: no trusted authority of {name} issued the certificate")
    units = [item.value for item in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if known.unit and known.unit not in units:
        raise Failure(f"{where}: a certificate of {name} is not of a {known.unit}")
    return Member(name, certificate)


@lru_cache(maxsize=1_000)
def certificate_of(pem: bytes, where: str) -> x509.Certificate:
    """Raises Failure where the bytes are no certificate in PEM."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Failure(f"{where} holds no certificate") from None


def service_of(member: Member, where: str) -> str:
    """The service a certificate is for: its attribute `city.service`, else its common name."""
    names = member.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = _attributes(member.certificate).get(_SERVICE) or (names[0].value if names else "")
    if not isinstance(name, str) or not name:
        raise Failure(f"{where}: the certificate names nobody")
    return name


def signature_holds(certificate: x509.Certificate, message: bytes, signature: bytes) -> bool:
    """ECDSA over SHA-256 with low S in DER (a high S would be a second form of the same), or Ed25519."""
    key = certificate.public_key()
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
            return True
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _ORDERS:
            return False
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        return utils.decode_dss_signature(signature)[1] <= _ORDERS[key.curve.name] // 2
    except (InvalidSignature, ValueError):
        return False


def signers(
    message: bytes, endorsements: Sequence[tuple[bytes, bytes]], organisations: Mapping[str, Organisation], where: str
) -> set[str]:
    """Organisations of those who signed; each signature is over the message and its signer's identity.

    Raises:
        Failure: one of them does not hold, or is of nobody trusted.
    """
    found: set[str] = set()
    for identity, signature in endorsements:
        member = member_of(identity, organisations, where)
        if not signature_holds(member.certificate, message + identity, signature):
            raise Failure(f"{where} of {member.organisation} does not hold")
        found.add(member.organisation)
    return found


@lru_cache(maxsize=1_000)
def _issued(certificate: x509.Certificate, organisation: Organisation) -> bool:
    if any(_issued_by(certificate, root) for root in organisation.roots):
        return True
    between = [item for item in organisation.intermediates if _issued_by(certificate, item)]
    return any(_issued_by(item, root) for item in between for root in organisation.roots)


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        return authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False


def _attributes(certificate: x509.Certificate) -> dict[str, Any]:
    try:
        extension: Any = certificate.extensions.get_extension_for_oid(_ATTRIBUTES).value
        attributes = json.loads(extension.value)["attrs"]
    except (x509.ExtensionNotFound, ValueError, KeyError, TypeError):
        return {}
    return attributes if isinstance(attributes, dict) else {}
