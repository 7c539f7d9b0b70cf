"""The chaincode shim under load and faults: many transactions on one stream, peers that refuse, vanish, return or break the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from citykit.ledger.fabric.shim import (
    ChaincodeError,
    ChaincodeServer,
    Limits,
    PeerError,
    Response,
    ServerTls,
    Stub,
    SyncStub,
    wait,
)
from tests.unit.ledger.fake_peer import DEADLINE_S, FakePeer, Message, creator, reply, transaction, until

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server; every server is stopped at the end."""
    servers: list[ChaincodeServer] = []

    async def started(handler: Any, **options: Any) -> ChaincodeServer:
        server = ChaincodeServer("label:hash", handler, address="localhost:0", **options)
        servers.append(server)
        await server.start()
        return server

    yield started
    for server in servers:
        await server.stop()


@contextlib.asynccontextmanager
async def connected(server: ChaincodeServer, peer: FakePeer | None = None) -> AsyncIterator[FakePeer]:
    peer = await (peer or FakePeer()).connect(server.port)
    try:
        yield peer
    finally:
        await peer.close()


async def copy(stub: Stub) -> bytes:
    value = await stub.get(stub.args[0].decode()) or b"none"
    stub.put(f"copy/{stub.txid}", value)
    return value


def plain_copy(stub: SyncStub) -> bytes:
    value = stub.get(stub.args[0].decode()) or b"none"
    stub.put(f"copy/{stub.txid}", value)
    return value


@pytest.mark.parametrize("handler", [copy, plain_copy])
async def test_transactions_run_side_by_side_on_one_stream(start: Start, handler: Any) -> None:
    held: list[Any] = []

    def hold(request: Any) -> Any:
        if request.type != Message.GET_STATE:
            return NotImplemented
        held.append(request)

    async with connected(await start(handler)) as peer:
        peer.state = {f"k{number}": str(number).encode() for number in range(200)}
        peer.script = hold
        calls = [asyncio.create_task(peer.invoke(f"k{number}")) for number in range(200)]
        await until(lambda: len(held) == 200)
        assert peer.most_running == 200
        for request in reversed(held):
            await peer.send(peer.answer(request))
        outcomes = await asyncio.gather(*calls)
        assert [outcome.payload for outcome in outcomes] == [str(number).encode() for number in range(200)]
        assert peer.overlaps == 0


async def test_requests_of_one_transaction_wait_for_each_other(start: Start) -> None:
    async def handler(stub: Stub) -> bytes:
        return b"".join(value or b"-" for value in await asyncio.gather(*(stub.get(key) for key in "abc")))

    async with connected(await start(handler)) as peer:
        peer.state = {"a": b"1", "c": b"3"}
        assert (await peer.invoke("f")).payload == b"1-3"
        assert peer.overlaps == 0


@pytest.mark.parametrize("plain", [False, True])
async def test_a_peers_error_is_an_exception_and_ends_the_transaction(start: Start, plain: bool) -> None:
    async def handler(stub: Stub) -> bytes:
        if stub.args[0] == b"catch":
            with pytest.raises(PeerError, match="no ledger"):
                await stub.get("a")
            return b"caught"
        return await stub.get("a") or b"never"

    def plain_handler(stub: SyncStub) -> bytes:
        if stub.args[0] == b"catch":
            with pytest.raises(PeerError, match="no ledger"):
                stub.get("a")
            return b"caught"
        return stub.get("a") or b"never"

    async with connected(await start(plain_handler if plain else handler)) as peer:
        peer.script = lambda request: reply(request, b"no ledger context", Message.ERROR)
        assert (await peer.invoke("catch")).payload == b"caught"
        outcome = await peer.invoke("f")
        assert (outcome.status, outcome.message) == (500, "no ledger context")


async def test_a_write_the_peer_refuses_ends_the_transaction(start: Start) -> None:
    async with connected(await start(copy)) as peer:
        peer.script = lambda request: (
            reply(request, b"no write access", Message.ERROR) if request.type == Message.PUT_STATE else NotImplemented
        )
        outcome = await peer.invoke("a")
        assert (outcome.status, outcome.message, outcome.event) == (500, "no write access", None)


async def test_a_handler_that_fails_answers_an_error_and_writes_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stub: Stub) -> Any:
        stub.put("a", b"1")
        stub.set_event("e", b"")
        match stub.args[0]:
            case b"refuse":
                raise ChaincodeError("not so", status=409)
            case b"answer":
                return Response(400, "bad", b"more")
            case b"odd":
                return "text"
        raise KeyError("a name nobody should see")

    with caplog.at_level(logging.CRITICAL):
        async with connected(await start(handler)) as peer:
            outcomes = {act: await peer.invoke(act) for act in ("refuse", "answer", "odd", "fail")}
            assert peer.requests == []
    assert {act: (outcome.status, outcome.message) for act, outcome in outcomes.items()} == {
        "refuse": (409, "not so"),
        "answer": (400, "bad"),
        "odd": (500, "the chaincode failed with TypeError; its log says more"),
        "fail": (500, "the chaincode failed with KeyError; its log says more"),
    }
    assert all(outcome.event is None for outcome in outcomes.values())
    with pytest.raises(ValueError, match="from 400 up"):
        ChaincodeError("fine", status=200)


async def test_an_answer_too_large_becomes_an_error(start: Start) -> None:
    async def handler(stub: Stub) -> bytes:
        if stub.args[0] == b"read":
            await stub.get("k" * 5_000)
        if stub.args[0] == b"write":
            stub.put("a", b"v" * 5_000)
        return b"x" * 5_000

    async with connected(await start(handler, limits=Limits(message_bytes=4_096))) as peer:
        for act, message in (("answer", "answer not sent"), ("read", "at most 4096"), ("write", "at most 4096")):
            outcome = await peer.invoke(act)
            assert outcome.status == 500
            assert message in outcome.message
        assert outcome.writes == {}


async def test_batches_stay_below_the_size_limit(start: Start) -> None:
    async def handler(stub: Stub) -> None:
        for number in range(6):
            stub.put(f"k{number}", b"v" * 400)

    async with connected(await start(handler, limits=Limits(batch_bytes=1_000)), FakePeer(writes=100)) as peer:
        await peer.invoke("f")
        assert peer.requests == ["WRITE_BATCH_STATE"] * 3
        assert len(peer.state) == 6


async def test_writes_are_counted(start: Start) -> None:
    async def handler(stub: Stub) -> None:
        for number in range(4):
            stub.put(f"k{number}", b"v")

    async with connected(await start(handler, limits=Limits(writes=3))) as peer:
        assert "at most 3 times" in (await peer.invoke("f")).message


@pytest.mark.parametrize("plain", [False, True])
async def test_a_cut_stream_cancels_what_runs_and_a_peer_that_returns_is_served(start: Start, plain: bool) -> None:
    ended: list[str] = []

    async def handler(stub: Stub) -> bytes:
        try:
            return await stub.get("a") or b"none"
        except asyncio.CancelledError:
            ended.append(stub.txid)
            raise

    def plain_handler(stub: SyncStub) -> bytes:
        try:
            return stub.get("a") or b"none"
        except asyncio.CancelledError:
            ended.append(stub.txid)
            raise

    server = await start(plain_handler if plain else handler)
    peer = await FakePeer().connect(server.port)
    peer.script = lambda request: None
    calls = [asyncio.create_task(peer.invoke("f", txid=f"t{number}")) for number in range(3)]
    await until(lambda: len(peer.requests) == 3)
    assert (server.streams, server.running) == (1, 3)
    await peer.close()
    await until(lambda: server.streams == 0 and server.running == 0)
    assert sorted(ended) == ["t0", "t1", "t2"]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with connected(server) as again:
        assert (await again.invoke("f")).payload == b"none"


async def test_two_peers_are_served_at_once_and_a_third_is_told_it_is_too_many(start: Start) -> None:
    server = await start(copy, limits=Limits(streams=2))
    async with connected(server) as one, connected(server) as two:
        one.state, two.state = {"a": b"1"}, {"a": b"2"}
        outcomes = await asyncio.gather(one.invoke("a", txid="same"), two.invoke("a", txid="same"))
        assert [outcome.payload for outcome in outcomes] == [b"1", b"2"]
        with pytest.raises(grpc.aio.AioRpcError, match="2 peers are connected"):
            await FakePeer().connect(server.port)


async def test_a_transaction_has_a_deadline(start: Start) -> None:
    def handler(stub: SyncStub) -> bytes:
        return stub.get("a") or b"none"

    late: list[Any] = []
    async with connected(await start(handler, limits=Limits(transaction_s=0.05))) as peer:
        peer.script = late.append
        outcome = await peer.invoke("f", txid="t1")
        assert (outcome.status, outcome.message) == (500, "the chaincode took longer than 0.05 s")
        await peer.send(peer.answer(late[0]))
        peer.script = lambda request: NotImplemented
        assert (await peer.invoke("f")).payload == b"none"


async def test_more_transactions_than_the_limit_are_told_to_try_again(start: Start) -> None:
    async with connected(await start(copy, limits=Limits(transactions=2))) as peer:
        peer.script = lambda request: None
        held = [asyncio.create_task(peer.invoke("a")) for _ in range(2)]
        await until(lambda: len(peer.requests) == 2)
        outcome = await peer.invoke("a")
        assert (outcome.status, "try again" in outcome.message) == (503, True)
        for call in held:
            call.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_a_chaincode_that_calls_itself_is_refused_not_hung(start: Start) -> None:
    async with connected(await start(copy)) as peer:
        peer.script = lambda request: None
        first = asyncio.create_task(peer.invoke("a", txid="t"))
        await until(lambda: len(peer.requests) == 1)
        second = await peer.invoke("a", txid="t")
        assert (second.status, "cannot call itself" in second.message) == (503, True)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_keep_alives_are_answered_and_stray_answers_ignored(start: Start) -> None:
    async with connected(await start(copy)) as peer:
        await peer.send(Message(type=Message.RESPONSE, txid="nobody", channel_id="city"))
        for _ in range(3):
            await peer.send(Message(type=Message.KEEPALIVE))
        await until(lambda: peer.echoes == 3)
        assert (await peer.invoke("a")).status == 200


@pytest.mark.parametrize(
    "message", [Message(type=Message.REGISTER), Message(type=99), Message(type=Message.READY, payload=b"\xff")]
)
async def test_a_peer_that_breaks_the_protocol_is_cut_off(start: Start, message: Any) -> None:
    server = await start(copy)
    peer = await FakePeer().connect(server.port)
    await peer.send(message)
    assert await peer.ended() is grpc.StatusCode.FAILED_PRECONDITION
    await peer.close()


async def test_stopping_lets_running_transactions_end_and_refuses_new_ones(start: Start) -> None:
    server = await start(copy)
    async with connected(server) as peer:
        held: list[Any] = []
        peer.script = lambda request: NotImplemented if held else held.append(request)
        running = asyncio.create_task(peer.invoke("a"))
        await until(lambda: len(held) == 1)
        stopping = asyncio.create_task(server.stop())
        outcome = await refused(peer)
        assert (outcome.status, "stopping" in outcome.message) == (503, True)
        with pytest.raises(grpc.aio.AioRpcError, match="stopping"):
            await FakePeer().connect(server.port)
        await peer.send(peer.answer(held[0]))
        assert (await running).status == 200
        await stopping
        assert await peer.ended() is grpc.StatusCode.OK


async def refused(peer: FakePeer) -> Any:
    """The first outcome that is a refusal; until then the server does not stop yet."""
    async with asyncio.timeout(DEADLINE_S):
        while (outcome := await peer.invoke("b")).status == 200:
            await asyncio.sleep(0.005)
    return outcome


async def test_wait_works_only_in_plain_handlers(start: Start) -> None:
    async def handler(stub: Stub) -> None:
        waiting = stub.get("a")
        with pytest.raises(RuntimeError, match="run_plain"):
            wait(waiting)
        waiting.close()

    async with connected(await start(handler)) as peer:
        assert (await peer.invoke("f")).status == 200


async def test_a_server_that_cannot_serve_says_so(start: Start, tmp_path: Path) -> None:
    server = await start(copy)
    with pytest.raises(OSError, match="cannot bind"):
        await ChaincodeServer("label:hash", copy, address=f"localhost:{server.port}").start()
    with pytest.raises(OSError, match="No such file"):
        missing = ServerTls(tmp_path / "none.pem", tmp_path / "none.key")
        await ChaincodeServer("label:hash", copy, address="localhost:0", tls=missing).start()
    with pytest.raises(ValueError, match="id of its package"):
        ChaincodeServer("", copy, address="localhost:0")


async def test_a_transaction_before_readiness_is_a_breach(start: Start) -> None:
    server = await start(copy)
    async with grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
        method: Any = channel.stream_stream("/protos.Chaincode/Connect", Message.SerializeToString, Message.FromString)
        call = method()
        assert (await call.read()).type == Message.REGISTER
        await call.write(transaction("t", [b"a"], creator(), {}))
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
