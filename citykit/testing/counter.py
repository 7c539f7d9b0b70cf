"""The contract the ledger suite runs."""

from __future__ import annotations

from typing import ClassVar

from citykit.ledger.contract import Json, Refusal, Transaction, evaluates, submits

INCREASE_MAX = 1_000


class Counter:
    """Counts per key."""

    name: ClassVar[str] = "counter"

    @submits
    def add(self, tx: Transaction, *, key: str, by: int) -> int:
        if not 0 <= by <= INCREASE_MAX:
            raise Refusal("out-of-range", f"by lies between 0 and {INCREASE_MAX}")
        tx.put(key, (tx.get(key) or 0) + by)
        seen = tx.get(key) or 0
        tx.emit("added", {"by": by, "key": key})
        return int(seen)

    @submits(by=("auditor",))
    def clear(self, tx: Transaction, *, key: str) -> None:
        tx.delete(key)

    @submits
    def copy_all(self, tx: Transaction, *, prefix: str, to: str) -> int:
        found = tx.range(prefix, limit=100)
        tx.put(to, [value for _, value in found])
        return len(found)

    @submits
    def store(self, tx: Transaction, *, key: str, value: str, note: str | None = None) -> None:
        tx.put(key, {"note": note, "value": value})

    @evaluates
    def value(self, tx: Transaction, *, key: str) -> Json:
        return tx.get(key)
