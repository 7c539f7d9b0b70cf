"""The port over a channel in one process, once through everything; the whole suite runs on it in tests/real/ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from citykit.canonical import decode, encode
from citykit.errors import NotFound, RequestReused
from citykit.ledger.channel import open_channel_ledger
from citykit.ledger.port import ContractRefused, TransactionStatus
from citykit.testing.ledger_suite import add, value
from tests.real.ledger.trial import running_peer, settings_for
from verifier import fabric
from verifier.fabric_ledger import read_fabric


async def test_once_through_everything(tmp_path: Path) -> None:
    async with running_peer(tmp_path / "peer") as peer:
        ledger = await open_channel_ledger(settings_for(peer), clock=lambda: 1_478_563_200.0)
        first = await ledger.submit("counter", "add", {"key": "a", "by": 2}, submitter="tester", request_id="r")
        again = await ledger.submit("counter", "add", {"key": "a", "by": 2}, submitter="tester", request_id="r")
        assert again == first
        with pytest.raises(RequestReused):
            await add(ledger, "a", 3, "r")
        with pytest.raises(ContractRefused, match="only auditor"):
            await ledger.submit("counter", "clear", {"key": "a"}, submitter="tester", request_id="x")
        with pytest.raises(NotFound, match=r"counter\.add"):
            await ledger.evaluate("counter", "nothing", {})
        await asyncio.gather(*(add(ledger, f"k{number}") for number in range(8)))
        assert await value(ledger, "a") == 2
        assert await ledger.status(first.transaction) is TransactionStatus.VALID
        assert await ledger.status("0" * 64) is TransactionStatus.UNKNOWN
        found = [event async for event in ledger.events(contract="counter", follow=False)]
        assert (found[0].payload, found[0].transaction) == ({"by": 2, "key": "a"}, first.transaction)
        rest = [event async for event in ledger.events(after=found[3].position, follow=False)]
        assert rest == found[4:]
        assert [event async for event in ledger.events(after=found[-1].position, contract="no", follow=False)] == []
        block = await ledger.block(first.block)
        envelope = block["envelopes"][first.index]
        assert (envelope["code"], envelope["transaction"]["args"]) == ("VALID", {"by": 2, "key": "a"})
        assert block["header"]["time"] == "2016-11-08T00:00:00Z"
        evidence, trust = await ledger.evidence(first.transaction), ledger.trust()
        with pytest.raises(NotFound, match="no transaction"):
            await ledger.evidence("0" * 64)
        with pytest.raises(NotFound, match="no block"):
            await ledger.block(await ledger.height())
        await ledger.close()
    transaction = fabric.transaction_of(decode(encode(evidence)), read_fabric(decode(encode(trust))), "x")
    assert transaction["id"] == first.transaction
    shown = envelope["transaction"]
    assert {name: shown[name] for name in transaction} == transaction
