"""The card of a model: what it learnt from, how it did, and the hash of what it learnt. Checked by the contract, made by training."""

from __future__ import annotations

from typing import Any

FORMAT = "city.model.v1"
_FIELDS = [
    "coverage_micro",
    "data",
    "format",
    "group",
    "mase_micro",
    "model",
    "origins",
    "parameters",
    "series",
    "trained_at",
    "version",
]
_HASH_HEX = 64
_ID_MAX = 128


def card_fault(card: dict[str, Any]) -> str:
    """What is wrong with a card; empty if nothing is."""
    if sorted(card) != _FIELDS or card["format"] != FORMAT:
        return f"a card is of format {FORMAT} and has the fields {', '.join(_FIELDS)}"
    if not isinstance(card["model"], str) or not 0 < len(card["model"]) <= _ID_MAX:
        return f"a model's id has 1 to {_ID_MAX} characters"
    if not isinstance(card["data"], dict) or sorted(card["data"]) != ["log", "root", "size"]:
        return "data names log, size and root"
    if not _is_hash(card["parameters"]):
        return "parameters is the hex of the 32-byte hash of what was learnt"
    return ""


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _HASH_HEX and all(char in "0123456789abcdef" for char in value)
