"""The project's own certificate authority: in folders for real parts on one machine (`make up`, the tests), in memory for `city provision`.

Each name gets `tls.crt`, `tls.key` and `ca.crt`, the files of a Kubernetes TLS secret as cert-manager writes them. Keys are EC P-256 in PKCS 8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, LEAF_DAYS = 60.0, 14.0
"""On one machine; a cluster's live longer."""
AUTHORITY = "authority"
"""The folder of the authority itself; its key never leaves it."""
_EARLIER = timedelta(minutes=5)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def new_authority(name: str, days: float, key: bytes = b"", now: datetime | None = None) -> Issued:
    """A certificate authority.

    Args:
        name: its common name.
        key: the one it had (PEM), so that what it issued still holds; empty: a new one.
    """
    own = _loaded(key) if key else ec.generate_private_key(ec.SECP256R1())
    subject = _named(name)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    builder = _builder(subject, subject, own.public_key(), days, now).add_extension(constraints, critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True).add_extension(identifier, critical=False)
    return _issued(builder.sign(own, hashes.SHA256()), own)


def issue(authority: Issued, name: str, days: float, hosts: Sequence[str] = (), now: datetime | None = None) -> Issued:
    """A certificate for server and client use.

    Args:
        name: its common name and first DNS name.
        hosts: further DNS names and IP addresses; loopback is always among them.

    Raises:
        ValueError: the authority's key is of a kind that signs no certificates with SHA-256.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_pem_private_key(authority.key, None)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    names = [_host(one) for one in dict.fromkeys((name, *_LOOPBACK, *hosts))]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_named(name), issuer.subject, key.public_key(), days, now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(_whose(issuer), critical=False)
    )
    return _issued(builder.sign(signer, hashes.SHA256()), key)  # type: ignore[arg-type]  # RSA or EC: the caller says which


def fresh(certificate: bytes, now: datetime | None = None) -> bool:
    """Whether a certificate (PEM) has more than half its life left."""
    found = x509.load_pem_x509_certificate(certificate)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return (now or datetime.now(UTC)) < begins + (ends - begins) / 2


def ensure_certificates(folder: Path, names: Iterable[str], *, leaf_days: float = LEAF_DAYS) -> list[str]:
    """Makes what is missing and renews what has used up half its life.

    Returns:
        The names whose files changed; who reads them takes the new ones at the next handshake.
    """
    authority = _kept_authority(folder / AUTHORITY)
    return [name for name in names if _ensure(folder / name, authority, name, leaf_days)]


def _kept_authority(folder: Path) -> Issued:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    if certificate.exists() and fresh(certificate.read_bytes()):
        return Issued(certificate.read_bytes(), key.read_bytes())
    made = new_authority("provable-city test authority", AUTHORITY_DAYS)
    _write(key, made.key)
    _write(certificate, made.certificate)
    return made


def _ensure(folder: Path, authority: Issued, name: str, days: float) -> bool:
    """True where it made new files."""
    known, certificate = folder / "ca.crt", folder / "tls.crt"
    current = certificate.exists() and known.exists() and known.read_bytes() == authority.certificate
    if current and fresh(certificate.read_bytes()):
        return False
    made = issue(authority, name, days)
    _write(folder / "tls.key", made.key)
    _write(known, authority.certificate)
    _write(certificate, made.certificate)
    return True


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(certificate.public_bytes(Encoding.PEM), pem)


def _loaded(key: bytes) -> ec.EllipticCurvePrivateKey:
    found = load_pem_private_key(key, None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise TypeError("not an EC key")
    return found


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _whose(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]  # RSA or EC
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: float, now: datetime | None
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)
