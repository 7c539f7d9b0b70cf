"""Evidence of a ledger transaction, whichever ledger it is: endorsed, in a block that was ordered, valid (docs/PROOFS.md, "Evidence")."""

from __future__ import annotations

from typing import Any

from verifier import embedded, fabric
from verifier.canonical import Failure
from verifier.fabric_ledger import FabricLedger
from verifier.trust import Trust


def transaction_of(evidence: Any, trust: Trust, where: str) -> Any:
    """The transaction (args, contract, function, id, submitter, time among its fields), once everything that proves it holds.

    Raises:
        Failure: naming what does not.
    """
    _require_type(evidence, trust, where)
    if isinstance(trust.ledger, FabricLedger):
        return fabric.transaction_of(evidence, trust.ledger, where)
    return embedded.transaction_of(evidence, trust.ledger, where)


def require_endorsed(evidence: Any, trust: Trust, where: str) -> str:
    """Says who endorsed the transaction. Raises Failure unless enough trusted organisations did."""
    _require_type(evidence, trust, where)
    if isinstance(trust.ledger, FabricLedger):
        return fabric.require_endorsed(evidence, trust.ledger, where)
    return embedded.require_endorsed(evidence, trust.ledger, where)


def require_in_block(evidence: Any, trust: Trust, where: str) -> str:
    """Says which block holds the transaction. Raises Failure unless it is in it, and trusted orderers signed it."""
    _require_type(evidence, trust, where)
    if isinstance(trust.ledger, FabricLedger):
        return fabric.require_in_block(evidence, trust.ledger, where)
    return embedded.require_in_block(evidence, trust.ledger, where)


def _require_type(evidence: Any, trust: Trust, where: str) -> None:
    wanted = "fabric.v1" if isinstance(trust.ledger, FabricLedger) else "embedded.v1"
    given = evidence.get("type") if isinstance(evidence, dict) else None
    if given != wanted:
        raise Failure(
            f"{where}: evidence of type {given} cannot be checked; the trust file is of a ledger of type {wanted}"
        )
