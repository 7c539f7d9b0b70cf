"""Outbox to bus: what was stored reaches everybody, in order, for as long as the process runs. Run by `citykit.run`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from citykit import telemetry
from citykit.bus.port import Bus
from citykit.errors import CityError
from citykit.store.port import Store

_SWEEP_S = 30.0
"""Looked at again even if nobody said so: what another process left behind is found then."""
_PAUSE_S = 0.02
"""After a round that was not full: what comes meanwhile shares the next, and a round costs the same for one message as for many."""


async def relay(
    name: str, store: Store, bus: Bus, limit: int, doing: Callable[[], contextlib.AbstractContextManager[Any]]
) -> None:
    """Until cancelled. A bus or database that is away is waited for.

    Args:
        limit: messages published at once.
        doing: entered for each round, so that one that hangs is seen.
    """
    log = telemetry.logger(name)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SWEEP_S):
                await store.outbox_grew.wait()
        try:
            with doing():
                published = await relay_once(store, bus, limit)
                telemetry.OUTBOX_MESSAGES.labels(name).set(await store.outbox_size())
            if published < limit:
                await asyncio.sleep(_PAUSE_S)
        except Exception as error:
            reason = error.reason if isinstance(error, CityError) else type(error).__name__
            log.warning("relay-failed", extra={"fields": {"reason": reason}})
            await asyncio.sleep(getattr(error, "retry_after_s", None) or 1.0)


async def relay_once(store: Store, bus: Bus, limit: int) -> int:
    """Publishes the oldest messages and takes them out of the outbox. Dying between the two publishes them twice."""
    waiting = await store.outbox(limit)
    if not waiting:
        store.outbox_grew.clear()
        if await store.outbox_size():
            store.outbox_grew.set()
        return 0
    await bus.publish([message for _, message in waiting])
    await store.published([number for number, _ in waiting])
    return len(waiting)
