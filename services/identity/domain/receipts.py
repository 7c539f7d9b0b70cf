"""Receipts: what a person agreed to or withdrew, and what an erasure destroyed. Canonical documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def consent_receipt(consent: str, subject: str, purpose: str, recipient: str, city: str, at: str) -> dict[str, Any]:
    """The receipt of a consent; names follow ISO/IEC TS 27560. Its commitment goes to the log, the receipt to the person."""
    return {
        "consent_record_id": consent,
        "event_time": at,
        "event_type": "given",
        "pii_controller": city,
        "pii_principal": subject,
        "purpose": purpose,
        "recipient": recipient,
        "schema": "city.consent-receipt.v1",
    }


def withdrawal_receipt(receipt: dict[str, Any], at: str) -> dict[str, Any]:
    """The receipt of the withdrawal of a consent."""
    return {**receipt, "event_type": "withdrawn", "event_time": at}


def erasure_receipt(audiences: Sequence[str], city: str, at: str) -> dict[str, Any]:
    """What an erasure destroyed, who was told, and what stays. Holds nothing of the person."""
    return {
        "at": at,
        "city": city,
        "destroyed": [
            "login",
            "name",
            "password",
            "consents and their salts",
            "list of accesses",
            "links between services",
        ],
        "kept": ["salted commitments in the logs, which tell nothing without the salts"],
        "schema": "city.erasure-receipt.v1",
        "told": sorted(audiences),
    }
