"""The relay of the outbox ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from citykit.bus.port import Bus
from citykit.relay import relay
from citykit.store.port import Store


class EmptyStore:
    """An outbox that grows and is found empty."""

    def __init__(self) -> None:
        self.outbox_grew = asyncio.Event()

    async def outbox(self, limit: int) -> list[Any]:
        return []

    async def outbox_size(self) -> int:
        return 0


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_at_any_step_of_waking_up_it_ends(steps: int) -> None:
    store = EmptyStore()
    running = asyncio.create_task(relay("one", cast(Store, store), cast(Bus, None), 10, contextlib.nullcontext))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.outbox_grew.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)
    assert done
    assert running.cancelled()
