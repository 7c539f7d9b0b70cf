"""What is trusted of a Fabric channel, out of the trust file's part `ledger` of type `fabric.v1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from verifier.canonical import Failure, fields
from verifier.members import Organisation, certificate_of

GENUINE, DEVELOPMENT_PEER = "fabric", "development-peer"
_FIELDS: dict[str, Any] = {
    "type": str, "kind": str, "channel": str, "organisations": list, "orderers": list, "consenters": list, "policy": dict,
    "submitters": list, "note": str,
}  # fmt: skip


@dataclass(frozen=True)
class FabricLedger:
    """A channel.

    Attributes:
        organisations, orderers: MSP id -> its authorities, and the unit of those who endorse, or order.
        submitters: the same of organisations whose members' certificates name the city's services, of any unit.
        consenters: number -> certificate (PEM) of orderers that sign by their number.
        endorsements, attestations: organisations that must have endorsed a transaction, and signed that it was committed as valid.
        signatures: orderers that must have signed a block.
        genuine: False for a development peer.
    """

    channel: str
    organisations: dict[str, Organisation]
    orderers: dict[str, Organisation]
    submitters: dict[str, Organisation]
    consenters: dict[int, bytes]
    endorsements: int
    attestations: int
    signatures: int
    genuine: bool
    note: str

    def said(self) -> str:
        """How many stand behind it."""
        return counted(len(self.organisations), "organisation")

    def notes(self) -> list[str]:
        """What a reader must know, whatever the trust file's own words are."""
        return [] if self.genuine else ["the ledger is a development peer: one operator, not Fabric"]


def counted(number: int, what: str) -> str:
    """`1 organisation`, `2 organisations`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def read_fabric(document: Any) -> FabricLedger:
    """Reads the part. Raises Failure."""
    ledger = fields(document, "trust.ledger", **_FIELDS)
    policy = fields(ledger["policy"], "trust.ledger.policy", endorsements=int, attestations=int, orderers=int)
    if ledger["kind"] not in (GENUINE, DEVELOPMENT_PEER):
        raise Failure(f"a Fabric ledger is of kind {GENUINE} or {DEVELOPMENT_PEER}, not {ledger['kind']}")
    if policy["endorsements"] < 1 or policy["orderers"] < 1 or policy["attestations"] < 0:
        raise Failure("a transaction needs at least one endorsement, and a block one orderer's signature")
    organisations = _organisations(ledger["organisations"])
    return FabricLedger(
        channel=ledger["channel"],
        organisations=organisations,
        orderers=_organisations(ledger["orderers"]),
        submitters={
            name: Organisation(item.roots, item.intermediates, "")
            for name, item in organisations.items()
            if name in ledger["submitters"]
        },
        consenters=dict(_consenter(item) for item in ledger["consenters"]),
        endorsements=policy["endorsements"],
        attestations=policy["attestations"],
        signatures=policy["orderers"],
        genuine=ledger["kind"] == GENUINE,
        note=ledger["note"],
    )


def _organisations(documents: list[Any]) -> dict[str, Organisation]:
    return dict(_organisation(item) for item in documents)


def _organisation(document: Any) -> tuple[str, Organisation]:
    fields(document, "an organisation", msp=str, roots=list, intermediates=list, unit=str)
    roots, intermediates = (
        tuple(certificate_of(_pem(pem), "an organisation") for pem in document[name])
        for name in ("roots", "intermediates")
    )
    return document["msp"], Organisation(roots, intermediates, document["unit"])


def _consenter(document: Any) -> tuple[int, bytes]:
    fields(document, "a consenter", number=int, msp=str, certificate=str)
    certificate_of(_pem(document["certificate"]), "a consenter")
    return document["number"], _pem(document["certificate"])


def _pem(text: Any) -> bytes:
    if not isinstance(text, str):
        raise Failure("a certificate is PEM text")
    return text.encode()
