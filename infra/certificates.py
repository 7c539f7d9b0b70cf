"""The project's own short-lived certificate authority for real parts on one machine: `make up` and the tests make it. Never a cluster's.

Each name gets a folder with `tls.crt`, `tls.key` and `ca.crt`, the files of a Kubernetes TLS secret as cert-manager writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
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
AUTHORITY = "authority"
"""The folder of the authority itself; its key never leaves it."""
_EARLIER = timedelta(minutes=5)
_LOOPBACK = IPv4Address("127.0.0.1")


def ensure_certificates(folder: Path, names: Iterable[str], *, leaf_days: float = LEAF_DAYS) -> list[str]:
    """Makes what is missing and renews what has used up half its life.

    Returns:
        The names whose files changed; who reads them takes the new ones at the next handshake.
    """
    authority = _Authority(folder / AUTHORITY)
    return [name for name in names if authority.ensure(folder / name, name, leaf_days)]


class _Authority:
    """The signing key and its certificate."""

    def __init__(self, folder: Path) -> None:
        self._certificate_file, key_file = folder / "tls.crt", folder / "tls.key"
        if _fresh(self._certificate_file):
            self._key = load_pem_private_key(key_file.read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self._certificate_file.read_bytes())
            return
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provable-city test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS).add_extension(constraints, critical=True)
        self._key, self._certificate = key, builder.sign(key, hashes.SHA256())
        _write(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _write(self._certificate_file, self._certificate.public_bytes(Encoding.PEM))

    def ensure(self, folder: Path, name: str, days: float) -> bool:
        """True where it made new files."""
        authority = self._certificate.public_bytes(Encoding.PEM)
        known = folder / "ca.crt"
        if _fresh(folder / "tls.crt") and known.exists() and known.read_bytes() == authority:
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / "tls.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        _write(folder / "ca.crt", authority)
        _write(folder / "tls.crt", self._leaf(name, key.public_key(), days).public_bytes(Encoding.PEM))
        return True

    def _leaf(self, name: str, public: ec.EllipticCurvePublicKey, days: float) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(_LOOPBACK)]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(subject, self._certificate.subject, public, days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        return builder.sign(self._key, hashes.SHA256())  # type: ignore[arg-type]  # it is the EC key written above


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _fresh(path: Path) -> bool:
    """Whether a certificate is there and has more than half its life left."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return datetime.now(UTC) < begins + (ends - begins) / 2


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)
