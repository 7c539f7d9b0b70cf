"""What of the notary's rules runs on the ledger: a log's head only ever grows, and every head is a prefix of the next."""

from __future__ import annotations

from typing import Any, ClassVar

from citykit.ledger.contract import Json, Refusal, Transaction, evaluates, submits
from citykit.merkle import EMPTY_ROOT, ProofError, check_consistency

HEADS_MAX = 1_000
_ROOT_BYTES = 32


class Anchors:
    """Heads of logs: origin -> {"size", "root", "transaction"}."""

    name: ClassVar[str] = "anchors"

    @submits(by=("notary",))
    def record(self, tx: Transaction, *, heads: list[dict[str, Any]]) -> int:
        """Records heads, all or none. Each is {"origin", "size", "root": hex, "proof": [hex]}; the proof shows consistency
        with the head recorded before (RFC 6962, 2.1.2)."""
        if not 1 <= len(heads) <= HEADS_MAX:
            raise Refusal("bad-heads", f"one transaction records 1 to {HEADS_MAX} heads")
        for head in heads:
            _require_form(head)
            _require_growth(tx.get(head["origin"]), head)
            tx.put(head["origin"], {"root": head["root"], "size": head["size"], "transaction": tx.id})
        tx.emit("anchored", {"heads": [{key: head[key] for key in ("origin", "root", "size")} for head in heads]})
        return len(heads)

    @evaluates
    def head(self, tx: Transaction, *, origin: str) -> Json:
        """The recorded head of a log, or None."""
        return tx.get(origin)


def _require_form(head: Json) -> None:
    if not isinstance(head, dict) or sorted(head) != ["origin", "proof", "root", "size"]:
        raise Refusal("bad-heads", "a head has exactly origin, size, root and proof")
    size, proof = head["size"], head["proof"]
    if not isinstance(head["origin"], str) or not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise Refusal("bad-heads", "a head has an origin and a size of at least 1")
    if not isinstance(proof, list) or _hash(head["root"]) is None or any(_hash(item) is None for item in proof):
        raise Refusal("bad-heads", "root and proof are hashes in lower-case hex")


def _require_growth(before: Json, head: Json) -> None:
    size, root = (before["size"], before["root"]) if before else (0, EMPTY_ROOT.hex())
    if head["size"] < size:
        raise Refusal(
            "rollback", f"{head['origin']} is recorded with {size} entries; it cannot go back to {head['size']}"
        )
    if head["size"] == size and head["root"] != root:
        raise Refusal("fork", f"{head['origin']} has another root for its {size} entries: the log was forked")
    try:
        proof = [bytes.fromhex(item) for item in head["proof"]]
        check_consistency(size, bytes.fromhex(root), head["size"], bytes.fromhex(head["root"]), proof)
    except ProofError as error:
        raise Refusal("fork", f"{head['origin']}: the new head does not continue the recorded one ({error})") from None


def _hash(text: Json) -> bytes | None:
    if not isinstance(text, str) or len(text) != 2 * _ROOT_BYTES or text != text.lower():
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


CONTRACTS = (Anchors(),)
