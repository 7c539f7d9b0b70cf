"""The chain: transactions are ordered into blocks, validated, made durable, then told. One per peer.

Nothing is told before it is on disk. Where the disk refuses, the block is tried again each second and new transactions are refused meanwhile.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2

from citykit import telemetry
from citykit.errors import NotFound, Unavailable
from citykit.ledger.cutting import Cutter
from citykit.ledger.devpeer.blocks import header_hash, make_block
from citykit.ledger.devpeer.members import Signer
from citykit.ledger.devpeer.messages import Transaction
from citykit.ledger.devpeer.specification import Specification
from citykit.ledger.devpeer.state import WorldState
from citykit.ledger.devpeer.storage import Found, NewBlock, Outcome, Storage
from citykit.ledger.devpeer.validation import Validator

_RETRY_S = 1.0
_CACHE_MAX = 64
_WAITING_MAX = 10_000
_NONCE_BYTES = 24
_log = telemetry.logger("devpeer")


class Chain:
    """Blocks, newest last.

    Args:
        forget: called with the id of each committed transaction.
    """

    def __init__(
        self, specification: Specification, storage: Storage, world: WorldState, orderer: Signer,
        randomness: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._storage = storage
        self._world = world
        self._orderer = orderer
        self._randomness = randomness
        self._validator: Validator | None = None
        self._forget: Callable[[str], None] = lambda _: None
        self._grew = asyncio.Condition()
        self._recent: OrderedDict[int, common_pb2.Block] = OrderedDict()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._failing = ""
        self._waiting: dict[str, set[asyncio.Future[Found]]] = {}
        self.height = 0
        self.last_hash = b""
        self._cutter = Cutter[Transaction](
            self._commit, block_max=specification.block_max, wait_s=specification.block_wait_ms / 1000,
            pending_max=specification.pending_max,
        )  # fmt: skip

    def start(self, validator: Validator, forget: Callable[[str], None]) -> None:
        self._validator = validator
        self._forget = forget
        self._cutter.start("ledger-blocks")

    def resume(self, height: int, last_hash: bytes) -> None:
        """Goes on after what the storage holds."""
        self.height, self.last_hash = height, last_hash
        self._world.height = height

    def begin(self, envelope: bytes) -> None:
        """Writes block 0."""
        block = self._made([envelope], [0])
        self._storage.append(NewBlock(0, header_hash(block.header), block.SerializeToString(), ()))
        self._applied(block, [])

    def order(self, transaction: Transaction) -> None:
        """Takes a transaction to be committed in one of the next blocks.

        Raises:
            Unavailable: too many wait, the disk refuses, or the peer stops; it was not taken.
        """
        self.require_writing()
        if not self._cutter.add(transaction):
            raise Unavailable("too many transactions wait; it was not taken. Try again")

    def require_writing(self) -> None:
        """Raises Unavailable while the disk refuses a block, or where no blocks are cut any more."""
        if not self._cutter.runs:
            raise Unavailable("no blocks are cut: the peer stops, or met a fault of its own; start it again")
        if self._failing:
            raise Unavailable(f"the ledger cannot write its block ({self._failing}); free disk space, then try again")

    def find(self, transaction: str) -> Found | None:
        return self._storage.transaction(transaction)

    def known(self, transaction: str) -> bool:
        return self.find(transaction) is not None

    def number_of(self, block_hash: bytes) -> int | None:
        return self._storage.number_of(block_hash)

    def block(self, number: int) -> common_pb2.Block:
        """A committed block.

        Raises:
            NotFound: there is none of that number yet.
        """
        if not 0 <= number < self.height:
            raise NotFound(f"no block {number}; the ledger has {self.height}", field="number")
        block = self._recent.get(number)
        return block if block is not None else common_pb2.Block.FromString(self._storage.block(number))

    def block_bytes(self, number: int) -> bytes:
        return bytes(self.block(number).SerializeToString())

    def private_sets(self, number: int) -> dict[int, bytes]:
        """What the transactions of a block wrote privately; see `Storage.private_sets`."""
        return self._storage.private_sets(number)

    async def longer_than(self, blocks: int) -> None:
        """Waits until there are more than so many blocks."""
        async with self._grew:
            await self._grew.wait_for(lambda: self.height > blocks)

    async def committed(self, transaction: str) -> Found:
        """Waits until a transaction is committed."""
        found = self.find(transaction)
        if found is not None:
            return found
        if len(self._waiting) >= _WAITING_MAX:
            raise Unavailable(f"{_WAITING_MAX} transactions are waited for already; ask again")
        waiting: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(transaction, set()).add(waiting)
        try:
            return await waiting
        finally:
            others = self._waiting.get(transaction, set())
            others.discard(waiting)
            if not others:
                self._waiting.pop(transaction, None)

    async def stop(self) -> None:
        """Commits what waits (not where the disk refuses), then ends."""
        await (self._cutter.abandon() if self._failing else self._cutter.stop())
        self._disk.shutdown(wait=True)

    async def _commit(self, batch: list[Transaction]) -> None:
        if self._validator is None:
            raise RuntimeError("the chain was not started")
        outcomes = self._validator.outcomes(self.height, batch)
        block = self._made([one.envelope for one in batch], [one.code for one in outcomes])
        new = NewBlock(self.height, header_hash(block.header), block.SerializeToString(), outcomes)
        await self._written(new)
        self._applied(block, outcomes)
        async with self._grew:
            self._grew.notify_all()

    def _made(self, envelopes: list[bytes], codes: list[int]) -> common_pb2.Block:
        nonce = self._randomness(_NONCE_BYTES)
        return make_block(self._orderer, nonce, self.height, self.last_hash, envelopes, codes)

    async def _written(self, block: NewBlock) -> None:
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._disk, self._storage.append, block)
            except (sqlite3.Error, OSError) as error:
                self._failing = str(error)
                _log.error("block-not-written", extra={"fields": {"block": block.number, "why": self._failing}})
                await asyncio.sleep(_RETRY_S)
            else:
                self._failing = ""
                return

    def _applied(self, block: common_pb2.Block, outcomes: list[Outcome]) -> None:
        number = self.height
        self._world.apply(number, [change for outcome in outcomes for change in outcome.changes])
        self.height, self.last_hash = number + 1, header_hash(block.header)
        self._recent[number] = block
        telemetry.LEDGER_BLOCKS.set(self.height)
        if len(self._recent) > _CACHE_MAX:
            self._recent.popitem(last=False)
        for outcome in outcomes:
            telemetry.PEER_TRANSACTIONS.labels(transaction_pb2.TxValidationCode.Name(outcome.code)).inc()
            self._forget(outcome.transaction)
            for waiting in self._waiting.pop(outcome.transaction, ()):
                if not waiting.done():
                    waiting.set_result(Found(*outcome.version, outcome.code))
