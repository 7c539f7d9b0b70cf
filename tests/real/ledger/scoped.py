"""One ledger as many: each test of the suite sees a part of a long-lived channel that only it uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.port import Ledger, LedgerEvent, Position, Receipt, TransactionStatus

_KEYS = ("key", "prefix", "to")


class Scoped:
    """A ledger whose keys and request ids begin with a scope; events and transactions of others are not shown."""

    def __init__(self, ledger: Ledger, scope: str) -> None:
        self._ledger = ledger
        self._scope = f"{scope}/"

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        own = f"{self._scope}{request_id}" if request_id else ""
        return await self._ledger.submit(contract, function, self._own(args), submitter=submitter, request_id=own)

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        return await self._ledger.evaluate(contract, function, self._own(args))

    async def status(self, transaction: str) -> TransactionStatus:
        return await self._ledger.status(transaction)

    async def evidence(self, transaction: str) -> JsonObject:
        return await self._ledger.evidence(transaction)

    async def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        async for event in self._ledger.events(after=after, contract=contract, follow=follow):
            if self._is_own(event.payload.get("key")):
                yield replace(event, payload={**event.payload, "key": event.payload["key"].removeprefix(self._scope)})

    async def height(self) -> int:
        return await self._ledger.height()

    async def block(self, number: int) -> JsonObject:
        block = await self._ledger.block(number)
        own = [
            item for item in block["envelopes"] if any(self._is_own(item["transaction"]["args"].get(k)) for k in _KEYS)
        ]
        return {**block, "envelopes": own}

    def trust(self) -> JsonObject:
        return self._ledger.trust()

    async def close(self) -> None:
        await self._ledger.close()

    def _own(self, args: JsonObject) -> JsonObject:
        return {
            name: self._scope + value if name in _KEYS and isinstance(value, str) else value
            for name, value in args.items()
        }

    def _is_own(self, key: Any) -> bool:
        return isinstance(key, str) and key.startswith(self._scope)
