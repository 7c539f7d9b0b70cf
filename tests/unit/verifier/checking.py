"""What the tests of made bundles share: checking one, naming the step that failed, changing a place in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.unit.verifier.bundlebytes import canonical, trust
from verifier.bundle import Report, check_bundle
from verifier.trust import read_trust

Change = Callable[[Any], object]


def check(bundle: Any, seed: int = 1, earlier: str | None = None) -> Report:
    return check_bundle(canonical(bundle), read_trust(trust(seed)), earlier)


def failed(report: Report) -> tuple[str, str]:
    """The first step that failed and its words; two empty texts where all hold."""
    return next(((step.name, step.detail) for step in report.steps if not step.ok), ("", ""))


def changed(bundle: dict[str, Any], change: Change) -> dict[str, Any]:
    """A copy with the change made."""
    copied = copy.deepcopy(bundle)
    change(copied)
    return copied


def put(*path: Any, value: Any) -> Change:
    """A change of one place: to a value, or to what a function makes of the value there."""

    def change(bundle: Any) -> None:
        at = bundle
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value(at[path[-1]]) if callable(value) else value

    return change


def flip(text: str) -> str:
    """Another hex digit at the start."""
    return ("0" if text[0] != "0" else "1") + text[1:]


def swap(items: list[Any]) -> list[Any]:
    """The first two the other way round."""
    return [items[1], items[0], *items[2:]]
