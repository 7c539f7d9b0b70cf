"""Receipts of payments: what was authorised, taken, let go and given back (docs/PROOFS.md, "Payments").

Called by the step `receipt` of events and by the step `receipts` of parking sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier.canonical import Failure, fields
from verifier.found import Check, Found
from verifier.times import seconds_of

RECEIPT_FORMAT = "city.receipt.v1"
RECEIPTS_LOG = "payments.events"
_RECEIPT = {
    "format": str, "payment": str, "version": int, "payee": str, "reference": str, "state": str, "currency": str,
    "authorised_minor": int, "captured_minor": int, "refunded_minor": int, "changes": list, "time": str,
}  # fmt: skip
_AFTER = {
    "authorised": ("",),
    "declined": ("",),
    "captured": ("authorised",),
    "voided": ("authorised",),
    "refunded": ("captured",),
}
"""The states of a payment each change may follow; "" is none yet."""


def require_receipt(document: Any, where: str) -> None:
    """Checks a receipt by itself: its form, its history, its sums and its state.

    Raises:
        Failure: with the numbers.
    """
    fields(document, where, **_RECEIPT)
    if document["format"] != RECEIPT_FORMAT:
        raise Failure(f"{where} is of format {document['format']}, not {RECEIPT_FORMAT}")
    state = _state(document["changes"], where)
    if document["state"] != state:
        raise Failure(f"{where} says the payment is {document['state']}; its changes make it {state}")
    if document["version"] != len(document["changes"]):
        raise Failure(
            f"{where} is version {document['version']} and holds {len(document['changes'])} changes; version n holds n"
        )
    _require_sums(document, where)
    _require_times(document, where)


def _state(changes: Sequence[Any], where: str) -> str:
    """The payment's state after its changes, each allowed after the one before."""
    state = ""
    for number, item in enumerate(changes):
        fields(item, f"{where}.changes[{number}]", change=str, amount_minor=int, time=str, reason=str)
        change = item["change"]
        if state not in _AFTER.get(change, ()):
            raise Failure(f"{where}.changes[{number}]: {change!r} cannot follow {state or 'nothing'}")
        if item["amount_minor"] < 0:
            raise Failure(f"{where}.changes[{number}] is of a negative amount ({item['amount_minor']})")
        state = state if change == "refunded" else change
    if not state:
        raise Failure(f"{where} holds no change")
    return state


def _require_sums(document: Any, where: str) -> None:
    sums = {
        name: sum(item["amount_minor"] for item in document["changes"] if item["change"] == name)
        for name in ("authorised", "captured", "refunded")
    }
    for name, right in sums.items():
        if document[f"{name}_minor"] != right:
            raise Failure(f"{where} says {document[f'{name}_minor']} was {name}; its changes make {right}")
    if not sums["refunded"] <= sums["captured"] <= sums["authorised"]:
        raise Failure(
            f"{where}: {sums['authorised']} authorised, {sums['captured']} captured, {sums['refunded']} refunded; "
            "no more can be captured than was authorised, nor refunded than captured"
        )


def _require_times(document: Any, where: str) -> None:
    times = [seconds_of(item["time"], f"{where}.changes[{n}].time") for n, item in enumerate(document["changes"])]
    if times != sorted(times):
        raise Failure(f"{where}: its changes are not in order of time")
    if document["time"] != document["changes"][-1]["time"]:
        raise Failure(f"{where} is dated {document['time']}, its last change {document['changes'][-1]['time']}")


def words_of(document: Any) -> str:
    """A receipt in a line."""
    return (
        f"payment {document['payment']} to {document['payee']} for {document['reference']}: {document['state']}, {document['currency']} "
        f"{document['captured_minor']} captured of {document['authorised_minor']} authorised, {document['refunded_minor']} refunded, in minor units"
    )


def _receipt(found: Found) -> str:
    document = found.bundle["event"]
    found.log(RECEIPTS_LOG)
    require_receipt(document, "the receipt")
    found.report.notes.append(
        f"this is version {document['version']} of the receipt; a later change of the payment has a later version"
    )
    return words_of(document)


RECEIPT_STEP: tuple[str, Check] = ("receipt", _receipt)
