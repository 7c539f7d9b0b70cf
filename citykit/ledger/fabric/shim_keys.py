"""Simple and composite keys, and the ranges over them, as every Fabric shim makes them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from citykit.ledger.fabric.shim_errors import BadKey

_SEPARATOR = "\x00"
_NAMESPACE = "\x00"
_LAST = "\U0010ffff"
_FIRST_SIMPLE = "\x01"


def simple_key(key: str) -> str:
    """The key, if it can hold a value.

    Raises:
        BadKey: empty, or no Unicode text. Composite keys are taken.
    """
    if not key:
        raise BadKey("a key is not empty")
    return _text(key)


def composite_key(object_type: str, attributes: Sequence[str] = ()) -> str:
    """A key of parts that sorts by them; outside every range over simple keys.

    Raises:
        BadKey: a part with U+0000 or U+10FFFF, or no Unicode text; no object type.
    """
    if not object_type:
        raise BadKey("a composite key needs an object type")
    return _NAMESPACE + "".join(_part(part) + _SEPARATOR for part in (object_type, *attributes))


def split_composite_key(key: str) -> tuple[str, tuple[str, ...]]:
    """(object type, attributes) of a composite key.

    Raises:
        BadKey: not made by `composite_key`.
    """
    if len(key) < 3 or key[0] != _NAMESPACE or key[-1] != _SEPARATOR:  # noqa: PLR2004 - namespace, type, separator
        raise BadKey("not a composite key")
    object_type, *attributes = key[1:-1].split(_SEPARATOR)
    return object_type, tuple(attributes)


def partial_range(object_type: str, attributes: Sequence[str] = ()) -> tuple[str, str]:
    """The range [start, end) of all composite keys that begin with these parts and have more."""
    start = composite_key(object_type, attributes)
    return start, start + _LAST


def simple_range(start: str, end: str) -> tuple[str, str]:
    """The range [start, end) over simple keys; an empty bound is open.

    Raises:
        BadKey: a bound inside the composite keys.
    """
    if start.startswith(_NAMESPACE) or end.startswith(_NAMESPACE):
        raise BadKey("a range over simple keys does not begin or end with U+0000; use by_partial_key")
    return _text(start) or _FIRST_SIMPLE, _text(end)


def _part(part: str) -> str:
    if _SEPARATOR in part or _LAST in part:
        raise BadKey("a part of a composite key holds neither U+0000 nor U+10FFFF")
    return _text(part)


def _text(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise BadKey("a key is Unicode text") from None
    return key
