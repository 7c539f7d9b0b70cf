"""The chaincode shim against a scripted peer: state, queries, private data, events, identity, batches, other chaincodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fabric_protos.ledger.queryresult import kv_query_result_pb2 as results
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import proposal_response_pb2

from citykit.ledger.fabric.shim import (
    BadKey,
    ChaincodeError,
    ChaincodeServer,
    PeerError,
    Response,
    Stub,
    SyncStub,
    composite_key,
    split_composite_key,
)
from tests.unit.ledger.fake_peer import NOW, FakePeer, Message, broken_creator, creator, reply

Serve = Callable[..., Awaitable[FakePeer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a handler and connects a peer to it."""
    servers: list[ChaincodeServer] = []
    peers: list[FakePeer] = []

    async def start(handler: Any, peer: FakePeer | None = None, **options: Any) -> FakePeer:
        server = ChaincodeServer("label:hash", handler, address="localhost:0", **options)
        servers.append(server)
        peers.append(await (peer or FakePeer()).connect(await server.start()))
        return peers[-1]

    yield start
    for peer in peers:
        await peer.close()
    for server in servers:
        await server.stop()


async def counter(stub: Stub) -> Response:
    key = stub.args[1].decode()
    value = int(await stub.get(key) or b"0") + 1
    stub.put(key, str(value).encode())
    stub.set_event("counted", key.encode())
    return Response(payload=str(value).encode())


def plain_counter(stub: SyncStub) -> bytes:
    key = stub.args[1].decode()
    value = int(stub.get(key) or b"0") + 1
    stub.put(key, str(value).encode())
    stub.set_event("counted", key.encode())
    return str(value).encode()


@pytest.mark.parametrize("handler", [counter, plain_counter])
async def test_a_transaction_reads_writes_and_tells(serve: Serve, handler: Any) -> None:
    peer = await serve(handler)
    assert peer.package_id == "label:hash"
    for expected in (b"1", b"2"):
        outcome = await peer.invoke("add", "a")
        assert (outcome.status, outcome.payload, outcome.event) == (200, expected, ("counted", b"a"))
    assert peer.state == {"a": b"2"}


async def test_reads_never_see_own_writes(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        stub.put("a", b"new")
        stub.delete("b")
        return (await stub.get("a") or b"-") + b" " + (await stub.get("b") or b"-")

    peer = await serve(handler)
    peer.state = {"a": b"old", "b": b"there"}
    assert (await peer.invoke("f")).payload == b"old there"
    assert peer.state == {"a": b"new"}


async def test_a_range_is_read_in_batches_and_closed_when_left_early(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        start, end, limit = (arg.decode() for arg in stub.args)
        if limit:
            return b",".join(entry.value for entry in await stub.range(start, end).take(int(limit)))
        return b",".join([entry.value async for entry in stub.range(start, end)])

    peer = await serve(handler, FakePeer(results_max=2))
    peer.state = {key: key.encode() for key in ("a1", "a2", "a3", "a4", "a5", "b")}
    peer.state[composite_key("t", ["x"])] = b"composite"
    assert (await peer.invoke("a", "b", "")).payload == b"a1,a2,a3,a4,a5"
    assert (await peer.invoke("", "", "")).payload == b"a1,a2,a3,a4,a5,b"
    assert peer.open_queries == {}
    assert (await peer.invoke("a", "", "3")).payload == b"a1,a2,a3"
    assert peer.open_queries == {}
    assert "QUERY_STATE_CLOSE" in peer.requests


async def test_pages_go_on_from_their_bookmark(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        page = await stub.range_page("", "", page_size=2, bookmark=stub.args[0].decode())
        return b",".join(entry.value for entry in page.entries) + b" then " + page.bookmark.encode()

    peer = await serve(handler)
    peer.state = {key: key.encode() for key in "abc"}
    assert (await peer.invoke("")).payload == b"a,b then c"
    assert (await peer.invoke("c")).payload == b"c then "


async def test_plain_code_iterates_composite_keys_history_and_ranges(serve: Serve) -> None:
    def handler(stub: SyncStub) -> bytes:
        parts = [split_composite_key(entry.key)[1][-1] for entry in stub.by_partial_key("home", ["north"])]
        changes = [(change.txid, change.value, change.time_ns, change.deleted) for change in stub.history("a")]
        assert changes == [("t2", b"", 2_000_000_005, True), ("t1", b"1", 1_000_000_000, False)]
        return ",".join([*parts, *(entry.key for entry in stub.range("a", "b").take(5))]).encode()

    peer = await serve(handler)
    for key in (["north", "1"], ["north", "2"], ["south", "3"]):
        peer.state[composite_key("home", key)] = b"x"
    peer.state["a"] = b"1"
    older, newer = results.KeyModification(tx_id="t1", value=b"1"), results.KeyModification(tx_id="t2", is_delete=True)
    older.timestamp.seconds, newer.timestamp.seconds, newer.timestamp.nanos = 1, 2, 5
    peer.history["a"] = [newer, older]
    assert (await peer.invoke("f")).payload == b"1,2,a"


async def test_private_data_stays_in_its_collection(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        stub.put("k", stub.transient["secret"], collection="c")
        stub.purge("old", collection="c")
        stub.delete("gone", collection="c")
        found = [entry.key async for entry in stub.range("", "", collection="c")]
        digest = await stub.private_hash("k", collection="c") or b""
        return repr((await stub.get("k", collection="c"), await stub.get("k"), found, digest.hex()[:8])).encode()

    peer = await serve(handler)
    assert (await peer.invoke("f", transient={"secret": b"s"})).payload == b"(None, None, [], '')"
    assert peer.state == {"c|k": b"s"}
    assert (await peer.invoke("f", transient={"secret": b"s"})).payload == b"(b's', None, ['k'], '043a7187')"


async def test_who_asks_and_when_is_read_from_the_proposal(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        who = stub.creator
        return repr((who.msp_id, who.common_name, who.attribute("role"), who.attribute("none"), stub.time_ns)).encode()

    peer = await serve(handler)
    identity = creator("meter-7", "UtilityMSP", role="reader")
    assert (await peer.invoke("f", identity=identity)).payload == repr(
        ("UtilityMSP", "meter-7", "reader", None, NOW * 10**9)
    ).encode()
    assert b"'tester', None" in (await peer.invoke("f")).payload


async def test_channel_id_binding_and_other_facts_are_there(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        assert len(stub.proposal.binding) == 32
        assert stub.proposal.signed.proposal_bytes
        assert stub.decorations == {}
        return f"{stub.channel} {stub.txid}".encode()

    assert (await (await serve(handler)).invoke("f", txid="t1")).payload == b"city t1"


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (0, ["PUT_STATE", "PUT_STATE", "DEL_STATE", "PUT_STATE_METADATA", "PURGE_PRIVATE_DATA"]),
        (100, ["WRITE_BATCH_STATE"]),
        (2, ["WRITE_BATCH_STATE", "WRITE_BATCH_STATE", "PURGE_PRIVATE_DATA"]),
    ],
)
async def test_writes_go_in_batches_where_the_peer_takes_them(serve: Serve, offer: int, expected: list[str]) -> None:
    async def handler(stub: Stub) -> None:
        stub.put("a", b"1")
        stub.put("b", b"2")
        stub.delete("a")
        stub.set_validation_parameter("b", b"policy")
        stub.purge("p", collection="c")

    peer = await serve(handler, FakePeer(writes=offer))
    outcome = await peer.invoke("f")
    assert peer.requests == expected
    assert outcome.writes == {"a": None, "b": b"2", "b#VALIDATION_PARAMETER": b"policy", "c|p": None}


@pytest.mark.parametrize(
    ("offer", "expected"), [(0, ["GET_STATE"] * 5), (2, ["GET_STATE_MULTIPLE"] * 3), (100, ["GET_STATE_MULTIPLE"])]
)
async def test_many_reads_go_together_where_the_peer_takes_that(serve: Serve, offer: int, expected: list[str]) -> None:
    async def handler(stub: Stub) -> bytes:
        return repr(await stub.get_many(["a", "b", "c", "d", "e"])).encode()

    peer = await serve(handler, FakePeer(reads=offer))
    peer.state = {"a": b"1", "d": b"4"}
    assert (await peer.invoke("f")).payload == b"[b'1', None, None, b'4', None]"
    assert peer.requests == expected


async def test_another_chaincode_is_called_in_the_same_transaction(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        answer = await stub.invoke("other", [b"x", b"y"], channel="elsewhere")
        return f"{answer.status} {answer.message} {answer.payload.decode()} {answer.ok}".encode()

    peer = await serve(handler)
    peer.called["other/elsewhere"] = lambda args: proposal_response_pb2.Response(
        status=404, message="none", payload=b"-".join(args)
    )
    assert (await peer.invoke("f")).payload == b"404 none x-y False"
    peer.called.clear()
    outcome = await peer.invoke("f")
    assert (outcome.status, outcome.message) == (500, "chaincode other/elsewhere not found")


async def test_a_keys_own_policy_is_read_and_written(serve: Serve) -> None:
    def handler(stub: SyncStub) -> bytes:
        before = stub.validation_parameter("a")
        stub.set_validation_parameter("a", b"both")
        return before or b"none"

    peer = await serve(handler)
    assert (await peer.invoke("f")).payload == b"none"
    assert (await peer.invoke("f")).payload == b"both"


async def test_initialisation_runs_where_it_is_asked_for(serve: Serve) -> None:
    async def init(stub: Stub) -> None:
        if stub.args[0] == b"bad":
            raise ChaincodeError("no such mode")
        stub.put("mode", stub.args[0])

    peer = await serve(counter, init=init)
    assert (await peer.invoke("fast", init=True)).status == 200
    assert peer.state == {"mode": b"fast"}
    assert (await peer.invoke("bad", init=True)).message == "no such mode"
    assert (await (await serve(counter)).invoke("x", init=True)).status == 200


async def test_a_plain_handler_has_every_call_of_an_asynchronous_one(serve: Serve) -> None:
    def handler(stub: SyncStub) -> bytes:
        stub.put("k", b"v", collection="c")
        stub.delete("gone")
        stub.purge("old", collection="c")
        page = stub.range_page("a", "c", page_size=1)
        found = stub.range("a", "c")
        first = next(iter(found))
        found.close()
        other = stub.invoke("other", [b"x"])
        with pytest.raises(PeerError, match="not supported"):
            stub.query("{}").take(1)
        with pytest.raises(PeerError, match="not supported"):
            stub.query_page("{}", page_size=1)
        with pytest.raises(ValueError, match="at least one"):
            stub.range_page(page_size=0)
        return repr((page.bookmark, first.key, other.payload, stub.get_many(["a", "x"]), stub.private_hash("k", collection="c"),
                     stub.transient["t"], stub.creator.common_name, stub.time_ns // 10**9 == NOW)).encode()  # fmt: skip

    peer = await serve(handler, FakePeer(results_max=1, reads=10))
    peer.state = {"a": b"1", "b": b"2"}
    peer.called["other"] = lambda args: proposal_response_pb2.Response(status=200, payload=args[0])
    assert (await peer.invoke("f", transient={"t": b"t"})).payload == (
        b"('b', 'a', b'x', [b'1', None], None, b't', 'tester', True)"
    )
    assert peer.open_queries == {}


async def test_an_identity_without_a_certificate_has_an_organisation_and_nothing_more(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        who = stub.creator
        return repr((who.msp_id, who.certificate, who.common_name, dict(who.attributes), who.units)).encode()

    identity = identities_pb2.SerializedIdentity(mspid="IdemixMSP", id_bytes=b"no PEM").SerializeToString()
    assert (await (await serve(handler)).invoke("f", identity=identity)).payload == b"('IdemixMSP', b'', '', {}, ())"


async def test_attributes_that_do_not_read_end_the_transaction(serve: Serve) -> None:
    async def handler(stub: Stub) -> bytes:
        return str(stub.creator.attributes).encode()

    outcome = await (await serve(handler)).invoke("f", identity=broken_creator())
    assert (outcome.status, "ShimError" in outcome.message) == (500, True)


async def test_a_called_chaincode_that_does_not_complete_is_an_error(serve: Serve) -> None:
    async def handler(stub: Stub) -> Response:
        return await stub.invoke("other", [])

    peer = await serve(handler)
    failed = Message(type=Message.ERROR, payload=b"it broke").SerializeToString()
    peer.script = lambda request: reply(request, failed)
    assert (await peer.invoke("f")).message == "it broke"


def test_composite_keys_split_into_what_they_were_made_of() -> None:
    for parts in ((), ("",), ("a", "ä", "")):
        assert split_composite_key(composite_key("type", parts)) == ("type", parts)
    for bad in ("\x00", "a\x00b", "a\U0010ffff", "\ud800"):
        with pytest.raises(BadKey):
            composite_key("type", [bad])
    with pytest.raises(BadKey, match="object type"):
        composite_key("", ["a"])
    with pytest.raises(BadKey, match="not a composite key"):
        split_composite_key("plain")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda stub: stub.put("", b"x"), "not empty"),
        (lambda stub: stub.put("\ud800", b"x"), "Unicode"),
        (lambda stub: stub.put("a", b""), "not empty"),
        (lambda stub: stub.range("\x00a", ""), "U\\+0000"),
        (lambda stub: stub.set_event("", b""), "needs a name"),
    ],
)
async def test_what_fabric_does_not_take_is_refused_at_once(
    serve: Serve, act: Callable[[Stub], None], message: str
) -> None:
    async def handler(stub: Stub) -> None:
        with pytest.raises(ValueError, match=message):
            act(stub)

    assert (await (await serve(handler)).invoke("f")).status == 200
