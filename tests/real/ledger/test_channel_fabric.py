"""The port over a real Fabric network passes the same suite; its evidence holds for the verifier. Needs FABRIC_BIN."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from citykit.errors import NotFound, PermissionDenied, SettingsError
from citykit.ledger.channel import ChannelLedger, open_channel_ledger
from citykit.testing.ledger_suite import LedgerSuite, Reopen, add
from infra.fabric import FABRIC_BIN, not_run
from tests.real.ledger.fabric_network import CounterNetwork
from tests.real.ledger.scoped import Scoped
from verifier import fabric
from verifier.fabric_ledger import read_fabric


@pytest.fixture(scope="module", params=("raft1", "bft4"))
def counter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterNetwork]:
    line = not_run(os.environ.get(FABRIC_BIN))
    if line:
        pytest.skip(line)
    found = CounterNetwork(tmp_path_factory.mktemp(request.param), request.param)
    try:
        found.start()
        yield found
    finally:
        found.stop()


class TestChannelOnFabric(LedgerSuite):
    @pytest.fixture
    async def reopen(self, counter: CounterNetwork, request: pytest.FixtureRequest) -> AsyncIterator[Reopen]:
        ledgers: list[ChannelLedger] = []

        async def again() -> Scoped:
            for ledger in ledgers:
                await ledger.close()
            ledgers[:] = [await open_channel_ledger(counter.settings())]
            return Scoped(ledgers[0], str(abs(hash(request.node.nodeid))))

        yield again
        for ledger in ledgers:
            await ledger.close()


async def test_evidence_of_a_real_network_holds(counter: CounterNetwork) -> None:
    ledger = await open_channel_ledger(counter.settings(), clock=lambda: 1_478_563_200.5)
    await asyncio.gather(*(add(ledger, f"evidence/{number}") for number in range(5)))
    receipt = await ledger.submit("counter", "add", {"key": "evidence", "by": 2}, submitter="tester", request_id="e")
    evidence, trust = await ledger.evidence(receipt.transaction), json.loads(json.dumps(ledger.trust()))
    await ledger.close()
    channel = read_fabric(trust)
    assert (trust["kind"], trust["policy"]["endorsements"], channel.genuine) == ("fabric", 2, True)
    assert trust["policy"]["orderers"] == (3 if "BFT" in trust["note"] else 1)
    found = fabric.transaction_of(evidence, channel, "evidence")
    assert (found["id"], found["submitter"], found["args"], found["time"]) == (
        receipt.transaction,
        "tester",
        {"by": 2, "key": "evidence"},
        "2016-11-08T00:00:00Z",  # the city's clock, which a replay sets
    )
    assert "organisations signed that it is valid" in fabric.require_in_block(evidence, channel, "evidence")


@pytest.mark.parametrize("wrong", [{"channel": "elsewhere"}, {"msp": "UtilityMSP"}])
async def test_a_wrong_channel_or_organisation_stops_at_start(counter: CounterNetwork, wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="check CITY_FABRIC_CHANNEL"):
        await open_channel_ledger(dataclasses.replace(counter.settings(), **wrong))  # type: ignore[arg-type]


async def test_a_contract_that_is_not_on_the_channel_is_not_found(counter: CounterNetwork) -> None:
    ledger = await open_channel_ledger(counter.settings())
    with pytest.raises(NotFound, match=r"no contract for nothing\.add"):
        await ledger.submit("nothing", "add", {}, submitter="tester", request_id="r")
    with pytest.raises(PermissionDenied, match="no certificate of parking"):
        await ledger.submit("counter", "add", {}, submitter="parking", request_id="r")
    await ledger.close()
