"""The city's own contracts on a real network, as `city ledger network deploy` brings them: decisions, who may make them, who endorses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from citykit.errors import CityError, FailedPrecondition, Unavailable
from citykit.ledger.channel import ChannelLedger, open_channel_ledger
from citykit.ledger.port import ContractRefused, Receipt
from citykit.settings import read_settings
from infra.fabric import Network, network, read_policies
from infra.fabric.connection import city_settings
from services.commands.ledger_network import city_chaincodes
from verifier import fabric
from verifier.fabric_ledger import read_fabric

SERVICES = ("notary", "metering", "payments")
ROOT = "ab" * 32


@pytest.fixture(scope="module", params=("raft1", "bft4"))
def net(
    request: pytest.FixtureRequest, fabric_bin: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    found = network(tmp_path_factory.mktemp(request.param), request.param)
    try:
        found.up()
        city_chaincodes(found).deploy()
        yield found
    finally:
        found.down()


@asynccontextmanager
async def ledger_of(net: Network, service: str) -> AsyncIterator[ChannelLedger]:
    """The ledger as one service of the city opens it."""
    settings = read_settings(
        {name: value.format(service=service) for name, value in city_settings(net, SERVICES).items()}
    )
    ledger = await open_channel_ledger(settings.fabric)
    try:
        yield ledger
    finally:
        await ledger.close()


def test_every_contract_is_there_under_its_policy_and_a_second_deploy_changes_nothing(net: Network) -> None:
    chaincodes = city_chaincodes(net)
    assert set(net.lifecycle.definitions()) == set(read_policies())
    assert chaincodes.changes() == {}
    height = net.height(net.plan.peers[0])
    assert {one.sequence for one in chaincodes.deploy().values()} == {1}
    assert net.height(net.plan.peers[0]) == height


async def test_an_anchor_is_recorded_once_and_its_evidence_holds(net: Network) -> None:
    head = {"origin": "city.test/log", "proof": [], "root": ROOT, "size": 3}
    async with ledger_of(net, "notary") as ledger:
        receipt = await ledger.submit("anchors", "record", {"heads": [head]}, submitter="notary", request_id="a1")
        again = await ledger.submit("anchors", "record", {"heads": [head]}, submitter="notary", request_id="a1")
        assert again == receipt
        found = await ledger.evaluate("anchors", "head", {"origin": head["origin"]})
        assert (found["size"], found["transaction"]) == (3, receipt.transaction)
        with pytest.raises(ContractRefused) as raised:
            back = {"heads": [{**head, "size": 2}]}
            await ledger.submit("anchors", "record", back, submitter="notary", request_id="a2")
        assert raised.value.reason == "rollback"
        evidence, trust = await ledger.evidence(receipt.transaction), ledger.trust()
    proved = fabric.transaction_of(evidence, read_fabric(trust), "evidence")
    assert (proved["contract"], proved["function"], proved["submitter"]) == ("anchors", "record", "notary")


async def test_a_service_cannot_decide_for_another(net: Network) -> None:
    async with ledger_of(net, "metering") as ledger:
        heads = {"heads": [{"origin": "city.test/other", "proof": [], "root": ROOT, "size": 1}]}
        with pytest.raises(ContractRefused) as raised:
            await ledger.submit("anchors", "record", heads, submitter="metering", request_id="m1")
    assert raised.value.reason == "submitter-not-allowed"


async def test_a_day_of_money_is_not_closed_without_the_auditors_peer(net: Network) -> None:
    day = {"day": "2026-01-01", "captured_minor": 5, "refunded_minor": 0, "transfers_size": 1}
    async with ledger_of(net, "payments") as ledger:
        await asyncio.to_thread(net.kill, "peer-auditor")
        try:
            with pytest.raises(CityError) as raised:
                await ledger.submit("payments-days", "close", day, submitter="payments", request_id="d1")
            assert isinstance(raised.value, Unavailable | FailedPrecondition)
            assert await ledger.evaluate("payments-days", "get", {"day": day["day"]}) is None
        finally:
            await asyncio.to_thread(net.start, "peer-auditor")
        await asyncio.to_thread(net.wait_for_endorsers, "anchors", ["head", '{"origin":"x"}', ""])
        receipt = await _until_closed(ledger, day)
        assert receipt.result == {"day": day["day"]}


async def _until_closed(ledger: ChannelLedger, day: dict[str, object]) -> Receipt:
    """The same request until the gateway sees the auditor's peer again."""
    end = asyncio.get_running_loop().time() + 60
    while True:
        try:
            return await ledger.submit("payments-days", "close", day, submitter="payments", request_id="d1")
        except CityError:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.2)


def test_places_hold_no_contract_an_organisation_does_not_run(net: Network) -> None:
    places = {path.stem: path.read_text() for path in (net.plan.state / "places").glob("*.json")}
    assert set(places) == {"auditor", "city", "utility"}
    assert '"billing"' not in places["auditor"]
    assert '"payments-days"' not in places["utility"]
    assert not any("PRIVATE KEY" in text for text in places.values())
    assert all(Path(net.plan.state, "logs", f"chaincode-{name}.log").exists() for name in places)
