"""Canonical JSON, read strictly: the bytes must be exactly what the value would be written as."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

DEPTH_MAX = 32
INTEGER_MAX = 2**53 - 1


class Unreadable(Exception):
    """The input is not in a form that can be checked."""


class Failure(Exception):
    """A check failed; the message says what and where."""


def encode(value: Any) -> bytes:
    """The one byte form of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes, what: str) -> Any:
    """The value of canonical bytes.

    Raises:
        Unreadable: anything else.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
        _check(value, 0)
        if encode(value) != data:
            raise Unreadable(f"{what} is not canonical JSON: it was changed or rewritten after it was made")
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} is not canonical JSON: {error}") from None
    return value


def _no_float(text: str) -> Any:
    raise ValueError(f"{text} is no integer")


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError("it is nested too deep")
    if isinstance(value, bool):
        return
    if isinstance(value, int) and abs(value) > INTEGER_MAX:
        raise ValueError("an integer is beyond 2^53-1")
    if isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not key.isascii():
                raise ValueError("a key is not ASCII")
            _check(item, depth + 1)


def fields(value: Any, where: str, **kinds: Any) -> Any:
    """`value`, if it is an object with exactly these fields of these kinds.

    Raises:
        Failure: naming the field.
    """
    if not isinstance(value, dict):
        raise Failure(f"{where} is no object")
    for name, kind in kinds.items():
        if name not in value:
            raise Failure(f"{where} lacks {name}")
        if not _is_a(value[name], kind):
            raise Failure(f"{where}.{name} is not of the right kind")
    unknown = sorted(set(value) - set(kinds))
    if unknown:
        raise Failure(f"{where} has a field that nothing vouches for: {unknown[0]}")
    return value


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return any(_is_a(value, one) for one in kind)
    if kind is object:
        return True
    if kind is None:
        return value is None
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def unhex(text: Any, length: int, where: str) -> bytes:
    """Bytes of lower-case hex of a known length (0: any)."""
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if not isinstance(text, str) or data.hex() != text or (length and len(data) != length):
        raise Failure(f"{where} is not {length or 'any'} bytes in lower-case hex")
    return data


def unbase64(text: Any, where: str) -> bytes:
    """Bytes of base64 in its one form."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except binascii.Error:
        data = b""
    if not isinstance(text, str) or base64.b64encode(data).decode() != text:
        raise Failure(f"{where} is not base64 in its one form")
    return data
