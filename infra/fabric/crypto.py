"""Keys and certificates of a network: `cryptogen` for organisations and nodes, and certificates for the services that call it.

An identity's certificate carries what the contracts need: the service's name as common name, and the role `client` as OU (NodeOUs).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.fabric.binaries import Binaries
from infra.fabric.plan import Node, Plan
from infra.fabric.profiles import ADMIN, Organisation

_SANS = ["localhost", "127.0.0.1"]
_FOLDER = "crypto"
_IDENTITY_DAYS = 365
_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Identity:
    """Files of one caller: its MSP, certificate and private key (PEM)."""

    msp: str
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Tls:
    """Files of one end of TLS (PEM)."""

    certificate: Path
    key: Path
    roots: Path


def generate(plan: Plan, binaries: Binaries) -> None:
    """Makes the keys of every organisation and node of the plan; nothing where they are there."""
    folder = plan.state / _FOLDER
    if folder.exists():
        return
    _cryptogen(plan, binaries, "generate", _document(plan, plan.organisations))


def generate_organisation(plan: Plan, binaries: Binaries, organisation: Organisation) -> None:
    """Makes the keys of an organisation that joins later."""
    _cryptogen(plan, binaries, "extend", _document(plan, (organisation,)))


def organisation_folder(plan: Plan, organisation: Organisation, *, orderers: bool = False) -> Path:
    """Where an organisation's MSP, CAs, nodes and users lie."""
    kind, domain = (
        ("ordererOrganizations", organisation.orderer_domain)
        if orderers
        else ("peerOrganizations", organisation.domain)
    )
    return plan.state / _FOLDER / kind / domain


def node_folder(plan: Plan, node: Node) -> Path:
    """Where a node's `msp/` and `tls/` lie."""
    organisation = plan.organisation(node.organisation)
    folder = organisation_folder(plan, organisation, orderers=not node.is_peer)
    kind = "peers" if node.is_peer else "orderers"
    return folder / kind / f"{node.name}.{folder.name}"


def node_tls(plan: Plan, node: Node) -> Tls:
    folder = node_folder(plan, node) / "tls"
    return Tls(folder / "server.crt", folder / "server.key", folder / "ca.crt")


def admin_msp(plan: Plan, organisation: Organisation, *, orderers: bool = False) -> Path:
    """The MSP folder of the organisation's administrator."""
    folder = organisation_folder(plan, organisation, orderers=orderers)
    return folder / "users" / f"{ADMIN}@{folder.name}" / "msp"


def admin_tls(plan: Plan, organisation: Organisation) -> Tls:
    """What the administrator of an organisation's orderers shows them."""
    folder = organisation_folder(plan, organisation, orderers=True)
    tls = folder / "users" / f"{ADMIN}@{folder.name}" / "tls"
    return Tls(tls / "client.crt", tls / "client.key", tls / "ca.crt")


def identity(plan: Plan, organisation: Organisation, name: str, *, valid: timedelta | None = None) -> Identity:
    """The identity of a service, certified by the organisation's CA the first time it is asked for.

    Its files stand alone in `members/<organisation>/<name>`, so that a process is given one service's key and no other's.

    Args:
        name: its common name, by which contracts know the caller.
        valid: how long from now; negative for a certificate that has expired (tests). A year where not given.
    """
    folder = members_folder(plan, organisation) / (name if valid is None else f"{name}-short")
    found = Identity(organisation.msp, folder / f"{name}.pem", folder / f"{name}.key")
    if valid is not None or not found.certificate.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        write_key(found.key, key)
        ca = organisation_folder(plan, organisation) / "ca"
        certificate = issue(ca, _subject(name, "client"), key, valid=valid or timedelta(days=_IDENTITY_DAYS))
        found.certificate.write_bytes(certificate)
    return found


def members_folder(plan: Plan, organisation: Organisation) -> Path:
    """Where the identities of the organisation's services lie, each in a folder of its own."""
    return plan.state / "members" / organisation.name


def chaincode_tls(plan: Plan, organisation: Organisation) -> tuple[Tls, Tls]:
    """Both ends of the TLS between an organisation's peers and its chaincode: the server's files, and the peer's.

    Certified by the organisation's TLS CA the first time they are asked for.
    """
    ca = organisation_folder(plan, organisation) / "tlsca"
    return _tls_files(plan, organisation, ca, "chaincode"), _tls_files(plan, organisation, ca, "chaincode-caller")


def _tls_files(plan: Plan, organisation: Organisation, ca: Path, name: str) -> Tls:
    folder = plan.state / "chaincode-tls" / organisation.name
    files = Tls(folder / f"{name}.pem", folder / f"{name}.key", next(ca.glob("*.pem")))
    if not files.certificate.exists():
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        write_key(files.key, key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}.{organisation.domain}")])
        valid = timedelta(days=_IDENTITY_DAYS)
        files.certificate.write_bytes(issue(ca, subject, key, valid=valid, extensions=tls_extensions()))
    return files


def tls_extensions(names: x509.SubjectAlternativeName | None = None) -> list[x509.ExtensionType]:
    """What makes a certificate one for TLS on loopback, for either end."""
    loopback = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    )
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return [names or loopback, uses]


def issue(
    ca: Path,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    valid: timedelta,
    extensions: list[x509.ExtensionType] | None = None,
) -> bytes:
    """A certificate (PEM) for this key by the CA in the folder `ca`, valid from now, or ended `-valid` ago."""
    authority = x509.load_pem_x509_certificate(next(ca.glob("*.pem")).read_bytes())
    signer = load_key(ca / "priv_sk")
    now = datetime.now(UTC)
    start = now - _SLACK + min(valid, timedelta()) * 2
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(start, authority.not_valid_before_utc))
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(_authority_key(authority), critical=False)
    )
    for extension in extensions or []:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no ECDSA key")
    return key


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes a private key that only its owner may read."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)


def _subject(name: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def _authority_key(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _cryptogen(plan: Plan, binaries: Binaries, act: str, document: dict[str, object]) -> None:
    config = plan.state / "cryptogen.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    target = "output" if act == "generate" else "input"
    binaries.call("cryptogen", [act, f"--config={config}", f"--{target}={plan.state / _FOLDER}"])


def _document(plan: Plan, organisations: tuple[Organisation, ...]) -> dict[str, object]:
    """The configuration of cryptogen."""
    peers = [_members(one.name.capitalize(), one.domain, _of(plan.peers, one)) for one in organisations]
    runners = [one for one in organisations if _of(plan.orderers, one)]
    orderers = [
        _members(f"{one.name.capitalize()}Orderers", one.orderer_domain, _of(plan.orderers, one)) for one in runners
    ]
    return {"OrdererOrgs": orderers, "PeerOrgs": peers}


def _of(nodes: tuple[Node, ...], organisation: Organisation) -> list[Node]:
    return [node for node in nodes if node.organisation == organisation.name]


def _members(name: str, domain: str, nodes: list[Node]) -> dict[str, object]:
    return {
        "Name": name,
        "Domain": domain,
        "EnableNodeOUs": True,
        "Specs": [
            {"Hostname": node.name, "SANS": list(dict.fromkeys([*_SANS, node.host, *node.aliases]))} for node in nodes
        ],
        "Users": {"Count": 0},
    }
