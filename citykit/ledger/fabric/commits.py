"""Commits told by one stream of filtered blocks, instead of a signed question for each transaction: less work where many are in flight.

Given to `gateway.Gateway` as `watch`. Where the stream fails, transactions are asked for one by one, as without it.
"""

from __future__ import annotations

import asyncio
import contextlib

from citykit.ledger.fabric import system
from citykit.ledger.fabric.blocks import Block
from citykit.ledger.fabric.errors import FabricError
from citykit.ledger.fabric.events import blocks
from citykit.ledger.fabric.gateway import Gateway, code_name
from citykit.ledger.fabric.transactions import Commit

_DUPLICATE = 9
"""DUPLICATE_TXID: a second copy; how the first was committed must be asked for."""


class Commits:
    """The watch of one channel; several gateways may share it. Begins at the first transaction.

    Args:
        gateway: a member that may read the channel's filtered blocks.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: dict[str, asyncio.Future[Commit]] = {}
        self._next: int | None = None
        self._following: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()

    async def expect(self, transaction_id: str) -> asyncio.Future[Commit] | None:
        """See `gateway.Watch`. The future leaves with its transaction: cancel it where it is not awaited any more."""
        try:
            await self._begin()
        except FabricError:
            return None
        if transaction_id in self._waiting:
            return None
        coming: asyncio.Future[Commit] = asyncio.get_running_loop().create_future()
        self._waiting[transaction_id] = coming
        coming.add_done_callback(lambda _: self._waiting.pop(transaction_id, None))
        return coming

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        self._give_up()

    async def _begin(self) -> None:
        """Takes up the stream where it stood, so that no block is missed. Raises FabricError."""
        async with self._beginning:
            if self._following is not None and not self._following.done():
                return
            if self._next is None:
                self._next = await system.height(self._gateway)
            self._following = asyncio.create_task(self._follow(self._next), name="fabric-commits")

    async def _follow(self, start: int) -> None:
        try:
            async with contextlib.aclosing(blocks(self._gateway, start=start, filtered=True)) as found:
                async for block in found:
                    self._next = block.number + 1
                    self._tell(block)
        except FabricError:
            self._give_up()

    def _tell(self, block: Block) -> None:
        for index, item in enumerate(block.transactions):
            coming = self._waiting.get(item.transaction_id)
            if coming is None or coming.done():
                continue
            if item.code == _DUPLICATE:
                coming.cancel()
            else:
                name = code_name(item.code)
                coming.set_result(Commit(item.transaction_id, item.code, name, block.number, index))

    def _give_up(self) -> None:
        for coming in list(self._waiting.values()):
            coming.cancel()
