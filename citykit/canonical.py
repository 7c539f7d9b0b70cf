"""Canonical JSON: the one byte form of documents that are hashed or signed (a subset of RFC 8785, docs/PROOFS.md).

Objects with ASCII keys, arrays, strings, integers up to 2^53-1, booleans and null. No floats.
"""

from __future__ import annotations

import json
from typing import Any

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 32
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class CanonicalError(ValueError):
    """The value or the bytes have no canonical form; the message says where."""


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`.

    Raises:
        CanonicalError: a float, an integer out of range, a key that is not ASCII text, nesting over 32.
    """
    try:
        _check(value, 0)
    except _Unfit as unfit:
        raise CanonicalError(f"${''.join(reversed(unfit.steps))} {unfit}") from None
    return _ENCODER.encode(value).encode()


def decode(data: bytes) -> Any:
    """The value of canonical bytes.

    Raises:
        CanonicalError: `data` is not exactly what `encode` makes of its value.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CanonicalError(f"not canonical JSON: {error}") from None
    if encode(value) != data:
        raise CanonicalError(
            "not canonical JSON: sort the keys, drop white space, write each value in its shortest form"
        )
    return value


def tagged(what: str, value: Any) -> bytes:
    """`city.<what>.v1`, a newline and the canonical bytes: what is signed or hashed."""
    return f"city.{what}.v1\n".encode() + encode(value)


def _refuse_number(text: str) -> Any:
    raise CanonicalError(f"{text} is no integer; write amounts in the smallest unit")


class _Unfit(Exception):
    """A value without a canonical form; `steps` leads to it, the last step first, and is made only where it is needed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.steps: list[str] = []

    def at(self, step: str) -> _Unfit:
        self.steps.append(step)
        return self


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise _Unfit(f"is nested deeper than {DEPTH_MAX}")
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise _Unfit("is beyond 2^53-1")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            try:
                _check(item, depth + 1)
            except _Unfit as unfit:
                raise unfit.at(f"[{number}]") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise _Unfit("has a key that is not ASCII text")
            try:
                _check(item, depth + 1)
            except _Unfit as unfit:
                raise unfit.at(f".{key}") from None
    else:
        raise _Unfit(f"is a {type(value).__name__}, which has no canonical form; use integers and text")


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number)
