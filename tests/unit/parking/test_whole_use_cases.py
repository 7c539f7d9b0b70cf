"""A use case runs to its end where its caller has hung up, and its refusal is then nobody's news."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from citykit.errors import FailedPrecondition
from services.parking.api import _whole


async def test_a_refusal_nobody_waits_for_is_no_fault() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    go, ended = asyncio.Event(), asyncio.Event()

    async def use_case() -> None:
        try:
            await go.wait()
            raise FailedPrecondition("the hold has ended; hold a bay again")
        finally:
            ended.set()

    caller = asyncio.create_task(_whole(use_case()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await ended.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert told == []
