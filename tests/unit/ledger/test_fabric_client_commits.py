"""Commits told by a stream: the same outcomes as asked for one by one, with cuts, copies and a stream that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fabric_protos.gateway import gateway_pb2

from citykit.ledger.fabric import Commits, Connection, Deadlines, EcdsaSigner, Gateway, Retry, connect
from citykit.ledger.fabric.errors import CommitInvalid, OutcomeUnknown, SubmitError
from tests.unit.ledger.fake_gateway import (
    CONFLICT,
    KEY,
    MEMBER,
    Act,
    FakeGateway,
    chain_info,
    fails,
    hangs,
    made_chain,
    served,
)

DUPLICATE = 9


@pytest.fixture
async def fake() -> FakeGateway:
    fake = FakeGateway()
    fake.chain = made_chain([0], [0])
    fake.script["Evaluate"] = [chain_info(2)]
    return fake


@pytest.fixture
async def connection(fake: FakeGateway) -> AsyncIterator[Connection]:
    server, address = await served(fake)
    retry = Retry(tries=3, first_s=0.001, longest_s=0.002)
    async with connect(address, retry=retry, deadlines=Deadlines(commit_s=30)) as made:
        yield made
    await server.stop(None)


@pytest.fixture
async def gateway(connection: Connection) -> AsyncIterator[Gateway]:
    reader = Gateway(connection, "city", MEMBER, EcdsaSigner(KEY))
    commits = Commits(reader)
    yield Gateway(connection, "city", MEMBER, EcdsaSigner(KEY), watch=commits)
    await commits.close()


def committed_as(fake: FakeGateway, *codes: int) -> Act:
    """An act of Submit that commits the transaction at once, once for each code."""

    async def act(request: Any, _: Any) -> Any:
        for code in codes:
            fake.commit([code], [request])
        return gateway_pb2.SubmitResponse()

    return act


async def test_commits_are_told_without_a_question(fake: FakeGateway, gateway: Gateway) -> None:
    async def all_in_one_block(request: Any, _: Any) -> Any:
        if len(fake.asked["Submit"]) == 20:
            fake.commit([0] * 20, list(fake.asked["Submit"]))
        return gateway_pb2.SubmitResponse()

    fake.script["Submit"] = [all_in_one_block] * 20
    done = await asyncio.gather(*(gateway.submit("assets", "create", [bytes([n])]) for n in range(20)))
    assert sorted(item.index for item in done) == list(range(1, 21))
    assert {item.block for item in done} == {2}
    assert [item.transaction_id for item in sorted(done, key=lambda item: item.index)] == [
        request.transaction_id for request in fake.asked["Submit"]
    ]
    assert fake.asked["CommitStatus"] == []
    assert len(fake.asked["DeliverFiltered"]) == 1


async def test_invalid_commits_are_told_alike(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Submit"] = [committed_as(fake, CONFLICT)]
    with pytest.raises(CommitInvalid, match="block 2 as invalid: MVCC_READ_CONFLICT"):
        await gateway.submit("assets", "create")


async def test_a_cut_stream_misses_no_commit(fake: FakeGateway, gateway: Gateway) -> None:
    fake.cut_after = [0, 0]
    fake.script["Submit"] = [committed_as(fake, 0)]
    assert (await gateway.submit("assets", "create")).block == 2
    assert fake.asked["CommitStatus"] == []


async def test_where_the_stream_is_refused_each_is_asked_for(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["DeliverFiltered"] = [fails(grpc.StatusCode.PERMISSION_DENIED, "no reader")] * 2
    for _ in range(2):
        done = await gateway.submit("assets", "create")
        assert (done.block, done.index) == (9, -1)
    fake.script["Submit"] = [committed_as(fake, 0)]
    assert (await gateway.submit("assets", "create")).index == 1


async def test_where_the_height_cannot_be_read_each_is_asked_for(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Evaluate"] = [fails(grpc.StatusCode.UNAVAILABLE)] * 3
    assert (await gateway.submit("assets", "create")).block == 9


async def test_a_second_copy_does_not_hide_how_the_first_was_committed(fake: FakeGateway, gateway: Gateway) -> None:
    """Sent again after an unknown outcome: the copy comes as a duplicate, the answer is the first's."""
    fake.script["Submit"] = [committed_as(fake, DUPLICATE)]
    done = await gateway.submit("assets", "create")
    assert (done.block, done.index) == (9, -1)
    assert len(fake.asked["CommitStatus"]) == 1


async def test_the_first_copy_counts(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Submit"] = [committed_as(fake, 0, DUPLICATE)]
    assert (await gateway.submit("assets", "create")).block == 2


async def test_what_does_not_come_is_asked_for_once_more_and_then_unknown(
    fake: FakeGateway, connection: Connection
) -> None:
    brief = Connection(connection.channel, deadlines=Deadlines(commit_s=0.1), retry=connection.retry)
    commits = Commits(Gateway(brief, "city", MEMBER, EcdsaSigner(KEY)))
    gateway = Gateway(brief, "city", MEMBER, EcdsaSigner(KEY), watch=commits)
    assert (await gateway.submit("assets", "create")).block == 9
    briefer = Connection(connection.channel, deadlines=Deadlines(commit_s=0.1, doubt_s=0.1), retry=connection.retry)
    fake.script["CommitStatus"] = [hangs()]
    with pytest.raises(OutcomeUnknown):
        await Gateway(briefer, "city", MEMBER, EcdsaSigner(KEY), watch=commits).submit("assets", "create")
    await commits.close()


async def test_nothing_is_waited_for_after_a_refusal(fake: FakeGateway, connection: Connection) -> None:
    commits = Commits(Gateway(connection, "city", MEMBER, EcdsaSigner(KEY)))
    gateway = Gateway(connection, "city", MEMBER, EcdsaSigner(KEY), watch=commits)
    fake.script["Submit"] = [fails(grpc.StatusCode.ABORTED, "BAD_REQUEST")]
    with pytest.raises(SubmitError):
        await gateway.submit("assets", "create")
    await asyncio.sleep(0)
    assert commits._waiting == {}
    await commits.close()
