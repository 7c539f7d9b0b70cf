"""How a batch gets to its handler, whatever the bus: once whole, then one by one, with tries, back-off and dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby

from citykit.bus.port import Message, Record, Subscription
from citykit.bus.rules import dead_letter
from citykit.errors import Unavailable
from citykit.telemetry import BUS_DEAD_LETTERS, BUS_RETRIES

log = logging.getLogger("city.bus")

Publish = Callable[[Sequence[Message]], Awaitable[None]]
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 2.0


async def deliver(
    subscription: Subscription, records: Sequence[Record], stopping: asyncio.Event, publish: Publish
) -> int:
    """How many of the first records are dealt with (handled, or dead letters): all of them, unless stopped before.

    Args:
        records: in order; replayed ones may have come from several partitions, and the handler gets each partition's by themselves.
        publish: puts dead letters on the bus.
    """
    dealt_with = 0
    for _, found in groupby(records, key=lambda record: (record.topic, record.partition)):
        batch = list(found)
        done = await _deliver_batch(subscription, batch, stopping, publish)
        dealt_with += done
        if done < len(batch):
            break
    return dealt_with


async def _deliver_batch(
    subscription: Subscription, records: Sequence[Record], stopping: asyncio.Event, publish: Publish
) -> int:
    try:
        await subscription.handler(records)
    except Exception as error:
        BUS_RETRIES.labels(records[0].topic, subscription.group).inc()
        _log_failure(subscription, records, error)
    else:
        return len(records)
    for number, record in enumerate(records):
        if not await _deliver_one(subscription, record, stopping, publish):
            return number
    return len(records)


async def _deliver_one(subscription: Subscription, record: Record, stopping: asyncio.Event, publish: Publish) -> bool:
    tries = 0
    backoff_s = _BACKOFF_FIRST_S
    while not stopping.is_set():
        try:
            await subscription.handler([record])
        except Exception as error:
            # What is away (a service, room on the disk) comes back: it is no fault of the record, so it costs no try.
            tries += 0 if isinstance(error, Unavailable | OSError) else 1
            BUS_RETRIES.labels(record.topic, subscription.group).inc()
            if tries >= subscription.max_tries:
                return await _give_up(dead_letter(record, subscription.group, error, tries), record, stopping, publish)
        else:
            return True
        backoff_s = await _pause(stopping, backoff_s)
    return False


async def _give_up(letter: Message, record: Record, stopping: asyncio.Event, publish: Publish) -> bool:
    """The record counts as dealt with once its letter is on the bus, and not before."""
    backoff_s = _BACKOFF_FIRST_S
    while not stopping.is_set():
        try:
            await publish([letter])
        except (Unavailable, OSError):
            backoff_s = await _pause(stopping, backoff_s)
        else:
            BUS_DEAD_LETTERS.labels(record.topic, letter.headers["dl_group"].decode()).inc()
            return True
    return False


async def _pause(stopping: asyncio.Event, backoff_s: float) -> float:
    """Waits, unless stopped; returns how long to wait the next time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(backoff_s):
            await stopping.wait()
    return min(backoff_s * 2, _BACKOFF_MAX_S)


def _log_failure(subscription: Subscription, records: Sequence[Record], error: Exception) -> None:
    fields = {
        "group": subscription.group,
        "topic": records[0].topic,
        "records": len(records),
        "why": type(error).__name__,
    }
    log.warning("handler-failed", extra={"fields": fields})
