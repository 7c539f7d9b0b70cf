"""The embedded ledger itself: simulate, endorse, order, validate, commit, tell. See `citykit.ledger.port.Ledger`.

State is kept in memory and rebuilt from the blocks at open; measured for tens of thousands of transactions, not for millions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from citykit.canonical import CanonicalError, encode, tagged
from citykit.clock import iso
from citykit.errors import Conflict, InvalidArgument, NotFound, RequestReused
from citykit.ids import require_request_id
from citykit.ledger.contract import Function, Json, JsonObject, Refusal, call, functions_of
from citykit.ledger.cutting import Cutter
from citykit.ledger.lint import require_deterministic
from citykit.ledger.local.blocks import BlockFile, Keys, envelope_leaves, make_block
from citykit.ledger.local.check import BlockChecker
from citykit.ledger.local.keys import open_keys
from citykit.ledger.local.state import Simulation, WorldState
from citykit.ledger.port import (
    ARGS_MAX_BYTES,
    ContractRefused,
    LedgerEvent,
    LedgerUnavailable,
    Position,
    Receipt,
    TransactionStatus,
)
from citykit.merkle import batch_proof, in_memory
from citykit.settings import LedgerSettings
from citykit.telemetry import LEDGER_CONFLICTS

CHANNEL = "city"
ORGANISATION = "city"
NOTE = "embedded ledger: one process, one operator; its blocks show tampering by others, not by the operator"
_PENDING_MAX = 10_000
_REQUESTS = "_requests"


@dataclass(slots=True)
class _Pending:
    envelope: JsonObject
    values: list[Json]
    done: asyncio.Future[tuple[int, int]]


class LocalLedger:
    """The adapter. Made by `LocalLedger.open`; one process may have a directory open."""

    def __init__(
        self, keys: Keys, blocks: BlockFile, contracts: dict[str, Any], clock: Callable[[], int],
        randomness: Callable[[int], bytes], settings: LedgerSettings,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._blocks = blocks
        self._contracts = contracts
        self._functions = {name: functions_of(contract) for name, contract in contracts.items()}
        self._clock = clock
        self._randomness = randomness
        self._settings = settings
        self._checker = BlockChecker({s.key_id: s.public_key for s in (keys.endorser, keys.orderer)})
        self._state = WorldState()
        self._index: dict[str, tuple[int, int]] = {}
        self._cutter = Cutter[_Pending](
            self._commit, block_max=settings.block_max, wait_s=settings.block_wait_ms / 1000, pending_max=_PENDING_MAX
        )
        self._grew = asyncio.Condition()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @classmethod
    async def open(
        cls, directory: Path, *, contracts: Sequence[object], clock: Callable[[], int],
        randomness: Callable[[int], bytes], settings: LedgerSettings | None = None,
    ) -> LocalLedger:  # fmt: skip
        """Opens or creates the ledger in `directory`, verifying every block.

        Args:
            clock: unix seconds for proposals and blocks.

        Raises:
            LedgerDamaged: naming the first damaged block.
            InvalidArgument: a contract that is not deterministic.
        """
        for contract in contracts:
            require_deterministic(contract)
        directory.mkdir(parents=True, exist_ok=True)
        keys = open_keys(directory, randomness)
        named = {str(getattr(contract, "name", "")): contract for contract in contracts}
        ledger = cls(keys, BlockFile(directory), named, clock, randomness, settings or LedgerSettings())
        for block in ledger._blocks.load():
            ledger._checker.check(block)
            ledger._apply(block)
        ledger._cutter.start("ledger-blocks")
        return ledger

    # --- calls -------------------------------------------------------------------------------------

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        require_request_id(request_id)
        chosen = self._function(contract, function, args)
        if not chosen.writes:
            raise InvalidArgument(f"{contract}.{function} only reads; use evaluate", field="function")
        for _ in range(self._settings.conflict_retries + 1):
            receipt = await self._try(contract, chosen, args, submitter, request_id)
            if receipt is not None:
                return receipt
        raise Conflict(
            f"{contract}.{function} met a conflict {self._settings.conflict_retries + 1} times; try again with the same request id",
            reason="mvcc-read-conflict",
            retry_after_s=1.0,
        )

    async def _try(
        self, contract: str, function: Function, args: JsonObject, submitter: str, request_id: str
    ) -> Receipt | None:
        """One simulation and its commit; None after an MVCC conflict."""
        fingerprint = sha256(encode([contract, function.name, args])).hexdigest()
        request_key = sha256(f"{submitter}\n{request_id}".encode()).hexdigest()
        transaction = sha256(b"city.transaction-id.v1\n" + self._randomness(24) + submitter.encode()).hexdigest()
        now = self._clock()
        simulation = Simulation(self._state, contract, transaction, now, submitter)
        before, version = self._state.get(f"{_REQUESTS}/{request_key}")
        if before is not None:
            return self._answered_before(before, fingerprint, request_id)
        simulation.reads[f"{_REQUESTS}/{request_key}"] = version
        result = self._call(contract, function, simulation, args)
        simulation.writes[f"{_REQUESTS}/{request_key}"] = {"fingerprint": fingerprint, "transaction": transaction}
        try:
            document = simulation.document(CHANNEL, function.name, args, iso(now), result)
            message = tagged("endorsement", document)
        except CanonicalError as error:
            raise ContractRefused(f"{contract}.{function.name} gave back no canonical value: {error}") from None
        endorser = self._keys.endorser
        endorsement = {"key": endorser.key_id, "organisation": ORGANISATION, "signature": endorser.sign(message)}
        block, index = await self._order({"transaction": document, "endorsements": [endorsement]}, simulation.values())
        if self._status(block, index) is TransactionStatus.MVCC_READ_CONFLICT:
            LEDGER_CONFLICTS.labels(contract).inc()
            return None
        return Receipt(transaction, block, index, result)

    def _answered_before(self, before: JsonObject, fingerprint: str, request_id: str) -> Receipt:
        if before["fingerprint"] != fingerprint:
            raise RequestReused(
                f"request id {request_id!r} was used before with other content; take a new id for a new act",
                field="request_id",
            )
        block, index = self._index[before["transaction"]]
        result = self._blocks.read(block)["envelopes"][index]["transaction"]["result"]
        return Receipt(before["transaction"], block, index, result)

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        chosen = self._function(contract, function, args)
        simulation = Simulation(self._state, contract, "0" * 64, self._clock(), "reader")
        if chosen.writes:
            raise InvalidArgument(f"{contract}.{function} writes; use submit", field="function")
        return self._call(contract, chosen, simulation, args)

    def _call(self, contract: str, function: Function, simulation: Simulation, args: JsonObject) -> Json:
        try:
            return call(self._contracts[contract], function, simulation, args)
        except Refusal as refusal:
            raise ContractRefused(refusal.message, reason=refusal.code) from None
        except CanonicalError as error:
            raise ContractRefused(f"{contract}.{function.name} stores no canonical value: {error}") from None

    def _function(self, contract: str, function: str, args: JsonObject) -> Function:
        found = self._functions.get(contract, {}).get(function)
        if found is None:
            known = ", ".join(f"{c}.{f}" for c, fs in self._functions.items() for f in fs)
            raise NotFound(f"no contract function {contract}.{function}; there are {known}", reason="unknown-function")
        try:
            size = len(encode(args))
        except CanonicalError as error:
            raise InvalidArgument(f"the arguments of {contract}.{function} have no canonical form: {error}") from None
        if size > ARGS_MAX_BYTES:
            raise InvalidArgument(
                f"arguments are at most {ARGS_MAX_BYTES} bytes, not {size}; submit hashes of large documents"
            )
        return found

    # --- ordering ----------------------------------------------------------------------------------

    async def _order(self, envelope: JsonObject, values: list[Json]) -> tuple[int, int]:
        pending = _Pending(envelope, values, asyncio.get_running_loop().create_future())
        if not self._cutter.add(pending):
            why = "too many transactions wait" if self._cutter.runs else "the ledger is closed"
            raise LedgerUnavailable(f"{why}; nothing was submitted. Try again", retry_after_s=1.0)
        return await asyncio.shield(pending.done)

    async def _commit(self, batch: list[_Pending]) -> None:
        number = len(self._blocks)
        envelopes = self._validated(batch)
        block = make_block(
            self._keys.orderer, CHANNEL, number, self._checker.previous, iso(self._clock()), envelopes,
            [pending.values for pending in batch],
        )  # fmt: skip
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._blocks.append, block)
        except OSError as error:
            failure = LedgerUnavailable(
                f"the ledger could not write its block ({error.strerror}); nothing was committed. Free disk space, then try again",
                retry_after_s=5.0,
            )
            for pending in batch:
                pending.done.set_exception(failure)
            return
        self._checker.check(block)
        self._apply(block)
        for index, pending in enumerate(batch):
            pending.done.set_result((number, index))
        async with self._grew:
            self._grew.notify_all()

    def _validated(self, batch: list[_Pending]) -> list[JsonObject]:
        changed: dict[str, str] = {}
        envelopes = []
        for pending in batch:
            transaction = pending.envelope["transaction"]
            code = self._state.validate(transaction["reads"], changed)
            if code is TransactionStatus.VALID:
                changed.update((key, transaction["id"]) for key, _ in transaction["writes"])
            envelopes.append({**pending.envelope, "code": str(code)})
        return envelopes

    def _apply(self, block: JsonObject) -> None:
        number = block["header"]["number"]
        for index, (envelope, values) in enumerate(zip(block["envelopes"], block["values"], strict=True)):
            transaction = envelope["transaction"]
            self._index[transaction["id"]] = (number, index)
            if envelope["code"] == TransactionStatus.VALID:
                self._state.apply(transaction["writes"], values, f"{number}.{index}")

    # --- looking -----------------------------------------------------------------------------------

    def _status(self, block: int, index: int) -> TransactionStatus:
        return TransactionStatus(self._blocks.read(block)["envelopes"][index]["code"])

    async def status(self, transaction: str) -> TransactionStatus:
        place = self._index.get(transaction)
        return TransactionStatus.UNKNOWN if place is None else self._status(*place)

    async def evidence(self, transaction: str) -> JsonObject:
        if transaction not in self._index:
            raise NotFound(f"no transaction {transaction} is on the ledger", field="transaction")
        number, index = self._index[transaction]
        block = self._blocks.read(number)
        leaves = envelope_leaves(block["envelopes"])
        path = [item.hex() for item in batch_proof(in_memory(leaves), [index], len(leaves))]
        return {
            "type": "embedded.v1",
            "envelope": block["envelopes"][index],
            "index": index,
            "path": {"size": len(leaves), "indexes": [index], "hashes": path},
            "header": block["header"],
            "signature": block["signature"],
        }

    async def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        number = after.block if after else 0
        while True:
            while number < len(self._blocks):
                for event in events_of(self._blocks.read(number)):
                    if (after is None or event.position > after) and contract in (None, event.contract):
                        yield event
                number += 1
            if not follow:
                return
            await self._longer_than(number)

    async def _longer_than(self, blocks: int) -> None:
        async with self._grew:
            await self._grew.wait_for(lambda: len(self._blocks) > blocks)

    async def height(self) -> int:
        return len(self._blocks)

    async def block(self, number: int) -> JsonObject:
        if not 0 <= number < len(self._blocks):
            raise NotFound(f"no block {number}; the ledger has {len(self._blocks)}", field="number")
        stored = self._blocks.read(number)
        return {key: stored[key] for key in ("header", "signature", "envelopes")}

    def trust(self) -> JsonObject:
        return {
            "type": "embedded.v1",
            "channel": CHANNEL,
            "endorsers": [{"organisation": ORGANISATION, "key": self._keys.endorser.public_key.hex()}],
            "orderers": [{"key": self._keys.orderer.public_key.hex()}],
            "policy": {"endorsements": 1},
            "note": NOTE,
        }

    async def close(self) -> None:
        """Commits what waits, then closes."""
        await self._cutter.stop()
        self._disk.shutdown(wait=True)
        self._blocks.close()


def events_of(block: JsonObject) -> list[LedgerEvent]:
    """The events of a block's valid transactions."""
    number = block["header"]["number"]
    return [
        LedgerEvent(
            Position(number, index, place), transaction["contract"], transaction["id"], event["name"], event["payload"]
        )
        for index, envelope in enumerate(block["envelopes"])
        if envelope["code"] == TransactionStatus.VALID
        for transaction in (envelope["transaction"],)
        for place, event in enumerate(transaction["events"])
    ]
