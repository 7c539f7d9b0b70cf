"""Evidence of a transaction on the embedded ledger: `embedded.v1` (docs/PROOFS.md, "Evidence of a ledger transaction")."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from verifier.canonical import Failure, encode, fields, unbase64, unhex
from verifier.merkle import batch_root, leaf
from verifier.signatures import ed25519_holds

_TRANSACTION = {
    "args": dict, "channel": str, "contract": str, "events": list, "function": str, "id": str, "reads": list,
    "result": object, "submitter": str, "time": str, "writes": list,
}  # fmt: skip
_HASH = 32


@dataclass(frozen=True)
class EmbeddedLedger:
    """What is trusted of it.

    Attributes:
        endorsers: key id -> (organisation, key).
        orderers: key id -> key.
        endorsements: organisations that must have endorsed.
    """

    channel: str
    endorsers: dict[str, tuple[str, bytes]]
    orderers: dict[str, bytes]
    endorsements: int
    note: str

    def said(self) -> str:
        """How many stand behind it."""
        return f"{len(self.endorsers)} endorsers"

    def notes(self) -> list[str]:
        return []


def read_embedded(document: Any) -> EmbeddedLedger:
    """Reads the trust file's part `ledger` of type `embedded.v1`. Raises Failure."""
    ledger = fields(
        document, "trust.ledger", type=str, channel=str, endorsers=list, orderers=list, policy=dict, note=str
    )
    policy = fields(ledger["policy"], "trust.ledger.policy", endorsements=int)
    if policy["endorsements"] < 1:
        raise Failure("a transaction needs at least one endorsement")
    endorsers = [fields(item, "an endorser", organisation=str, key=str) for item in ledger["endorsers"]]
    keys = [(item["organisation"], unhex(item["key"], _HASH, "an endorser's key")) for item in endorsers]
    orderers = [
        unhex(fields(item, "an orderer", key=str)["key"], _HASH, "an orderer's key") for item in ledger["orderers"]
    ]
    return EmbeddedLedger(
        channel=ledger["channel"],
        endorsers={key_id(key): (organisation, key) for organisation, key in keys},
        orderers={key_id(key): key for key in orderers},
        endorsements=policy["endorsements"],
        note=ledger["note"],
    )


def key_id(key: bytes) -> str:
    """First 16 hex digits of SHA-256 of the key."""
    return sha256(key).hexdigest()[:16]


def transaction_of(evidence: Any, trust: EmbeddedLedger, where: str) -> Any:
    """The transaction, once everything that proves it holds.

    Raises:
        Failure: naming what does not.
    """
    fields(evidence, where, type=str, envelope=dict, index=int, path=dict, header=dict, signature=dict)
    envelope = fields(evidence["envelope"], f"{where}.envelope", transaction=dict, endorsements=list, code=str)
    transaction = fields(envelope["transaction"], f"{where}.transaction", **_TRANSACTION)
    if envelope["code"] != "VALID":
        raise Failure(f"{where}: the transaction was committed as {envelope['code']}, not as valid")
    if transaction["channel"] != trust.channel:
        raise Failure(f"{where}: the transaction is of channel {transaction['channel']}")
    require_endorsed(evidence, trust, where)
    require_in_block(evidence, trust, where)
    return transaction


def require_endorsed(evidence: Any, trust: EmbeddedLedger, where: str) -> str:
    """Says who endorsed; raises Failure unless enough different trusted organisations did, and every endorsement holds."""
    envelope = evidence["envelope"]
    message = b"city.endorsement.v1\n" + encode(envelope["transaction"])
    organisations: set[str] = set()
    for item in envelope["endorsements"]:
        fields(item, f"{where}: an endorsement", key=str, organisation=str, signature=str)
        known = trust.endorsers.get(item["key"])
        if known is None or known[0] != item["organisation"]:
            raise Failure(f"{where}: an endorsement is by a key that is not trusted ({item['key']})")
        if not ed25519_holds(known[1], message, unbase64(item["signature"], f"{where}: an endorsement")):
            raise Failure(f"{where}: the endorsement of {item['organisation']} does not hold")
        organisations.add(item["organisation"])
    if len(organisations) < trust.endorsements:
        raise Failure(f"{where}: {len(organisations)} organisations endorsed, {trust.endorsements} are needed")
    return f"{len(envelope['endorsements'])} endorsements of transaction {envelope['transaction']['id'][:16]}…"


def require_in_block(evidence: Any, trust: EmbeddedLedger, where: str) -> str:
    """Says which block; raises Failure unless the envelope is in the block and a trusted orderer signed the block."""
    header = fields(
        evidence["header"], f"{where}.header", channel=str, number=int, previous=str, data=str, time=str, count=int
    )
    path = fields(evidence["path"], f"{where}.path", size=int, indexes=list, hashes=list)
    if path["indexes"] != [evidence["index"]] or path["size"] != header["count"] or header["channel"] != trust.channel:
        raise Failure(f"{where}: the place in the block is not told the same twice")
    hashes = [unhex(item, _HASH, f"{where}.path") for item in path["hashes"]]
    root = batch_root({evidence["index"]: leaf(encode(evidence["envelope"]))}, path["size"], hashes, where)
    if root.hex() != header["data"]:
        raise Failure(f"{where}: the transaction is not in block {header['number']}")
    signature = fields(evidence["signature"], f"{where}.signature", key=str, signature=str)
    key = trust.orderers.get(signature["key"])
    message = b"city.block.v1\n" + encode(header)
    if key is None or not ed25519_holds(key, message, unbase64(signature["signature"], f"{where}.signature")):
        raise Failure(f"{where}: no trusted orderer signed block {header['number']}")
    return f"block {header['number']}, signed by the orderer"


def block_hash(header: Any) -> str:
    """Hex hash of a block's header, as the next block names it."""
    return sha256(b"city.block.v1\n" + encode(header)).hexdigest()
