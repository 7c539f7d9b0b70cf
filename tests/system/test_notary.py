"""The notary over real gRPC: what the bus brings is integrated once, anchored, proven, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from city.notary.v1 import notary_service_pb2 as pb
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.bus.port import Message
from citykit.edge import city_error
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from citykit.ids import seeded_randomness
from citykit.merkle import check_consistency, leaf_hash, root_from_batch, root_from_inclusion
from citykit.note import open_checkpoint
from citykit.testing.polling import until
from services.notary.check import check_logs
from services.testing import TestCity, embedded_city

TOPIC, LOG = "city.metering.readings.v1", "metering.readings"
RANDOM = seeded_randomness(3)


def facts(count: int) -> list[Message]:
    return [Message(TOPIC, f"k{n % 5}", b"x", {"commitment": RANDOM(32)}) for n in range(count)]


def stub(city: TestCity) -> Any:
    return NotaryServiceStub(city.dial("notary"))


def commitments(messages: list[Message]) -> list[bytes]:
    return [message.headers["commitment"] for message in messages]


async def key_of(city: TestCity, origin: str) -> bytes:
    trust = json.loads((await stub(city).GetTrust(pb.GetTrustRequest())).json)
    return bytes.fromhex(next(log["key"] for log in trust["logs"] if log["origin"] == origin))


async def test_facts_are_integrated_anchored_and_proven(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        sent = facts(700)
        await city.bus.publish(sent)
        await city.settle()
        wanted = commitments(sent)[100:160]
        answer = await stub(city).GetBatchProof(pb.GetBatchProofRequest(log=LOG, commitments=wanted))
        part = json.loads(answer.log_json)
        head = open_checkpoint(part["checkpoint"], part["origin"], await key_of(city, part["origin"]))
        leaves = sorted(zip(answer.indexes, map(leaf_hash, wanted), strict=True))
        proof = [bytes.fromhex(item) for item in part["proof"]["hashes"]]
        assert root_from_batch(leaves, head.size, proof) == head.root
        recorded = part["anchor"]["envelope"]["transaction"]["args"]["heads"]
        assert {"origin": part["origin"], "size": head.size, "root": head.root.hex()}.items() <= recorded[0].items()
        one = await stub(city).GetInclusionProof(pb.GetInclusionProofRequest(log=LOG, index=answer.indexes[0]))
        assert root_from_inclusion(leaf_hash(wanted[0]), one.index, one.size, one.hashes) == head.root


async def test_growth_is_consistent_and_survives_a_restart(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        await city.bus.publish(facts(300))
        await city.settle()
        first = (await stub(city).GetHead(pb.GetHeadRequest(log=LOG))).head
    async with embedded_city(tmp_path, services=["notary"]) as city:
        await city.bus.publish(facts(400))
        await city.settle()
        second = (await stub(city).GetHead(pb.GetHeadRequest(log=LOG))).head
        assert (first.anchored_size, second.anchored_size) == (300, 700)
        request = pb.GetConsistencyProofRequest(log=LOG, from_size=300)
        proof = await stub(city).GetConsistencyProof(request)
        check_consistency(300, first.anchored_root, 700, second.anchored_root, list(proof.hashes))
    result = check_logs(tmp_path)
    assert (result.findings, result.entries) == ((), 700)


async def test_a_message_without_a_commitment_is_a_dead_letter_and_harms_no_other(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        sent = facts(20)
        await city.bus.publish([*sent[:10], Message(TOPIC, "k1", b"x", {}), *sent[10:]])
        await city.settle()
        head = (await stub(city).GetHead(pb.GetHeadRequest(log=LOG))).head
        letters = [record async for record in city.bus.dead_letters()]
        assert head.anchored_size == 20
        assert [letter.headers["dl_group"] for letter in letters] == [b"notary"]


async def test_tiles_are_served_by_their_standard_paths(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        sent = facts(300)
        await city.bus.publish(sent)
        await city.settle()

        async def tile(path: str) -> bytes:
            return bytes((await stub(city).GetTile(pb.GetTileRequest(log=LOG, path=path))).content)

        bundle = await tile("tile/entries/000")
        entries = [bundle[at + 2 : at + 34] for at in range(0, len(bundle), 34)]
        assert len(entries) == 256
        assert set(entries) <= set(commitments(sent))
        assert (await tile("tile/0/000"))[:32] == leaf_hash(entries[0])
        assert len(await tile("tile/0/001.p/44")) == 44 * 32
        assert len(await tile("tile/1/000.p/1")) == 32
        assert (await tile("checkpoint")).startswith(b"provable.city/demo/metering.readings\n300\n")
        for path in ("tile/0/0", "tile/x/000", "tile/0/000.p/0", "tile/0/000.p/256", "../notary.db", "tile/9/000"):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await tile(path)
            assert isinstance(city_error(error.value), InvalidArgument)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await tile("tile/0/002")
        assert isinstance(city_error(error.value), NotFound)


async def test_what_cannot_be_proven_says_why(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        service = stub(city)
        cases = [
            (service.GetHead(pb.GetHeadRequest(log="nope")), NotFound, "the logs are"),
            (service.GetInclusionProof(pb.GetInclusionProofRequest(log=LOG)), FailedPrecondition, "no anchored head"),
            (service.GetBatchProof(pb.GetBatchProofRequest(log=LOG, commitments=[b"x"])), InvalidArgument, "32 bytes"),
            (
                service.GetBatchProof(pb.GetBatchProofRequest(log=LOG, commitments=[bytes(32)])),
                NotFound,
                "not in the log",
            ),
            (service.GetBatchProof(pb.GetBatchProofRequest(log=LOG)), InvalidArgument, "commitments"),
        ]
        for call, kind, message in cases:
            with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
                await call
            assert isinstance(city_error(error.value), kind)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await NotaryServiceStub(city.process.anonymous()).CheckLogs(pb.CheckLogsRequest())
        assert not isinstance(city_error(refused.value), PermissionDenied)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_heads_are_told_as_they_grow(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        call = stub(city).WatchHeads(pb.WatchHeadsRequest())
        first = await call.read()
        assert all(head.size == 0 for head in first.heads)
        await city.bus.publish(facts(10))
        seen = 0
        while seen < 10:
            update = await call.read()
            seen = max(head.anchored_size for head in update.heads)
        call.cancel()


async def test_damage_in_every_kind_of_file_is_named(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        await city.bus.publish(facts(600))
        await city.settle()
        assert (await stub(city).CheckLogs(pb.CheckLogsRequest())).entries_checked == 600
    folder = tmp_path / "notary" / "logs" / LOG
    for name, where in (
        ("entries", "entry 3"),
        ("tiles.0", "entry 3"),
        ("tiles.1", "tile level 1"),
        ("checkpoint", "checkpoint"),
    ):
        good = (folder / name).read_bytes()
        at = 3 * 32 + 5 if name in ("entries", "tiles.0") else 12
        (folder / name).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        findings = check_logs(tmp_path).findings
        assert any(where in str(finding) for finding in findings), name
        (folder / name).write_bytes(good)
    assert check_logs(tmp_path).findings == ()


async def test_an_anchor_the_crash_forgot_is_taken_up_from_the_ledger(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["notary"]) as city:
        await city.bus.publish(facts(50))
        await city.settle()
        store = city.process.stores["notary"]
        await store.write(lambda unit: unit.connection.exec_driver_sql("DELETE FROM anchors"))
        height = await city.ledger.height()
    async with embedded_city(tmp_path, services=["notary"]) as city:

        async def anchored() -> bool:
            return bool((await stub(city).GetHead(pb.GetHeadRequest(log=LOG))).head.anchored_size == 50)

        await until(anchored, "the forgotten anchor")
        assert await city.ledger.height() == height


async def test_a_fact_that_was_published_twice_is_logged_once(tmp_path: Path) -> None:
    """A relay that dies between publishing and taking the messages out of the outbox publishes them again (found by make crash)."""
    async with embedded_city(tmp_path, services=["notary"]) as city:
        sent = facts(30)
        await city.bus.publish(sent)
        await city.settle()
        await city.bus.publish([*sent[10:20], *facts(1), *sent[15:25], *sent[:1], *sent[:1]])
        await city.settle()
        assert (await stub(city).GetHead(pb.GetHeadRequest(log=LOG))).head.anchored_size == 31
    assert check_logs(tmp_path).findings == ()
