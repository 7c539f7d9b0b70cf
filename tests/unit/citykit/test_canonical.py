"""Canonical JSON: one byte form for each value, everything else refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citykit.canonical import INTEGER_MAX, CanonicalError, decode, encode, tagged

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcXYZ_09", max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back_from_its_bytes(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b"1.0",
        b"1e3",
        b"NaN",
        b"Infinity",
        b"[1,]",
        b"\xff",
        b'"\\u0041"',
        b"-0",
        b"01",
        b"[]\n",
    ],
)
def test_any_other_form_is_refused(data: bytes) -> None:
    with pytest.raises(CanonicalError):
        decode(data)


@pytest.mark.parametrize(
    "value", [1.5, INTEGER_MAX + 1, -INTEGER_MAX - 1, {"é": 1}, {1: 1}, b"x", {"a": [{"b": object()}]}]
)
def test_a_value_without_a_form_is_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        encode(value)


def test_too_deep_nesting_is_refused() -> None:
    value: Any = 0
    for _ in range(40):
        value = [value]
    with pytest.raises(CanonicalError, match="nested"):
        encode(value)
    with pytest.raises(CanonicalError):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_what_is_signed_is_tagged() -> None:
    assert tagged("block", {"a": 1}) == b'city.block.v1\n{"a":1}'
