"""Conditions of a gate: comparisons of `result` with numbers. Read by `spec`, evaluated by `prometheus`; nothing of Python is evaluated.

    condition   = alternative { "or" alternative }
    alternative = comparison { "and" comparison }
    comparison  = "result" ( "<=" | ">=" | "==" | "!=" | "<" | ">" ) number

A number is written as in `0.01`, `-3` or `1e-6`. So `and` binds closer than `or`; there are no brackets.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

LENGTH_MAX = 200
FORM = "comparisons like `result <= 0.01` or `result > 0 and result < 5`"
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(r"\s*result\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True)
class Comparison:
    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        return _COMPARE[self.sign](value, self.bound)


@dataclass(frozen=True)
class Condition:
    """Holds where all comparisons of one of the alternatives hold."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    def holds(self, value: float) -> bool:
        """NaN meets no condition, not even `result != 0`: it says that nothing was measured."""
        if math.isnan(value):
            return False
        return any(all(one.holds(value) for one in comparisons) for comparisons in self.alternatives)


def read_condition(text: str) -> Condition | None:
    """None: it is no condition (see above), or longer than `LENGTH_MAX` characters."""
    if len(text) > LENGTH_MAX:
        return None
    found = [[_comparison(one) for one in re.split(r"\band\b", part)] for part in re.split(r"\bor\b", text)]
    read = tuple(tuple(one for one in part if one is not None) for part in found)
    return Condition(read) if all(None not in part for part in found) else None


def _comparison(text: str) -> Comparison | None:
    found = _COMPARISON.fullmatch(text)
    return Comparison(found[1], float(found[2])) if found else None


def met(condition: str, values: Iterable[float], *, every: bool) -> bool:
    """Whether a condition holds for every (or any) of the series. Without values, or without a condition, nothing is met."""
    read, holds = read_condition(condition), list(values)
    if read is None or not holds:
        return False
    return (all if every else any)(read.holds(value) for value in holds)
