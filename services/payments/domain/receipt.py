"""Receipts: the document city.receipt.v1, a new version for each change (docs/PROOFS.md, "Payments")."""

from __future__ import annotations

from typing import Any

from services.payments.domain.payment import Change, Payment


def receipt(payment: Payment, change: Change, before: dict[str, Any] | None, time: str) -> dict[str, Any]:
    """The version after a change; `before` is the version before it, `payment` the value after it."""
    changes = [] if before is None else list(before["changes"])
    added = {"change": change.change, "amount_minor": change.amount_minor, "time": time, "reason": change.reason}
    return {
        "format": "city.receipt.v1",
        "payment": payment.id,
        "version": payment.version,
        "payee": payment.payee,
        "reference": payment.reference,
        "state": payment.state,
        "currency": payment.currency,
        "authorised_minor": payment.authorised_minor,
        "captured_minor": payment.captured_minor,
        "refunded_minor": payment.refunded_minor,
        "changes": [*changes, added],
        "time": time,
    }
