"""Label selectors: their four operators, and what there is besides."""

from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes.label_selectors import selects

LABELS = {"tier": "data"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"tier": "data"}}, True),
        ({"matchLabels": {"tier": "data", "app": "web"}}, False),
    ],
)
def test_nothing_everything_and_labels(selector: dict[str, Any] | None, matches: bool) -> None:
    assert selects(selector, LABELS) == matches


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"operator": "In", "values": ["data"]}, True),
        ({"operator": "In", "values": ["else"]}, False),
        ({"operator": "NotIn", "values": ["data"]}, False),
        ({"operator": "NotIn", "values": ["else"]}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_expressions_of_selectors(expression: dict[str, Any], matches: bool) -> None:
    assert selects({"matchExpressions": [{"key": "tier", **expression}]}, LABELS) == matches


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(ValueError, match="not 'Near'"):
        selects({"matchExpressions": [{"key": "tier", "operator": "Near"}]}, {})
