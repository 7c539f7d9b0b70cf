"""Bus and ledger of a process whose service has neither (the gateway): asking whether they are well is fine, using them is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from citykit.bus.port import Message, Record, Subscription, TopicState
from citykit.errors import EnvironmentFault
from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.port import LedgerEvent, Position, Receipt, TransactionStatus


class AbsentBus:
    """See `citykit.bus.port.Bus`."""

    async def publish(self, messages: Sequence[Message]) -> None:
        _refuse("bus")

    def consume(self, subscription: Subscription) -> AbstractAsyncContextManager[None]:
        _refuse("bus")

    async def topics(self) -> Sequence[TopicState]:
        return ()

    def dead_letters(self) -> AsyncIterator[Record]:
        _refuse("bus")

    async def replay(self, topic: str) -> int:
        _refuse("bus")

    async def caught_up(self, subscription: Subscription) -> bool:
        return True

    async def prune(self) -> int:
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class AbsentLedger:
    """See `citykit.ledger.port.Ledger`."""

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        _refuse("ledger")

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        _refuse("ledger")

    async def status(self, transaction: str) -> TransactionStatus:
        _refuse("ledger")

    async def evidence(self, transaction: str) -> JsonObject:
        _refuse("ledger")

    def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        _refuse("ledger")

    async def height(self) -> int:
        return 0

    async def block(self, number: int) -> JsonObject:
        _refuse("ledger")

    def trust(self) -> JsonObject:
        _refuse("ledger")

    async def close(self) -> None:
        """Nothing is open."""


def _refuse(part: str) -> NoReturn:
    raise EnvironmentFault(
        f"this process has no {part}: its service is not among those that use one (services/registry.py)"
    )
