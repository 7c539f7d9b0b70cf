"""Conditions of gates: what the grammar allows, what holds, and that nothing measured is nothing met."""

from __future__ import annotations

import math

import pytest

from operators.city.conditions import LENGTH_MAX, met, read_condition


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("result <= 0.01", 0.01, True),
        ("result <= 0.01", 0.011, False),
        ("result >= -1e-3", -0.001, True),
        ("result < .5", 0.5, False),
        ("result > 5.", 5.1, True),
        ("result == 3", 3.0, True),
        ("result != 3", 3.0, False),
        ("  result>0 and   result<5 ", 3.0, True),
        ("result > 0 and result < 5", 5.0, False),
        ("result < 0 or result > 5", 6.0, True),
        ("result < 0 or result > 5 and result < 7", -1.0, True),
        ("result < 0 or result > 5 and result < 7", 8.0, False),
        ("result <= 1", math.inf, False),
        ("result > 1", math.inf, True),
        ("result != 0", math.nan, False),
        ("result < 1 or result >= 1", math.nan, False),
    ],
)
def test_what_holds(text: str, value: float, holds: bool) -> None:
    found = read_condition(text)
    assert found is not None
    assert found.holds(value) is holds


@pytest.mark.parametrize(
    "text",
    ["", "result", "0.01 >= result", "result < x", "result < 1 and", "or result < 1", "result < 1 & result > 0", "(result < 1)",
     "result << 1", "result = 1", "result < 1 result > 2", "result < nan", "result < inf", "__import__('os')", "result < 1 andresult > 0",
     "result < 1" + " " * LENGTH_MAX],
)  # fmt: skip
def test_what_is_no_condition(text: str) -> None:
    assert read_condition(text) is None
    assert not met(text, (0.5,), every=True)


def test_of_many_series_every_one_or_any_one() -> None:
    assert met("result < 1", (0.1, 0.2), every=True)
    assert not met("result < 1", (0.1, 2.0), every=True)
    assert met("result < 1", (0.1, 2.0), every=False)
    assert not met("result < 1", (0.1, math.nan), every=True)
    assert not met("result < 1", (), every=True)
    assert not met("result < 1", (), every=False)
