"""A forecast's causes in words."""

from __future__ import annotations

from collections.abc import Sequence

NAMED_MAX = 3
MILLI = 1_000


def explained(profile_milli: int, value_milli: int, causes: Sequence[tuple[str, int]]) -> str:
    """One sentence for people: the usual value, what moved it most, and the result.

    Args:
        causes: (input, effect in thousandths), largest first.
    """
    usual = f"Usually {_whole(profile_milli)} at this time of the week"
    named = [
        f"{_whole(effect, signed=True)} for {name}" for name, effect in causes[:NAMED_MAX] if round(effect / MILLI)
    ]
    if not named:
        return f"{usual}; nothing moves it this time."
    return f"{usual}; {', '.join(named)}; so {_whole(value_milli)} is expected."


def _whole(milli: int, *, signed: bool = False) -> str:
    return f"{round(milli / MILLI):+d}" if signed else f"{round(milli / MILLI)}"
