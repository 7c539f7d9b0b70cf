"""The development peer behind Fabric's protocols: our client and our shim over mutual TLS, in one process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from citykit.ledger.devpeer.policy import parse, to_envelope
from citykit.ledger.fabric import MemoryCheckpointer, blocks, chaincode_events, system
from citykit.ledger.fabric.blocks import data_hash, header_hash, parse_block
from citykit.ledger.fabric.configuration import read_configuration
from citykit.ledger.fabric.errors import CommitInvalid, EndorseError, EvaluateError, GatewayError
from citykit.ledger.fabric.gateway import Gateway
from tests.unit.ledger.devpeer_network import CITY, UTILITY, Network, network, specification

MVCC, PHANTOM, POLICY, DUPLICATE, NO_CHAINCODE = 11, 12, 10, 9, 25


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Network]:
    async with network(tmp_path) as made:
        yield made


@pytest.fixture
def gateway(running: Network) -> Gateway:
    return running.gateway()


async def read(gateway: Gateway, function: str, *arguments: str, chaincode: str = "notes") -> Any:
    return json.loads(await gateway.evaluate(chaincode, function, [item.encode() for item in arguments]))


# --- transactions ------------------------------------------------------------------------------------


async def test_a_submitted_value_is_committed_and_can_be_read(gateway: Gateway) -> None:
    done = await gateway.submit("notes", "put", [b"lamp", b"on"])
    assert (done.result, done.block) == (b"on", 1)
    assert await gateway.evaluate("notes", "get", [b"lamp"]) == b"on"
    await gateway.submit("notes", "delete", [b"lamp"])
    with pytest.raises(EvaluateError, match="chaincode response 404, no value under lamp"):
        await gateway.evaluate("notes", "get", [b"lamp"])


async def test_many_submit_at_once_into_few_blocks(gateway: Gateway) -> None:
    done = await asyncio.gather(*(gateway.submit("notes", "put", [b"k%d" % n, b"v"]) for n in range(64)))
    assert len({one.transaction_id for one in done}) == 64
    assert len(await read(gateway, "range", "k", "l")) == 64


async def test_a_refusal_is_told_with_the_chaincode_s_words_and_nothing_is_ordered(gateway: Gateway) -> None:
    with pytest.raises(EndorseError) as refused:
        await gateway.submit("notes", "refuse", [b"the lamp is broken"])
    assert refused.value.chaincode is not None
    assert (refused.value.chaincode.status, refused.value.chaincode.message) == (400, "the lamp is broken")
    assert refused.value.details[0].msp_id == CITY
    assert await system.height(gateway) == 1


async def test_of_two_that_read_the_same_value_one_commits(gateway: Gateway) -> None:
    first, second = [gateway.propose("notes", "add", [b"count", b"1"]) for _ in range(2)]
    prepared = [await gateway.endorse(first), await gateway.endorse(second)]
    await gateway.finish(prepared[0])
    with pytest.raises(CommitInvalid) as conflict:
        await gateway.finish(prepared[1])
    assert conflict.value.code == MVCC
    assert await gateway.evaluate("notes", "get", [b"count"]) == b"1"


async def test_two_of_one_block_conflict_too(running: Network, tmp_path: Path) -> None:
    async with network(tmp_path / "slow", specification(block_wait_ms=300)) as slow:
        gateway = slow.gateway()
        prepared = [await gateway.endorse(gateway.propose("notes", "add", [b"count", b"1"])) for _ in range(2)]
        results = await asyncio.gather(*(gateway.finish(one) for one in prepared), return_exceptions=True)
    failed = [one for one in results if isinstance(one, CommitInvalid)]
    assert [(one.code, one.block) for one in failed] == [(MVCC, 1)]


async def test_a_key_that_appears_in_a_range_that_was_read_is_a_phantom(gateway: Gateway, running: Network) -> None:
    await gateway.submit("notes", "put", [b"a1", b"x"])
    proposal = gateway.propose("other", "call", [b"notes", b"range", b"a", b"b"])
    prepared = await gateway.endorse(proposal)
    await gateway.submit("notes", "put", [b"a2", b"y"])
    with pytest.raises(CommitInvalid) as phantom:
        await gateway.finish(prepared)
    assert phantom.value.code == PHANTOM


async def test_the_same_transaction_sent_twice_acts_once(gateway: Gateway) -> None:
    prepared = await gateway.endorse(gateway.propose("notes", "add", [b"count", b"1"]))
    done = await gateway.finish(prepared)
    assert await gateway.finish(prepared) == done
    assert await gateway.evaluate("notes", "get", [b"count"]) == b"1"
    codes = [[one.code for one in block.transactions] async for block in blocks(gateway, start=1, stop=2)]
    assert codes == [[0], [DUPLICATE]]


# --- what a chaincode can ask ------------------------------------------------------------------------


async def test_a_long_range_comes_in_order_and_whole(gateway: Gateway) -> None:
    await gateway.submit("notes", "many", [b"k", b"250"])
    found = await read(gateway, "range", "k", "l")
    assert found == [[f"k{n:04}", str(n)] for n in range(250)]
    assert await read(gateway, "manyValues", "k", "251") == [*(str(n) for n in range(250)), ""]


async def test_without_batches_a_chaincode_writes_one_by_one(tmp_path: Path) -> None:
    async with network(tmp_path, specification(batches=False)) as old:
        gateway = old.gateway()
        await gateway.submit("notes", "many", [b"k", b"30"])
        assert len(await read(gateway, "manyValues", "k", "30")) == 30


async def test_pages_follow_each_other_by_bookmark(gateway: Gateway) -> None:
    await gateway.submit("notes", "many", [b"k", b"7"])
    first = await read(gateway, "page", "k", "l", "3", "")
    second = await read(gateway, "page", "k", "l", "3", first["bookmark"])
    third = await read(gateway, "page", "k", "l", "3", second["bookmark"])
    keys = [key for page in (first, second, third) for key, _ in page["entries"]]
    assert keys == [f"k{n:04}" for n in range(7)]
    assert (first["bookmark"], third["bookmark"]) == ("k0003", "")


async def test_history_tells_every_value_newest_first(gateway: Gateway) -> None:
    done = [
        await gateway.submit("notes", "put", [b"lamp", b"on"]),
        await gateway.submit("notes", "put", [b"lamp", b"off"]),
        await gateway.submit("notes", "delete", [b"lamp"]),
    ]
    ids = [one.transaction_id for one in done]
    assert await read(gateway, "history", "lamp") == [[ids[2], "", True], [ids[1], "off", False], [ids[0], "on", False]]


async def test_a_chaincode_calls_another_in_the_same_transaction(gateway: Gateway) -> None:
    done = await gateway.submit("notes", "call", [b"other", b"put", b"lamp", b"on"])
    assert done.result == b"on"
    assert await gateway.evaluate("other", "get", [b"lamp"]) == b"on"
    with pytest.raises(EvaluateError, match="no value under lamp"):
        await gateway.evaluate("notes", "get", [b"lamp"])


async def test_a_chaincode_that_calls_itself_or_nobody_is_told(gateway: Gateway) -> None:
    with pytest.raises(GatewayError, match="exists"):
        await gateway.evaluate("notes", "call", [b"notes", b"get", b"x"])
    with pytest.raises(GatewayError, match="nobody is not defined"):
        await gateway.evaluate("notes", "call", [b"nobody", b"get", b"x"])


async def test_attributes_and_transient_data_reach_the_chaincode(gateway: Gateway, running: Network) -> None:
    assert await gateway.evaluate("notes", "attribute", [b"city.service"]) == b"metering"
    assert await running.gateway("billing").evaluate("notes", "attribute", [b"city.service"]) == b""
    assert await gateway.evaluate("notes", "transient", [b"value"], transient={"value": b"secret"}) == b"secret"
    await gateway.submit("notes", "put", [b"a", b"b"], transient={"value": b"very-secret"})
    block = await system.block_by_number(gateway, 1)
    assert b"very-secret" not in block.SerializeToString()


# --- private data ------------------------------------------------------------------------------------


async def test_private_data_is_known_to_members_and_its_hash_to_all(running: Network) -> None:
    city, utility = running.gateway(), running.gateway("reader", UTILITY)
    await city.submit("notes", "putPrivate", [b"city-only", b"salary"], transient={"value": b"42"})
    assert await city.evaluate("notes", "getPrivate", [b"city-only", b"salary"]) == b"42"
    hashed = sha256(b"42").hexdigest().encode()
    assert await utility.evaluate("notes", "privateHash", [b"city-only", b"salary"]) == hashed
    with pytest.raises(GatewayError, match="does not have read access permission"):
        await utility.evaluate("notes", "getPrivate", [b"city-only", b"salary"])
    block = await system.block_by_number(city, 1)
    assert b"salary" not in block.SerializeToString().replace(b"putPrivate\n\tcity-only\n\x06salary", b"")


async def test_each_member_has_its_own_memory_of_shared_private_data(running: Network) -> None:
    city, utility = running.gateway(), running.gateway("reader", UTILITY)
    await city.submit("notes", "putPrivate", [b"both", b"k"], transient={"value": b"1"})
    assert await utility.evaluate("notes", "getPrivate", [b"both", b"k"]) == b"1"
    assert await read(utility, "rangePrivate", "both", "a", "z") == [["k", "1"]]
    await utility.submit("notes", "putPrivate", [b"both", b"k"], transient={"value": b"2"})
    assert await city.evaluate("notes", "getPrivate", [b"both", b"k"]) == b"2"


async def test_a_collection_that_is_not_defined_is_named(gateway: Gateway) -> None:
    with pytest.raises(GatewayError, match="collection notes/none could not be found"):
        await gateway.submit("notes", "putPrivate", [b"none", b"k"], transient={"value": b"1"})


# --- events and blocks -------------------------------------------------------------------------------


async def test_events_are_delivered_in_order_and_go_on_after_a_checkpoint(gateway: Gateway) -> None:
    done = [await gateway.submit("notes", "emit", [b"lit", b"%d" % n, b"lamp"]) for n in range(4)]
    await gateway.submit("other", "emit", [b"lit", b"9", b"lamp"])
    checkpoint = MemoryCheckpointer()
    async with aclosing(chaincode_events(gateway, "notes", start=0, checkpoint=checkpoint)) as found:
        first = [await anext(found) for _ in range(2)]
        checkpoint.save(first[-1])
    async with aclosing(chaincode_events(gateway, "notes", checkpoint=checkpoint)) as found:
        second = [await anext(found) for _ in range(2)]
    assert [one.transaction_id for one in first + second] == [one.transaction_id for one in done]
    assert [(one.name, one.payload) for one in second] == [("lit", b"2"), ("lit", b"3")]


async def test_events_of_what_comes_next_wait_for_it(gateway: Gateway) -> None:
    async with aclosing(chaincode_events(gateway, "notes")) as found:
        waiting = asyncio.ensure_future(anext(found))
        height = await system.height(gateway)
        while height == await system.height(gateway):
            await gateway.submit("notes", "emit", [b"lit", b"1", b"lamp"])
        assert (await waiting).payload == b"1"


async def test_blocks_are_chained_and_hashed_as_fabric_does(gateway: Gateway) -> None:
    await gateway.submit("notes", "put", [b"a", b"1"])
    await gateway.submit("notes", "emit", [b"lit", b"1", b"a"])
    previous = b""
    async for block in blocks(gateway, start=0, stop=2):
        assert block.previous_hash == previous
        assert block.data_hash == data_hash(list(block.message.data.data))
        previous = header_hash(block.number, block.previous_hash, block.data_hash)
    assert [event.name for event in block.events()] == ["lit"]
    assert block.transactions[0].creator[0] == CITY


async def test_filtered_blocks_hold_no_payload(gateway: Gateway) -> None:
    done = await gateway.submit("notes", "emit", [b"lit", b"payload", b"a"])
    found = [block async for block in blocks(gateway, start=0, stop=1, filtered=True)]
    assert [[one.transaction_id for one in block.transactions] for block in found] == [[""], [done.transaction_id]]
    assert b"payload" not in found[1].message.SerializeToString()


async def test_the_system_chaincode_tells_of_blocks_and_transactions(gateway: Gateway) -> None:
    done = await gateway.submit("notes", "put", [b"a", b"1"])
    assert await system.height(gateway) == 2
    assert await system.transaction_code(gateway, done.transaction_id) == 0
    assert await system.transaction_code(gateway, "00" * 32) is None
    block = await system.block_by_transaction(gateway, done.transaction_id)
    assert parse_block(block).number == 1
    assert await system.block_by_number(gateway, 7) is None


async def test_the_first_block_says_that_it_is_not_fabric(gateway: Gateway, running: Network) -> None:
    configuration = read_configuration(await system.block_by_number(gateway, 0))
    assert configuration.consensus == "development-peer"
    assert [one.msp_id for one in configuration.members] == [CITY, UTILITY]
    assert running.peer.profile["kind"] == running.peer.trust()["kind"] == "development-peer"
    assert "one operator, not Fabric" in running.peer.trust()["note"]
    assert running.peer.profile["note"].startswith("not Fabric, one operator")


# --- policies ----------------------------------------------------------------------------------------


async def test_the_fewest_organisations_that_satisfy_the_policy_endorse(tmp_path: Path) -> None:
    async with network(tmp_path, specification(policy="AND('CityMSP.peer','UtilityMSP.peer')")) as strict:
        gateway = strict.gateway()
        await gateway.submit("notes", "put", [b"a", b"1"])
        block = parse_block(await system.block_by_number(gateway, 1))
        call = block.transactions[0].call
        assert call is not None
        assert sorted(call.endorsers) == [CITY, UTILITY]
        with pytest.raises(CommitInvalid) as failed:
            await gateway.submit("notes", "put", [b"a", b"2"], organisations=[CITY])
        assert failed.value.code == POLICY
        assert await gateway.evaluate("notes", "get", [b"a"]) == b"1"


async def test_a_key_s_own_policy_goes_before_the_chaincode_s(gateway: Gateway) -> None:
    await gateway.submit("notes", "put", [b"a", b"1"])
    policy = base64.b64encode(to_envelope(parse("AND('CityMSP.peer','UtilityMSP.peer')")))
    await gateway.submit("notes", "setPolicy", [b"a"], transient={"policy": policy})
    with pytest.raises(CommitInvalid) as failed:
        await gateway.submit("notes", "put", [b"a", b"2"], organisations=[CITY])
    assert failed.value.code == POLICY
    await gateway.submit("notes", "put", [b"a", b"2"], organisations=[CITY, UTILITY])
    await gateway.submit("notes", "put", [b"b", b"2"], organisations=[CITY])
    assert await gateway.evaluate("notes", "get", [b"a"]) == b"2"


async def test_a_policy_nobody_here_satisfies_is_told_at_once(tmp_path: Path) -> None:
    async with network(tmp_path, specification(policy="AND('CityMSP.peer','AuditorMSP.peer')")) as strict:
        with pytest.raises(EndorseError, match="no combination of peers"):
            await strict.gateway().submit("notes", "put", [b"a", b"1"])


async def test_peers_may_be_asked_to_sign_what_is_on_the_ledger(gateway: Gateway) -> None:
    done = await gateway.submit("notes", "put", [b"a", b"1"])
    arguments = [b"city", done.transaction_id.encode()]
    proposal = gateway.propose("qscc", "GetTransactionByID", arguments, organisations=[CITY, UTILITY])
    prepared = await gateway.endorse(proposal)
    with pytest.raises(CommitInvalid) as useless:
        await gateway.finish(prepared)
    assert useless.value.code == NO_CHAINCODE
