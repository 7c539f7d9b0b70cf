"""A throw-away authority with a server's and a client's certificate, for TLS on loopback."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from citykit.ledger.fabric.shim import ServerTls


class Authority:
    """Writes `ca.pem` and, for each name, `NAME.pem` and `NAME.key` into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _signed("ca", self._key, self._key, "ca", authority=True)
        (folder / "ca.pem").write_bytes(self._certificate)

    def issue(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        (self.folder / f"{name}.pem").write_bytes(_signed(name, key, self._key, "ca", authority=False))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(pem)

    def server(self, *, mutual: bool = True) -> ServerTls:
        self.issue("server")
        roots = self.folder / "ca.pem" if mutual else None
        return ServerTls(self.folder / "server.pem", self.folder / "server.key", roots)

    def client(self, *, shown: bool = True) -> grpc.ChannelCredentials:
        if not shown:
            return grpc.ssl_channel_credentials(self._certificate)
        self.issue("client")
        key, pem = (self.folder / "client.key").read_bytes(), (self.folder / "client.pem").read_bytes()
        return grpc.ssl_channel_credentials(self._certificate, key, pem)


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, issuer: str, *, authority: bool
) -> bytes:
    now = datetime.now(UTC)
    loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(_name(issuer), _name(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
        .sign(signer, SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
