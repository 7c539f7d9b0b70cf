"""Registrations as the contract takes them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

AT = "2016-10-04T00:00:00Z"


def key(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def entry(device: str, **changes: Any) -> dict[str, Any]:
    return {
        "algorithm": "EdDSA", "device": device, "from_sequence": 1, "from_time": AT, "key": key(device), "voucher": "ab" * 32,
        **changes,
    }  # fmt: skip
