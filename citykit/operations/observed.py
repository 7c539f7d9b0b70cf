"""Ledger and consumers as services get them: each transaction and each batch with a span and its time. Called by `citykit.run`.

Trace context never goes into a transaction's arguments, which are hashed and kept for ever. A consumer's span links to those of the
producers: one batch has many.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from citykit.bus.events import traceparents
from citykit.bus.port import Handler, Record, Subscription
from citykit.errors import CityError
from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.port import Ledger, LedgerEvent, Position, Receipt, TransactionStatus
from citykit.telemetry import BUS_HANDLE_SECONDS, LEDGER_SECONDS, span

Doing = Callable[[str], AbstractContextManager[None]]


class ObservedLedger:
    """Any ledger; see `citykit.ledger.port.Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        since, outcome = time.perf_counter(), "failed"
        with span("ledger.submit", contract=contract, function=function) as current:
            try:
                receipt = await self._ledger.submit(
                    contract, function, args, submitter=submitter, request_id=request_id
                )
                outcome = "committed"
                current.set_attributes({"transaction": receipt.transaction, "block": receipt.block})
                return receipt
            except CityError as error:
                outcome = error.code.name.lower().replace("_", "-")
                raise
            finally:
                LEDGER_SECONDS.labels(contract, function, outcome).observe(time.perf_counter() - since)

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        return await self._ledger.evaluate(contract, function, args)

    async def status(self, transaction: str) -> TransactionStatus:
        return await self._ledger.status(transaction)

    async def evidence(self, transaction: str) -> JsonObject:
        return await self._ledger.evidence(transaction)

    def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        return self._ledger.events(after=after, contract=contract, follow=follow)

    async def height(self) -> int:
        return await self._ledger.height()

    async def block(self, number: int) -> JsonObject:
        return await self._ledger.block(number)

    def trust(self) -> JsonObject:
        return self._ledger.trust()

    async def close(self) -> None:
        await self._ledger.close()


def observed_subscription(subscription: Subscription, doing: Doing) -> Subscription:
    """The subscription, each of its batches in a span that links to the producers'.

    Args:
        doing: entered with a name for each batch, so that one that hangs is seen.
    """
    return replace(subscription, handler=_observed(subscription.group, subscription.handler, doing))


def _observed(group: str, handler: Handler, doing: Doing) -> Handler:
    seconds = BUS_HANDLE_SECONDS.labels(group)

    async def handle(records: Sequence[Record]) -> None:
        traces = traceparents(records)
        with (
            doing(f"{group}/{records[0].topic}"),
            seconds.time(),
            span("bus.handle", links=traces, group=group, topic=records[0].topic, records=len(records)),
        ):
            await handler(records)

    return handle
