"""Waiting for conditions: tests poll, they never sleep for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP_S = 0.01


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, *, limit_s: float = 30.0) -> None:
    """Returns once `condition` holds.

    Raises:
        AssertionError: it did not hold within `limit_s`; the message names `what`.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        await asyncio.sleep(_STEP_S)
    raise AssertionError(f"not within {limit_s} s: {what}")
