"""Certificate authorities where `cryptogen` would put them, for tests without Fabric's programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.fabric.crypto import issue, node_folder, organisation_folder, tls_extensions, write_key
from infra.fabric.plan import Node, Plan


def make_authorities(plan: Plan) -> None:
    """CAs of every organisation, and keys of every node of the plan."""
    for organisation in plan.organisations:
        for orderers in (False, True):
            folder = organisation_folder(plan, organisation, orderers=orderers)
            for kind in ("ca", "tlsca"):
                _authority(folder / kind, f"{kind}.{folder.name}")
    for node in plan.nodes:
        _node(plan, node)


def _authority(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / "priv_sk", key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}-cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _node(plan: Plan, node: Node) -> None:
    folder = node_folder(plan, node)
    organisation = plan.organisation(node.organisation)
    authority = organisation_folder(plan, organisation, orderers=not node.is_peer)
    for part in ("msp/signcerts", "msp/keystore", "tls"):
        (folder / part).mkdir(parents=True)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node.name)])
    day = timedelta(days=1)
    for certificate, key_file, ca, extensions in (
        ("msp/signcerts/cert.pem", "msp/keystore/priv_sk", "ca", []),
        ("tls/server.crt", "tls/server.key", "tlsca", tls_extensions()),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        write_key(folder / key_file, key)
        content = issue(authority / ca, subject, key, valid=day, extensions=extensions)
        (folder / certificate).write_bytes(content)
    (folder / "tls" / "ca.crt").write_bytes(next((authority / "tlsca").glob("*.pem")).read_bytes())
