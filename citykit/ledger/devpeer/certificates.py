"""A small certificate authority per organisation, and what it issues: peers, clients with attributes, TLS. Used at the first start.

ECDSA P-256. The organisational unit of a subject names its role (peer, client, admin, orderer), as Fabric's NodeOUs read it; attributes
of a client travel in the extension 1.2.3.4.5.6.7.8.1 as JSON, where every shim's attribute-based access looks for them.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from citykit.errors import Damaged

ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_BACKDATED = datetime.timedelta(minutes=5)
"""Clocks of one machine room differ by less."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM (the key as PKCS 8)."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Subject:
    """Whom a certificate is for.

    Attributes:
        role: peer, client, admin or orderer; empty for TLS.
        hosts: names and addresses a TLS server answers to.
        attributes: for attribute-based access, for example {"city.service": "metering"}.
    """

    name: str
    organisation: str
    role: str = ""
    hosts: Sequence[str] = ()
    attributes: Mapping[str, str] | None = None


def open_authority(folder: Path, organisation: str, now: datetime.datetime, days: int) -> Authority:
    """The authority kept in `folder` (ca.pem, ca.key), made where there is none.

    Raises:
        Damaged: only one of the two files is there.
    """
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if certificate.exists() != key.exists():
        raise Damaged(f"{folder} holds only one of ca.pem and ca.key; restore the other, or delete the state folder")
    if not certificate.exists():
        authority = _new_authority(organisation, now, days)
        write_private(key, _key_pem(authority.key))
        certificate.write_bytes(authority.pem)
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise Damaged(f"{key} is no P-256 key")
    return Authority(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)


def issue(
    authority: Authority, subject: Subject, now: datetime.datetime, days: float, key: PrivateKey | None = None
) -> Issued:
    """A certificate for `subject`, valid `days` from `now`; of a new P-256 key, or of the one given (Ed25519 for instance)."""
    key = key or new_key("p256")
    builder = _builder(_name(subject), authority.certificate.subject, now, days).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signing=True), critical=True)
    if subject.hosts or not subject.role:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    if subject.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in subject.hosts]), critical=False)
    if subject.attributes:
        content = json.dumps({"attrs": dict(subject.attributes)}, separators=(",", ":")).encode()
        builder = builder.add_extension(x509.UnrecognizedExtension(ATTRIBUTES, content), critical=False)
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    whose = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    signed = builder.add_extension(whose, critical=False).sign(authority.key, hashes.SHA256())
    return Issued(signed.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def new_key(kind: str) -> PrivateKey:
    """A new key, `p256` or `ed25519`."""
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def write_private(path: Path, content: bytes) -> None:
    """Writes a file only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _new_authority(organisation: str, now: datetime.datetime, days: int) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{organisation}"),
        ]
    )
    builder = _builder(name, name, now, days).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signing=False), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _builder(name: x509.Name, issuer: x509.Name, now: datetime.datetime, days: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(subject: Subject) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.organisation)]
    if subject.role:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, subject.role))
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject.name)])


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=not signing, crl_sign=not signing, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
