"""Events and blocks from a scripted gateway: order, cuts taken up without gap or double, checkpoints that survive a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2

from citykit.ledger.fabric import (
    Connection,
    EcdsaSigner,
    FileCheckpointer,
    Gateway,
    MemoryCheckpointer,
    Place,
    Retry,
    blocks,
    chaincode_events,
    connect,
    system,
)
from citykit.ledger.fabric.blocks import Block, ChaincodeEvent, header_bytes, header_hash, parse_block
from citykit.ledger.fabric.errors import BlockDamaged, CheckpointError, EvaluateError, EventsError, FormError
from tests.unit.ledger.fake_gateway import (
    KEY,
    MEMBER,
    FakeGateway,
    answers,
    chain_info,
    fails,
    made_block,
    made_chain,
    served,
)

QUICK = Retry(tries=3, first_s=0.001, longest_s=0.002)
EVENTS = [(3, "a", "created", b"1"), (3, "b", "created", b"2"), (5, "c", "moved", b"3"), (6, "d", "moved", b"4")]


@pytest.fixture
async def fake() -> FakeGateway:
    fake = FakeGateway()
    fake.events = list(EVENTS)
    fake.chain = made_chain([0], [0, 11, 0], [0], [0, 0])
    return fake


@pytest.fixture
async def connection(fake: FakeGateway) -> AsyncIterator[Connection]:
    server, address = await served(fake)
    async with connect(address, retry=QUICK) as made:
        yield made
    await server.stop(None)


@pytest.fixture
def gateway(connection: Connection) -> Gateway:
    return Gateway(connection, "city", MEMBER, EcdsaSigner(KEY))


async def taken(source: AsyncIterator[Any], count: int) -> list[Any]:
    found: list[Any] = []
    async for item in source:
        found.append(item)
        if len(found) == count:
            break
    await source.aclose()  # type: ignore[attr-defined] # both are generators
    return found


def names(events: list[ChaincodeEvent]) -> list[str]:
    return [event.transaction_id for event in events]


# --- chaincode events -----------------------------------------------------------------------------------


async def test_events_come_in_order_with_what_was_set(fake: FakeGateway, gateway: Gateway) -> None:
    found = await taken(chaincode_events(gateway, "assets", start=0), 4)
    assert found[0] == ChaincodeEvent("assets", "a", "created", b"1", 3)
    assert names(found) == ["a", "b", "c", "d"]
    asked = fake.asked["ChaincodeEvents"][0]
    assert (asked.channel_id, asked.chaincode_id, asked.identity) == ("city", "assets", MEMBER.serialized)


@pytest.mark.parametrize("cuts", [[0], [1], [2, 1], [1, 0, 1], [3, 0], [4]])
async def test_a_cut_stream_goes_on_without_gap_or_double(fake: FakeGateway, gateway: Gateway, cuts: list[int]) -> None:
    fake.cut_after = list(cuts)
    assert names(await taken(chaincode_events(gateway, "assets", start=0), 4)) == ["a", "b", "c", "d"]


async def test_a_peer_that_forgets_the_place_does_not_make_doubles(fake: FakeGateway, gateway: Gateway) -> None:
    """A peer that sends the whole block again: what was seen of that block is not told twice."""
    fake.cut_after = [2]
    source = chaincode_events(gateway, "assets", start=0)
    first = [await anext(source), await anext(source)]
    fake.events = [(3, "b", "created", b"2"), (3, "a", "created", b"1"), *EVENTS[2:]]
    rest = await taken(source, 2)
    assert names(first + rest) == ["a", "b", "c", "d"]


async def test_a_checkpoint_is_gone_on_from(fake: FakeGateway, gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "place.json"
    kept = FileCheckpointer(path, "city/assets")
    async for event in chaincode_events(gateway, "assets", start=0, checkpoint=kept):
        kept.save(event)
        if event.transaction_id == "b":
            break
    again = FileCheckpointer(path, "city/assets")
    assert again.place() == Place(3, "b")
    assert names(await taken(chaincode_events(gateway, "assets", start=0, checkpoint=again), 2)) == ["c", "d"]


async def test_without_a_start_it_begins_at_the_next_block(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Evaluate"] = [chain_info(6)]
    assert names(await taken(chaincode_events(gateway, "assets"), 1)) == ["d"]


async def test_refused_readers_and_lasting_cuts_are_told(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["ChaincodeEvents"] = [fails(grpc.StatusCode.PERMISSION_DENIED, "no reader")]
    with pytest.raises(EventsError, match="no reader"):
        await taken(chaincode_events(gateway, "assets", start=0), 1)
    fake.script["ChaincodeEvents"] = [fails(grpc.StatusCode.UNAVAILABLE, "away")] * 9
    with pytest.raises(EventsError, match="away") as away:
        await taken(chaincode_events(gateway, "assets", start=0), 1)
    assert away.value.unavailable
    assert len(fake.asked["ChaincodeEvents"]) == 1 + QUICK.tries


# --- blocks ---------------------------------------------------------------------------------------------


async def test_blocks_are_asked_for_with_a_signature_and_told_as_values(fake: FakeGateway, gateway: Gateway) -> None:
    found = await taken(blocks(gateway, start=1), 3)
    assert [block.number for block in found] == [1, 2, 3]
    assert [item.code for item in found[0].transactions] == [0, 11, 0]
    item = found[0].transactions[0]
    assert (item.kind, item.time, item.creator) == (3, 1_700_000_000, ("TestMSP", MEMBER.certificate))
    assert item.call is not None
    assert (item.call.chaincode, item.call.arguments, item.call.status, item.call.result) == (
        "assets", (b"create", b"x"), 200, b"made",
    )  # fmt: skip
    assert [(event.index, event.payload) for event in found[0].events()] == [(0, b"t1.0"), (2, b"t1.2")]
    envelope = fake.asked["Deliver"][0]
    KEY.public_key().verify(envelope.signature, envelope.payload, ec.ECDSA(hashes.SHA256()))
    payload = common_pb2.Payload.FromString(envelope.payload)
    seek = ab_pb2.SeekInfo.FromString(payload.data)
    assert (seek.start.specified.number, seek.stop.specified.number) == (1, 2**64 - 1)
    assert common_pb2.ChannelHeader.FromString(payload.header.channel_header).type == common_pb2.DELIVER_SEEK_INFO


async def test_a_range_of_blocks_ends(gateway: Gateway) -> None:
    assert [block.number async for block in blocks(gateway, start=1, stop=2)] == [1, 2]
    assert [block.number async for block in blocks(gateway, start=3, stop=2)] == []


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("cuts", [[0], [1], [2, 0, 1]])
async def test_cut_blocks_go_on_without_gap_or_double(
    fake: FakeGateway, gateway: Gateway, cuts: list[int], filtered: bool
) -> None:
    fake.cut_after = list(cuts)
    found = await taken(blocks(gateway, start=0, filtered=filtered), 4)
    assert [block.number for block in found] == [0, 1, 2, 3]
    assert [[item.code for item in block.transactions] for block in found] == [[0], [0, 11, 0], [0], [0, 0]]


async def test_blocks_come_with_private_data_where_asked_for(fake: FakeGateway, gateway: Gateway) -> None:
    found = await taken(blocks(gateway, start=1, private=True), 3)
    assert [block.number for block in found] == [1, 2, 3]
    assert found[0].private[1].ns_pvt_rwset[0].namespace == "assets"
    assert [event.payload for event in found[0].events()] == [b"t1.0", b"t1.2"]
    assert len(fake.asked["DeliverWithPrivateData"]) == 1
    assert (await taken(blocks(gateway, start=1), 1))[0].private == {}


async def test_a_block_checkpoint_is_gone_on_from(fake: FakeGateway, gateway: Gateway) -> None:
    kept = MemoryCheckpointer()
    async for block in blocks(gateway, start=0, checkpoint=kept):
        kept.save(block)
        if block.number == 1:
            break
    assert kept.place() == Place(2)
    assert [block.number for block in await taken(blocks(gateway, checkpoint=kept), 2)] == [2, 3]
    fake.script["Evaluate"] = [chain_info(3)]
    assert [block.number for block in await taken(blocks(gateway), 1)] == [3]


async def test_a_gap_is_never_passed_over(fake: FakeGateway, gateway: Gateway) -> None:
    fake.chain = [fake.chain[0], fake.chain[2]]
    source = blocks(gateway, start=0)
    assert (await anext(source)).number == 0
    with pytest.raises(FormError, match="block 2 where block 1 is next"):
        await anext(source)


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, grpc.StatusCode.PERMISSION_DENIED), (404, grpc.StatusCode.NOT_FOUND), (503, grpc.StatusCode.UNAVAILABLE)],
)
async def test_a_status_that_ends_a_stream_is_told(
    fake: FakeGateway, gateway: Gateway, status: int, code: grpc.StatusCode
) -> None:
    fake.script["Deliver"] = [answers(events_pb2.DeliverResponse(status=status))] * 9  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(EventsError) as ended:
        await taken(blocks(gateway, start=0), 1)
    assert ended.value.code is code


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda block: block.data.data.append(block.data.data[0]), "content of block 2"),
        (lambda block: block.data.data.pop(), "content of block 2"),
        (lambda block: setattr(block.header, "data_hash", b"x"), "content of block 2"),
        (lambda block: setattr(block.header, "previous_hash", b"x"), "block 2 does not follow block 1"),
    ],
)
async def test_a_changed_block_is_found(fake: FakeGateway, gateway: Gateway, change: Any, words: str) -> None:
    change(fake.chain[2])
    source = blocks(gateway, start=1)
    assert (await anext(source)).number == 1
    with pytest.raises(BlockDamaged, match=words):
        await anext(source)


async def test_a_stream_that_always_ends_early_is_given_up(fake: FakeGateway, gateway: Gateway) -> None:
    fake.chain = []
    with pytest.raises(EventsError, match="ended the stream of blocks early"):
        await taken(blocks(gateway, start=0), 1)
    assert len(fake.asked["Deliver"]) == QUICK.tries


def test_a_block_that_cannot_be_read_is_named() -> None:
    block = made_block(4, [0])
    block.data.data[0] = b"\xff\xff"
    with pytest.raises(FormError, match="transaction 0 of block 4"):
        parse_block(block)


def test_codes_a_block_does_not_hold_are_not_taken_for_valid() -> None:
    block = made_block(4, [0, 0])
    block.metadata.metadata[2] = b"\x00"
    assert [item.code for item in parse_block(block).transactions] == [0, 254]
    del block.metadata.metadata[2:]
    assert [item.code for item in parse_block(block).transactions] == [254, 254]
    assert parse_block(block).events() == []


def test_a_blocks_hash_is_over_asn1_der() -> None:
    assert header_bytes(1, b"\x01\x02", b"\x03") == bytes.fromhex("300a 020101 0402 0102 0401 03".replace(" ", ""))
    assert header_bytes(0, b"", b"")[:5] == bytes.fromhex("3007020100")
    assert header_bytes(128, b"", b"")[2:6] == bytes.fromhex("02020080")
    long = header_bytes(2**64 - 1, bytes(200), bytes(32))
    assert long[:2] == b"\x30\x81" and long[3:5] == b"\x02\x09"
    assert header_hash(7, b"p", b"d") == sha256(header_bytes(7, b"p", b"d")).digest()


# --- checkpoints ----------------------------------------------------------------------------------------


def event(block: int, txid: str) -> ChaincodeEvent:
    return ChaincodeEvent("assets", txid, "created", b"", block)


def test_a_crash_while_saving_leaves_the_old_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "place.json"
    kept = FileCheckpointer(path, "r")
    kept.save(event(3, "a"))

    def crash(*_: object) -> None:
        raise OSError(5, "crashed")

    for at in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync" if at == "fsync" else "pathlib.Path.replace", crash)
            with pytest.raises(CheckpointError, match="cannot be written"):
                kept.save(event(4, "b"))
        assert kept.place() == FileCheckpointer(path, "r").place() == Place(3, "a")
    kept.save(event(4, "b"))
    assert FileCheckpointer(path, "r").place() == Place(4, "b")


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "place.json"
    assert FileCheckpointer(path, "r").place() is None
    FileCheckpointer(path, "r").save(event(3, "a"))
    with pytest.raises(CheckpointError, match="of 'r', not of 'other'"):
        FileCheckpointer(path, "other")
    for content in (b"", b"{}", b"[1]", path.read_bytes()[:-5]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is no checkpoint"):
            FileCheckpointer(path, "r")
    with pytest.raises(CheckpointError, match="cannot be read"):
        FileCheckpointer(tmp_path, "r")


def test_a_block_moves_the_place_behind_it() -> None:
    kept = MemoryCheckpointer(Place(1, "a"))
    kept.save(Block(7, b"", b"", (), None))
    assert kept.place() == Place(8)


# --- the ledger's own words -------------------------------------------------------------------------------


async def test_what_is_not_there_is_none_and_other_errors_stay(fake: FakeGateway, gateway: Gateway) -> None:
    said = "chaincode response 500, Failed to get transaction with id t, error no such transaction ID [t] in index"
    gone = "chaincode response 500, Failed to get block number 7, error no such block number [7] in index"
    fake.script["Evaluate"] = [fails(grpc.StatusCode.UNKNOWN, text) for text in (said, said, gone)]
    assert await system.transaction_code(gateway, "t") is None
    assert await system.block_by_transaction(gateway, "t") is None
    assert await system.block_by_number(gateway, 7) is None
    other = fails(grpc.StatusCode.UNKNOWN, "chaincode response 500, access denied")
    fake.script["Evaluate"] = list(islice([other] * 3, 3))
    for ask in (system.transaction_code, system.block_by_transaction):
        with pytest.raises(EvaluateError, match="access denied"):
            await ask(gateway, "t")
    with pytest.raises(EvaluateError, match="access denied"):
        await system.block_by_number(gateway, 7)


async def test_an_answer_that_is_no_block_is_told(fake: FakeGateway, gateway: Gateway) -> None:
    fake.result = b"\xff\xff"
    with pytest.raises(FormError, match="no Block"):
        await system.block_by_number(gateway, 7)
