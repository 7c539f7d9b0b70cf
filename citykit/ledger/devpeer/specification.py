"""What a development peer is told: channel, organisations, chaincodes, limits. Built in code by tests, or read from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from citykit.ledger.devpeer.policy import Rule, majority, parse

NOTE = "not Fabric, one operator: a development peer endorses for every organisation it was given and orders alone"
KIND = "development-peer"
ORDERER = "OrdererMSP"
KEYS = ("p256", "ed25519")


@dataclass(frozen=True)
class Collection:
    """Private data of some organisations.

    Attributes:
        members: MSP ids that keep it.
        member_only_read: only clients of a member may read it; `member_only_write` likewise.
    """

    name: str
    members: tuple[str, ...]
    member_only_read: bool = True
    member_only_write: bool = True


@dataclass(frozen=True)
class Chaincode:
    """A chaincode on the channel, served as a service at `address` (host:port).

    Attributes:
        package_id: what it registers as; empty: its name.
        policy: Fabric's expression; empty: peers of more than half of the organisations.
        tls: whether its server speaks TLS. Its certificate is checked against `tls_ca` (PEM file; empty: the peer's own
            TLS authority) and the peer shows its own.
    """

    name: str
    address: str
    version: str = "1.0"
    package_id: str = ""
    policy: str = ""
    collections: tuple[Collection, ...] = ()
    tls: bool = True
    tls_ca: str = ""

    def collection(self, name: str) -> Collection | None:
        return next((one for one in self.collections if one.name == name), None)

    def members_of(self, name: str) -> tuple[str, ...]:
        """Who keeps a collection; nobody where there is none of that name."""
        found = self.collection(name)
        return found.members if found else ()

    def rule(self, organisations: tuple[str, ...]) -> Rule:
        return parse(self.policy) if self.policy else majority(organisations)


@dataclass(frozen=True)
class Client:
    """An identity to issue at the first start.

    Attributes:
        attributes: for attribute-based access; the service's name stands in `city.service`.
        key: p256 (ECDSA) or ed25519.
    """

    name: str
    msp_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    role: str = "client"
    key: str = "p256"


@dataclass(frozen=True)
class Specification:
    """A development peer.

    Attributes:
        organisations: MSP ids it endorses for; the first is the gateway's own.
        host, port: where it serves; port 0 takes a free one at the first start.
        mutual_tls: clients must show a certificate of the peer's TLS authority.
        hosts: further names and addresses in its server certificates.
        block_max, block_wait_ms: a block is cut at so many transactions or after so long.
        pending_max: transactions that may wait for a block; more are refused.
        calls_max: calls and streams served at once; more are refused.
        execute_s: how long a chaincode may run.
        certificate_days: life of what it issues.
    """

    channel: str = "city"
    organisations: tuple[str, ...] = ("CityMSP",)
    chaincodes: tuple[Chaincode, ...] = ()
    clients: tuple[Client, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    mutual_tls: bool = True
    hosts: tuple[str, ...] = ()
    block_max: int = 500
    block_wait_ms: int = 20
    pending_max: int = 10_000
    calls_max: int = 5_000
    execute_s: float = 30.0
    connect_s: float = 5.0
    certificate_days: int = 365
    batches: bool = True
    """Whether it offers chaincodes the 3.1 batches."""

    def __post_init__(self) -> None:
        names = [one.name for one in self.chaincodes]
        if not self.organisations or len(set(self.organisations)) != len(self.organisations):
            raise InvalidArgument("organisations: one or more different MSP ids", field="organisations")
        if len(set(names)) != len(names) or "qscc" in names:
            raise InvalidArgument("chaincodes: different names, none of them qscc", field="chaincodes")
        unknown = {m for c in self.chaincodes for one in c.collections for m in one.members} - set(self.organisations)
        if unknown:
            raise InvalidArgument(f"collections: {sorted(unknown)[0]} is not among the organisations", field="members")
        strange = [one for one in self.clients if one.msp_id not in self.organisations or one.key not in KEYS]
        if strange:
            raise InvalidArgument(
                f"client {strange[0].name}: of one of the organisations, with a key {' or '.join(KEYS)}",
                field="clients",
            )
        for chaincode in self.chaincodes:
            chaincode.rule(self.organisations)


def read_specification(path: Path) -> Specification:
    """The specification in a JSON file, its fields named as above.

    Raises:
        InvalidArgument: an unknown field, or a value that does not fit.
    """
    try:
        document = json.loads(path.read_bytes())
        chaincodes = tuple(
            _made(Chaincode, {**one, "collections": _collections(one.get("collections", ()))})
            for one in document.pop("chaincodes", ())
        )
        clients = tuple(_made(Client, one) for one in document.pop("clients", ()))
        made: Specification = _made(Specification, {**document, "chaincodes": chaincodes, "clients": clients})
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{path} is no specification of a development peer: {error}") from None
    return made


def _collections(documents: Any) -> tuple[Collection, ...]:
    return tuple(_made(Collection, one) for one in documents)


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    known = {one.name for one in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidArgument(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
