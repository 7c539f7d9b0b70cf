"""One call on two ledgers: the embedded one, and the contract as chaincode behind a scripted peer. Whatever differs is a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from citykit.canonical import decode
from citykit.errors import CityError
from citykit.ids import seeded_randomness
from citykit.ledger.chaincode import Place, convention, serve
from citykit.ledger.contract import functions_of
from citykit.ledger.local import LocalLedger
from citykit.ledger.local.check import value_hash
from citykit.ledger.rules import RESERVED
from citykit.settings import LedgerSettings
from tests.unit.ledger.fake_peer import NOW, FakePeer, Outcome, creator

_WHERE = ": $"
"""Where in a document something has no canonical form: the documents differ."""
CODES = {convention.CODE_REUSED: "request-id-reused"}


class TwoLedgers:
    """Made by `two_ledgers`.

    Attributes:
        now: holds the time of proposals on both, unix seconds.
        done: (contract, function) of every call that succeeded.
        outcome: of the newest call on the chaincode's side.
    """

    def __init__(self, local: LocalLedger, peers: dict[str, FakePeer], now: list[int]) -> None:
        self.local = local
        self.peers = peers
        self.now = now
        self.done: set[tuple[str, str]] = set()
        self.outcome: Outcome | None = None
        self._calls = 0

    async def submit(
        self, contract: str, function: str, submitter: str = "tester", *, request_id: str = "", **args: Any
    ) -> Any:
        """Submits to both and compares result, refusal, writes and events. Returns the result, or the refusal's code."""
        self._calls += 1
        request_id = request_id or f"request-{self._calls}"
        transaction, expected, fault = "", None, ("", "")
        before = await self.local.height()
        try:
            receipt = await self.local.submit(contract, function, args, submitter=submitter, request_id=request_id)
            transaction, expected = receipt.transaction, receipt.result
        except CityError as error:
            fault = (error.reason, error.message)
        call = convention.invocation_arguments(function, args, request_id)
        identity = creator("a-certificate", **{convention.SUBMITTER_ATTRIBUTE: submitter})
        found = await self.peers[contract].invoke(*call, txid=transaction, identity=identity, time=self.now[0])
        self._compare((contract, function), found, expected, fault)
        if await self.local.height() > before:
            await self._compare_effects(contract, found, before)
        else:
            assert found.writes == {} and found.event is None
        return fault[0] or expected

    async def evaluate(self, contract: str, function: str, **args: Any) -> Any:
        """Evaluates on both and compares."""
        expected, fault = None, ("", "")
        try:
            expected = await self.local.evaluate(contract, function, args)
        except CityError as error:
            fault = (error.reason, error.message)
        found = await self.peers[contract].invoke(*convention.invocation_arguments(function, args))
        self._compare((contract, function), found, expected, fault)
        assert found.writes == {} and found.event is None
        return fault[0] or expected

    def _compare(self, call: tuple[str, str], found: Outcome, expected: Any, fault: tuple[str, str]) -> None:
        self.outcome = found
        if found.status == convention.OK:
            assert fault == ("", ""), call
            answer = convention.parse_answer(found.payload)
            assert answer.repeated is not None or answer.result == expected, call
            self.done.add(call)
        else:
            told = convention.parse_fault(found.status, found.message)
            message = told.message.partition(_WHERE)[0]
            assert (CODES.get(told.code, told.code), message) == (fault[0], fault[1].partition(_WHERE)[0]), call

    async def _compare_effects(self, contract: str, found: Outcome, number: int) -> None:
        [envelope] = (await self.local.block(number))["envelopes"]
        done = envelope["transaction"]
        expected = {key.removeprefix(f"{contract}/"): value for key, value in done["writes"]}
        marks = {key for key in expected if key.startswith("_requests/")}
        written = {
            key: value_hash(None if value is None else decode(value))
            for key, value in found.writes.items()
            if not key.startswith(RESERVED)
        }
        assert written == {key: value for key, value in expected.items() if key not in marks}
        assert len(found.writes) == len(expected)
        events = convention.parse_events(found.event[1]) if found.event else []
        assert events == [(event["name"], event["payload"]) for event in done["events"]]
        assert found.event is None or found.event[0] == convention.EVENTS

    def never_called(self) -> set[tuple[str, str]]:
        """Functions that never succeeded."""
        contracts = self.local._contracts
        every = {(name, function) for name, contract in contracts.items() for function in functions_of(contract)}
        return every - self.done


@asynccontextmanager
async def two_ledgers(folder: Path, contracts: Sequence[Any], **peer: int) -> AsyncIterator[TwoLedgers]:
    """Both, empty; their clocks stand where `now` says."""
    now = [NOW]
    local = await LocalLedger.open(
        folder, contracts=contracts, clock=lambda: now[0], randomness=seeded_randomness(1),
        settings=LedgerSettings(block_wait_ms=0),
    )  # fmt: skip
    places = {contract.name: Place(f"{contract.name}:hash", "localhost:0") for contract in contracts}
    try:
        async with serve(contracts, places) as serving:
            peers = {name: await FakePeer(**peer).connect(port) for name, port in serving.ports.items()}
            yield TwoLedgers(local, peers, now)
            for one in peers.values():
                await one.close()
    finally:
        await local.close()
