"""A contract that does what it is told, for comparing ledgers."""

from __future__ import annotations

from typing import Any, ClassVar

from citykit.ledger.contract import Json, Refusal, Transaction, evaluates, submits


class Probe:
    """Every operation of a transaction, as steps of data."""

    name: ClassVar[str] = "probe"

    @submits
    def act(self, tx: Transaction, *, steps: list[dict[str, Any]]) -> list[Json]:
        return [_step(tx, step) for step in steps]

    @submits(by=("auditor",))
    def audit(self, tx: Transaction, *, note: str | None = None) -> list[Json]:
        return [tx.submitter, tx.time, tx.id, note]

    @submits
    def before(self, tx: Transaction, *, end: int) -> int:
        """Only before a time; reads nothing."""
        if tx.time >= end:
            raise Refusal("too-late", "the time is over")
        return tx.time

    @evaluates
    def look(self, tx: Transaction, *, steps: list[dict[str, Any]]) -> list[Json]:
        return [_step(tx, step) for step in steps]

    @submits
    def odd(self, tx: Transaction, *, how: str) -> Json:
        tx.put("odd", 1)
        if how == "refuse":
            raise Refusal("not-now", "ask again")
        if how == "put":
            tx.put("odd", frozenset())
        if how == "emit":
            tx.emit("odd", {"x": frozenset()})
            return 1
        return frozenset()


def _step(tx: Transaction, step: dict[str, Any]) -> Json:
    match step["do"]:
        case "range":
            return [list(entry) for entry in tx.range(step["key"], limit=step["limit"])]
        case "put":
            return tx.put(step["key"], step["value"])
        case "emit":
            return tx.emit(step["key"], {"value": step["value"]})
        case "delete":
            return tx.delete(step["key"])
        case _:
            return _get(tx, step["key"])


def _get(tx: Transaction, key: str) -> Json:
    """As a careless contract does it: it takes whatever happens for an answer."""
    try:
        return tx.get(key)
    except Exception:
        return "caught"


class Misnamed(Probe):
    """A name no chaincode may have."""

    name = "no chaincode name"


CONTRACTS = (Probe(),)
