"""Peers' signatures under a validation code: all at once, each by itself where one is away, and again where one is behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_response_pb2

from citykit.ledger.channel.attestation import attested
from citykit.ledger.fabric import EcdsaSigner, Gateway, Retry, connect, wire
from citykit.ledger.fabric.errors import EndorseError
from tests.unit.ledger.fake_gateway import KEY, MEMBER, Act, FakeGateway, fails, served

ALL = ("AMSP", "BMSP", "CMSP")
BEHIND = "chaincode response 500, Failed to get transaction with id t, error no such transaction ID [t] in index"


@pytest.fixture
async def fake() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def gateway(fake: FakeGateway) -> AsyncIterator[Gateway]:
    server, address = await served(fake)
    async with connect(address, retry=Retry(tries=3, first_s=0.001, longest_s=0.002)) as connection:
        yield Gateway(connection, "city", MEMBER, EcdsaSigner(KEY))
    await server.stop(None)


def peers(*ready: str, words: str = BEHIND) -> Act:
    """An act that endorses where all that are asked are ready."""

    async def act(request: Any, context: Any) -> Any:
        missing = [name for name in request.endorsing_organizations if name not in ready]
        if missing:
            return await fails(grpc.StatusCode.ABORTED, "see details", ((f"{missing[0]}:1", missing[0], words),))(
                request, context
            )
        proposal = request.proposed_transaction.proposal_bytes
        response = proposal_response_pb2.ProposalResponsePayload(proposal_hash=b"h").SerializeToString()
        signed = [(name.encode(), b"signature") for name in request.endorsing_organizations]
        payload = wire.prepare(proposal, response, signed)
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))

    return act


async def test_all_are_asked_at_once(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Endorse"] = [peers(*ALL)]
    [found] = await attested(gateway, "t", ALL, 2)
    assert len(found["endorsements"]) == 3
    assert set(found) == {"payload", "endorsements"}
    assert await attested(gateway, "t", ALL, 0) == []
    assert len(fake.asked["Endorse"]) == 1


async def test_where_one_is_away_the_others_sign_each_by_itself(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Endorse"] = [peers("AMSP", "CMSP", words="away")] * 4
    found = await attested(gateway, "t", ALL, 2)
    assert [len(item["endorsements"]) for item in found] == [1, 1]


async def test_peers_that_are_behind_are_asked_again(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Endorse"] = [*[peers("AMSP")] * 4, peers(*ALL)]
    assert len((await attested(gateway, "t", ALL, 2))[0]["endorsements"]) == 3
    fake.script["Endorse"] = [peers("AMSP")] * 12
    with pytest.raises(EndorseError, match="no such transaction"):
        await attested(gateway, "t", ALL, 2)
    fake.script["Endorse"] = [peers("AMSP", "BMSP")] * 3
    with pytest.raises(EndorseError):
        await attested(gateway, "t", ALL, 3)  # all are needed, so that asking each by itself is no use


async def test_a_refusal_is_not_asked_again(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Endorse"] = [peers(words="access denied")] * 9
    with pytest.raises(EndorseError, match="access denied"):
        await attested(gateway, "t", ALL, 2)
    assert len(fake.asked["Endorse"]) == 4
