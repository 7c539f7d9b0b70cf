"""Verifies blocks: chain, data root, orderer's and endorsers' signatures, values behind write hashes. At open and for `city ledger check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from citykit.canonical import CanonicalError, encode, tagged
from citykit.ledger.contract import JsonObject
from citykit.ledger.local.blocks import GENESIS, acknowledged_height, block_hash, envelope_leaves, read_blocks, verified
from citykit.ledger.local.keys import public_keys
from citykit.ledger.port import LedgerDamaged
from citykit.merkle import root_of


@dataclass(frozen=True)
class Finding:
    """Something stored that does not verify."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check_ledger(directory: Path) -> list[Finding]:
    """Re-verifies every stored block of a ledger directory; the first damaged record, or none."""
    try:
        keys = public_keys(directory)
        checker = BlockChecker(keys)
        acknowledged = acknowledged_height(directory / "height.json")
        for block in read_blocks(directory):
            checker.check(block)
        if checker.number < acknowledged:
            raise LedgerDamaged(
                f"the ledger ends in block {checker.number}, but {acknowledged} blocks were acknowledged"
            )
    except LedgerDamaged as error:
        return [Finding(str(directory / "blocks"), error.message)]
    return []


class BlockChecker:
    """Checks blocks one after another.

    Args:
        keys: key id -> public key, of endorsers and orderers.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys
        self.previous = GENESIS
        self.number = 0

    def check(self, block: JsonObject) -> None:
        """Checks that `block` is the next one.

        Raises:
            LedgerDamaged: naming block and transaction.
        """
        try:
            fault = next(self._faults(block), None)
        except (KeyError, TypeError, ValueError, CanonicalError) as error:
            fault = f"a field is missing or of a wrong kind ({error!r})"
        if fault:
            raise LedgerDamaged(f"block {self.number} of the ledger is damaged: {fault}")
        self.previous = block_hash(block["header"])
        self.number += 1

    def _faults(self, block: JsonObject) -> Iterator[str]:
        header, envelopes, values = block["header"], block["envelopes"], block["values"]
        if header["number"] != self.number or header["count"] != len(envelopes) or len(values) != len(envelopes):
            yield "its number or its count of transactions is wrong"
        if header["previous"] != self.previous:
            yield "it does not follow the block before"
        if root_of(envelope_leaves(envelopes)).hex() != header["data"]:
            yield "its transactions do not match its data root"
        if not self._signed(block["signature"], tagged("block", header)):
            yield "the orderer's signature does not hold"
        for number, (envelope, written) in enumerate(zip(envelopes, values, strict=True)):
            yield from (f"transaction {number}: {fault}" for fault in self._envelope_faults(envelope, written))

    def _envelope_faults(self, envelope: JsonObject, values: list[Any]) -> Iterator[str]:
        message = tagged("endorsement", envelope["transaction"])
        if not envelope["endorsements"] or not all(self._signed(one, message) for one in envelope["endorsements"]):
            yield "an endorsement does not hold"
        hashes = [hashed for _, hashed in envelope["transaction"]["writes"]]
        if [value_hash(value) for value in values] != hashes:
            yield "a stored value does not match its hash"

    def _signed(self, signature: JsonObject, message: bytes) -> bool:
        key = self._keys.get(signature["key"])
        return key is not None and verified(key, message, signature["signature"])


def value_hash(value: Any) -> str | None:
    """Hex SHA-256 of a value's canonical bytes; None stands for a deletion."""
    return None if value is None else sha256(encode(value)).hexdigest()
