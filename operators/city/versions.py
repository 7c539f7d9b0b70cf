"""Which versions may follow which. Called by `admission`.

Migrations only add: a version runs on the tables of the one before it and of the one after it. So the last good version may go back to the one it
came from; older ones have never run on these tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from citykit.errors import InvalidArgument

_NUMBERS = re.compile(r"\d+")


def order_of(version: str) -> tuple[int, ...]:
    """The numbers of a version before any pre-release mark; `1.4.0-rc1+b2` is (1, 4, 0)."""
    return tuple(int(one) for one in _NUMBERS.findall(re.split(r"[-+]", version, maxsplit=1)[0]))


def refused_downgrade(version: str, status: Mapping[str, Any]) -> None:
    """Checks a wanted version against what the status says ran last.

    Raises:
        InvalidArgument: it is older than the one the last good version came from.
    """
    good = str((status.get("lastGood") or {}).get("version") or "")
    if not good or order_of(version) >= order_of(good):
        return
    came_from = [
        str(one.get("from") or "")
        for one in status.get("history") or []
        if one.get("to") == good and one.get("from") != good
    ]
    if version in came_from[-1:]:
        return
    allowed = f"{came_from[-1]} or a newer one than {good}" if came_from and came_from[-1] else f"{good} or a newer one"
    raise InvalidArgument(
        f"version {version} is older than {good}, whose migrations have run; it never ran on these tables. Allowed: {allowed}."
        " To go further back, restore a backup into a new namespace",
        field="spec.version",
    )
