"""The certificates of a cluster and the kubeconfigs made of them. Called by the control plane and the node.

In a client's certificate the common name is the user and the organisations are its groups, as the API server reads them
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.certificates import Issued, new_authority

DAYS = 14.0
MASTERS = "system:masters"
"""The group that may do everything."""
_EARLIER = timedelta(minutes=5)
_RSA_BITS = 2_048
_RSA_EXPONENT = 65_537


@dataclass(frozen=True)
class Pki:
    """A folder with `ca.crt`, `ca.key` and a pair of files for each name."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def authority_key(self) -> Path:
        return self.folder / "ca.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    @property
    def account_key(self) -> Path:
        """Signs the tokens of service accounts; its public half is `account_public`."""
        return self.folder / "accounts.key"

    @property
    def account_public(self) -> Path:
        return self.folder / "accounts.pub"

    def issue(self, name: str, user: str = "", groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> None:
        """Writes `NAME.crt` and `NAME.key`, for a client and, where hosts are given, for a server.

        Args:
            user: the common name; the name itself where none is given.
            groups: the organisations.
            hosts: DNS names and IP addresses.
        """
        made = issue(_read(self), user or name, groups, hosts)
        write(self.certificate(name), made.certificate)
        write(self.key(name), made.key)


def create(folder: Path) -> Pki:
    """A new authority and a new pair for the tokens of service accounts."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki = Pki(folder)
    made = new_authority("provable-city test cluster", DAYS)
    write(pki.authority, made.certificate)
    write(pki.authority_key, made.key)
    accounts = rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS)
    write(pki.account_key, accounts.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write(pki.account_public, public)
    return pki


def issue(authority: Issued, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Issued:
    """A certificate for a client and, where hosts are given, for a server."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = load_pem_private_key(authority.key, None)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(user, groups))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_issued_by(issuer), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
    signed = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]  # our own authorities are EC
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(signed.public_bytes(Encoding.PEM), pem)


def write_kubeconfig(path: Path, server: str, pki: Pki, name: str, namespace: str = "default") -> Path:
    """A kubeconfig with everything inside; JSON, which is YAML.

    Args:
        server: `https://127.0.0.1:6443`.
        name: whose certificate is in it.
    """
    cluster = {"server": server, "certificate-authority-data": _inline(pki.authority)}
    user = {"client-certificate-data": _inline(pki.certificate(name)), "client-key-data": _inline(pki.key(name))}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "city", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "city", "context": {"cluster": "city", "user": name, "namespace": namespace}}],
        "current-context": "city",
    }
    write(path, json.dumps(document, indent=1).encode())
    return path


def write(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner only."""
    unfinished = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def _read(pki: Pki) -> Issued:
    return Issued(pki.authority.read_bytes(), pki.authority_key.read_bytes())


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _subject(user: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
