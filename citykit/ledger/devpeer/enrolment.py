"""What the peer makes at its first start and keeps: authorities, identities, TLS material, and the profile others connect with.

profile.json                            where everything is (`Profile.document`)
organisations/<msp>/ca.pem              authority of an organisation; ca.key beside it
organisations/<msp>/<name>/cert.pem     an identity; key.pem beside it
tls/ca.pem                              authority of all TLS; ca.key beside it
tls/<name>/cert.pem                     TLS material of the peer, of each chaincode and of each client; key.pem beside it
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from citykit.errors import FailedPrecondition
from citykit.ledger.devpeer.certificates import (
    Authority,
    Issued,
    PrivateKey,
    Subject,
    issue,
    new_key,
    open_authority,
    write_private,
)
from citykit.ledger.devpeer.specification import KIND, NOTE, ORDERER, Client, Specification

PEER = "peer"
AUTHORITY_DAYS = 3_650
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Enrolment:
    """Everything of `folder`, loaded."""

    folder: Path
    authorities: dict[str, Authority]
    peers: dict[str, Issued]
    orderer: Issued
    tls: Authority
    tls_peer: Issued

    @property
    def roots(self) -> dict[str, x509.Certificate]:
        return {name: one.certificate for name, one in self.authorities.items()}


def enrol(folder: Path, specification: Specification, now: datetime.datetime) -> Enrolment:
    """Opens `folder`, making what is missing; what is there already stays as it is.

    Raises:
        FailedPrecondition: a certificate there has expired.
    """
    days = specification.certificate_days
    names = (*specification.organisations, ORDERER)
    authorities = {n: open_authority(folder / "organisations" / n, n, now, AUTHORITY_DAYS) for n in names}
    tls = open_authority(folder / "tls", "tls", now, AUTHORITY_DAYS)
    peers = {
        n: _kept(folder / "organisations" / n / PEER, authorities[n], Subject(f"{PEER}.{n}", n, "peer"), now, days)
        for n in specification.organisations
    }
    orderer_subject = Subject(f"orderer.{ORDERER}", ORDERER, "orderer")
    orderer = _kept(folder / "organisations" / ORDERER / "orderer", authorities[ORDERER], orderer_subject, now, days)
    hosts = tuple(dict.fromkeys((*_LOOPBACK, specification.host, *specification.hosts)))
    for client in specification.clients:
        enrol_client(folder, authorities[client.msp_id], tls, client, now, days)
    for chaincode in specification.chaincodes:
        _kept(
            folder / "tls" / f"chaincode-{chaincode.name}", tls, Subject(chaincode.name, "tls", hosts=hosts), now, days
        )
    tls_peer = _kept(folder / "tls" / PEER, tls, Subject(PEER, "tls", hosts=hosts), now, days)
    return Enrolment(folder, authorities, peers, orderer, tls, tls_peer)


def enrol_client(
    folder: Path, authority: Authority, tls: Authority, client: Client, now: datetime.datetime, days: float
) -> None:
    """The identity and TLS material of a client."""
    subject = Subject(client.name, client.msp_id, client.role, attributes=client.attributes)
    own = folder / "organisations" / client.msp_id / "members" / client.name
    _kept(own, authority, subject, now, days, new_key(client.key))
    _kept(folder / "tls" / f"{client.msp_id}-{client.name}", tls, Subject(client.name, "tls"), now, days)


def profile(enrolment: Enrolment, specification: Specification, port: int) -> dict[str, Any]:
    """What a client needs to connect; every path is absolute."""
    folder = enrolment.folder.resolve()
    return {
        "kind": KIND,
        "note": NOTE,
        "channel": specification.channel,
        "gateway": {
            "address": f"{specification.host}:{port}",
            "server_name": specification.host,
            "tls_ca": str(folder / "tls" / "ca.pem"),
            "mutual_tls": specification.mutual_tls,
            "msp_id": specification.organisations[0],
        },
        "orderer": {"msp_id": ORDERER, "ca": str(folder / "organisations" / ORDERER / "ca.pem")},
        "organisations": {name: _organisation(folder, specification, name) for name in specification.organisations},
        "chaincodes": {one.name: _chaincode(folder, specification, one.name) for one in specification.chaincodes},
    }


def write_profile(folder: Path, document: dict[str, Any]) -> Path:
    """Writes profile.json, whole or not at all."""
    path = folder / "profile.json"
    unfinished = folder / "profile.json.part"
    unfinished.write_text(json.dumps(document, indent=2) + "\n")
    return unfinished.replace(path)


def _organisation(folder: Path, specification: Specification, name: str) -> dict[str, Any]:
    own = folder / "organisations" / name
    return {
        "ca": str(own / "ca.pem"),
        "peer_certificate": str(own / f"{PEER}.pem"),
        "members": str(own / "members"),
        "identities": {one.name: _identity(folder, one) for one in specification.clients if one.msp_id == name},
    }


def _identity(folder: Path, client: Client) -> dict[str, Any]:
    own = folder / "organisations" / client.msp_id / "members"
    return {
        "certificate": str(own / f"{client.name}.pem"),
        "key": str(own / f"{client.name}.key"),
        "tls_certificate": str(folder / "tls" / f"{client.msp_id}-{client.name}.pem"),
        "tls_key": str(folder / "tls" / f"{client.msp_id}-{client.name}.key"),
        "attributes": dict(client.attributes),
    }


def _chaincode(folder: Path, specification: Specification, name: str) -> dict[str, Any]:
    one = next(chaincode for chaincode in specification.chaincodes if chaincode.name == name)
    return {
        "address": one.address,
        "chaincode_id": one.package_id or name,
        "policy": one.policy or "majority of organisations",
        "tls": one.tls,
        "certificate": str(folder / "tls" / f"chaincode-{name}.pem"),
        "key": str(folder / "tls" / f"chaincode-{name}.key"),
        "client_ca": str(folder / "tls" / "ca.pem"),
    }


def _kept(
    path: Path,
    authority: Authority,
    subject: Subject,
    now: datetime.datetime,
    days: float,
    own: PrivateKey | None = None,
) -> Issued:
    certificate, key = path.with_name(f"{path.name}.pem"), path.with_name(f"{path.name}.key")
    if not certificate.exists() or not key.exists():
        issued = issue(authority, subject, now, days, own)
        write_private(key, issued.key)
        certificate.write_bytes(issued.certificate)
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    if ends <= now:
        raise FailedPrecondition(f"{certificate} ended on {ends:%Y-%m-%d}; delete it to have it issued again")
    return Issued(certificate.read_bytes(), key.read_bytes())
