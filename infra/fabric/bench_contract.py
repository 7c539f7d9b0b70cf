"""The contract the bench of the ledger runs; alone in its file, since a contract's file may reach nothing but the ledger."""

from __future__ import annotations

from typing import ClassVar

from citykit.ledger.contract import Transaction, submits


class Bench:
    """Writes one key a call."""

    name: ClassVar[str] = "bench"

    @submits
    def put(self, tx: Transaction, *, key: str, value: str) -> None:
        tx.put(key, value)
