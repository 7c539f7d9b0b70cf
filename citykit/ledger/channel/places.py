"""Where a transaction stands in its block: the gateway tells the block only. One look at a block serves all its transactions."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from citykit.ledger.fabric import Gateway, blocks
from citykit.ledger.fabric.errors import FormError

_BLOCKS_MAX = 64


class Places:
    """Transaction ids of the blocks looked at last, read as filtered blocks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._found: OrderedDict[int, asyncio.Task[dict[str, int]]] = OrderedDict()

    async def index(self, block: int, transaction: str) -> int:
        """The transaction's place in a committed block.

        Raises:
            FabricError: the block could not be read, or does not hold it. The next call looks again.
        """
        task = self._found.get(block)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._found[block] = asyncio.create_task(self._read(block))
            while len(self._found) > _BLOCKS_MAX:
                self._found.popitem(last=False)
        found = await asyncio.shield(task)
        if transaction not in found:
            raise FormError(f"block {block} does not hold transaction {transaction}")
        return found[transaction]

    async def _read(self, block: int) -> dict[str, int]:
        async for found in blocks(self._gateway, start=block, stop=block, filtered=True):
            return {item.transaction_id: index for index, item in reversed(list(enumerate(found.transactions)))}
        raise FormError(f"block {block} was not delivered")
