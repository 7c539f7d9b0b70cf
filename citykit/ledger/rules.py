"""What every ledger refuses of a contract's keys, values and ranges, in the same words; called by the embedded ledger and the chaincode runner."""

from __future__ import annotations

from citykit.canonical import encode
from citykit.ledger.contract import Json, Refusal
from citykit.ledger.port import RANGE_MAX, VALUE_MAX_BYTES

RESERVED = "~request/"
"""Keys under it are request marks (`citykit.ledger.chaincode.convention`)."""
_KEY_SHOWN = 80


def fits(key: str) -> bool:
    """Whether every ledger takes the key: Unicode text, not empty, not starting with NUL or the reserved prefix."""
    if not key or key.startswith(("\x00", RESERVED)):
        return False
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_key(key: str) -> str:
    """The key, if it `fits`.

    Raises:
        Refusal: it does not.
    """
    if not fits(key):
        raise Refusal(
            "bad-key", f"{key[:_KEY_SHOWN]!a} is no key: Unicode text, not empty, not starting with NUL or {RESERVED}"
        )
    return key


def checked_value(key: str, value: Json) -> bytes:
    """The canonical bytes of a value to store.

    Raises:
        Refusal: None, or too large.
        CanonicalError: no canonical form.
    """
    if value is None:
        raise Refusal("bad-value", f"{key}: None cannot be stored; delete the key instead")
    data = encode(value)
    if len(data) > VALUE_MAX_BYTES:
        raise Refusal("value-too-large", f"{key}: a value is at most {VALUE_MAX_BYTES} bytes; store its hash instead")
    return data


def checked_limit(limit: int) -> int:
    """The limit of a range.

    Raises:
        Refusal: not 1 to 1,000.
    """
    if not 1 <= limit <= RANGE_MAX:
        raise Refusal("bad-limit", f"a range reads 1 to {RANGE_MAX} entries at once; page through the rest")
    return limit
