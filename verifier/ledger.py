"""Evidence of a ledger transaction: endorsed, valid, and in a block the orderer signed (docs/PROOFS.md, "Evidence")."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from verifier.canonical import Failure, encode, fields, unbase64, unhex
from verifier.merkle import batch_root, leaf
from verifier.signatures import ed25519_holds
from verifier.trust import Trust

_TRANSACTION = {
    "args": dict, "channel": str, "contract": str, "events": list, "function": str, "id": str, "reads": list,
    "result": object, "submitter": str, "time": str, "writes": list,
}  # fmt: skip
_HASH = 32


def transaction_of(evidence: Any, trust: Trust, where: str) -> Any:
    """The transaction, once everything that proves it holds.

    Raises:
        Failure: naming what does not.
    """
    fields(evidence, where, type=str, envelope=dict, index=int, path=dict, header=dict, signature=dict)
    if evidence["type"] != "embedded.v1":
        raise Failure(f"{where}: evidence of type {evidence['type']} cannot be checked")
    envelope = fields(evidence["envelope"], f"{where}.envelope", transaction=dict, endorsements=list, code=str)
    transaction = fields(envelope["transaction"], f"{where}.transaction", **_TRANSACTION)
    if envelope["code"] != "VALID":
        raise Failure(f"{where}: the transaction was committed as {envelope['code']}, not as valid")
    if transaction["channel"] != trust.channel:
        raise Failure(f"{where}: the transaction is of channel {transaction['channel']}")
    require_endorsed(envelope, trust, where)
    require_in_block(evidence, trust, where)
    return transaction


def require_endorsed(envelope: Any, trust: Trust, where: str) -> None:
    """Raises Failure unless enough different trusted organisations endorsed the transaction, and every endorsement holds."""
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


def require_in_block(evidence: Any, trust: Trust, where: str) -> None:
    """Raises Failure unless the envelope is in the block and a trusted orderer signed the block."""
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


def block_hash(header: Any) -> str:
    """Hex hash of a block's header, as the next block names it."""
    return sha256(b"city.block.v1\n" + encode(header)).hexdigest()
