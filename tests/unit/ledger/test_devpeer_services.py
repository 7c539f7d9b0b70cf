"""The development peer's services asked directly, as a client in error would: delivery, gateway, what a chaincode may ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, events_pb2_grpc, proposal_pb2

from citykit.ledger.devpeer.delivery import LAST
from citykit.ledger.devpeer.gateway import ENVELOPE_MAX
from citykit.ledger.fabric.connection import Retry
from citykit.ledger.fabric.errors import EvaluateError, GatewayError
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.shim import Stub
from tests.unit.ledger.devpeer_network import CITY, UTILITY, Network, network, specification

OLDEST = ab_pb2.SeekPosition(oldest=ab_pb2.SeekOldest())
NEWEST = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
Status = grpc.StatusCode


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Network]:
    async with network(tmp_path) as made:
        yield made


@pytest.fixture
def gateway(running: Network) -> Gateway:
    return running.gateway()


def at(number: int) -> ab_pb2.SeekPosition:
    return ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=number))


def seek(gateway: Gateway, start: Any = OLDEST, stop: Any = NEWEST, *, wait: bool = True, **header: Any) -> Any:
    """A signed request for blocks; `header` changes the channel header."""
    channel = common_pb2.ChannelHeader(type=common_pb2.DELIVER_SEEK_INFO, channel_id="city")
    channel.timestamp.seconds = int(time.time()) - header.pop("age_s", 0)
    for name, value in header.items():
        setattr(channel, name, value)
    creator = common_pb2.SignatureHeader(creator=gateway.identity.serialized, nonce=b"n" * 24)
    info = ab_pb2.SeekInfo(start=start, stop=stop, behavior=0 if wait else 1)
    payload = common_pb2.Payload(data=info.SerializeToString())
    payload.header.channel_header = channel.SerializeToString()
    payload.header.signature_header = creator.SerializeToString()
    message = payload.SerializeToString()
    return common_pb2.Envelope(payload=message, signature=gateway.sign(message))


async def delivered(gateway: Gateway, envelope: Any, method: str = "Deliver") -> tuple[list[Any], int]:
    """Blocks, and the status at the end."""
    call = getattr(events_pb2_grpc.DeliverStub(gateway.connection.channel), method)()
    await call.write(envelope)
    found: list[Any] = []
    async for response in call:
        if response.WhichOneof("Type") == "status":
            call.cancel()
            return found, response.status
        found.append(response)
    raise AssertionError("the stream ended without a status")


async def code_of(call: Any) -> Any:
    """The status a call was refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


# --- delivery ----------------------------------------------------------------------------------------


async def test_blocks_are_delivered_from_the_oldest_to_the_newest(gateway: Gateway) -> None:
    await gateway.submit("notes", "put", [b"a", b"1"])
    found, status = await delivered(gateway, seek(gateway))
    assert ([one.block.header.number for one in found], status) == ([0, 1], 200)
    found, status = await delivered(gateway, seek(gateway, NEWEST, NEWEST))
    assert ([one.block.header.number for one in found], status) == ([1], 200)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"start": at(5), "stop": at(9), "wait": False}, 404),
        ({"start": at(3), "stop": at(2)}, 400),
        ({"start": ab_pb2.SeekPosition()}, 400),
        ({"channel_id": "town"}, 404),
        ({"age_s": 3_600}, 400),
        ({"age_s": -3_600}, 400),
        ({"tls_cert_hash": b"x" * 32}, 400),
    ],
)
async def test_a_wrong_request_for_blocks_ends_with_its_status(gateway: Gateway, wrong: Any, status: int) -> None:
    assert await delivered(gateway, seek(gateway, **wrong)) == ([], status)


async def test_a_request_for_blocks_that_nobody_signed_is_forbidden(gateway: Gateway) -> None:
    envelope = seek(gateway)
    assert await delivered(gateway, common_pb2.Envelope(payload=envelope.payload, signature=b"x")) == ([], 403)
    assert await delivered(gateway, common_pb2.Envelope(payload=b"\xff\xff")) == ([], 400)


async def test_the_hash_of_the_shown_tls_certificate_is_taken(running: Network, gateway: Gateway) -> None:
    shown = (running.peer.state / "tls" / f"{CITY}-metering.pem").read_bytes()
    digest = sha256(x509.load_pem_x509_certificate(shown).public_bytes(Encoding.DER)).digest()
    _, status = await delivered(gateway, seek(gateway, tls_cert_hash=digest))
    assert status == 200


async def test_private_data_is_delivered_to_members_of_its_collection_alone(running: Network, gateway: Gateway) -> None:
    await gateway.submit("notes", "putPrivate", [b"city-only", b"k"], transient={"value": b"secret"})
    await gateway.submit("notes", "put", [b"a", b"1"])
    found, _ = await delivered(gateway, seek(gateway, at(1), at(2)), "DeliverWithPrivateData")
    maps = [one.block_and_private_data.private_data_map for one in found]
    assert [dict(one).keys() for one in maps] == [{0}, set()]
    assert b"secret" in maps[0][0].ns_pvt_rwset[0].collection_pvt_rwset[0].rwset
    other = running.gateway("reader", UTILITY)
    found, _ = await delivered(other, seek(other, at(1), at(1)), "DeliverWithPrivateData")
    assert not found[0].block_and_private_data.private_data_map


async def test_blocks_are_followed_until_the_asker_leaves(gateway: Gateway) -> None:
    call = events_pb2_grpc.DeliverStub(gateway.connection.channel).DeliverFiltered()
    await call.write(seek(gateway, at(0), at(LAST)))
    assert (await call.read()).filtered_block.number == 0
    await gateway.submit("notes", "put", [b"a", b"1"])
    assert (await call.read()).filtered_block.number == 1
    call.cancel()


# --- gateway -----------------------------------------------------------------------------------------


async def test_a_gateway_s_request_must_be_whole(gateway: Gateway) -> None:
    stub = gateway.connection.gateway
    assert await code_of(stub.Evaluate(gateway_pb2.EvaluateRequest())) is Status.INVALID_ARGUMENT
    assert await code_of(stub.Endorse(gateway_pb2.EndorseRequest())) is Status.INVALID_ARGUMENT
    assert await code_of(stub.Submit(gateway_pb2.SubmitRequest())) is Status.INVALID_ARGUMENT
    assert await code_of(stub.CommitStatus(gateway_pb2.SignedCommitStatusRequest())) is Status.INVALID_ARGUMENT
    broken = gateway_pb2.SignedCommitStatusRequest(request=b"\xff\xff")
    assert await code_of(stub.CommitStatus(broken)) is Status.INVALID_ARGUMENT


async def test_an_envelope_beyond_the_limit_is_refused(gateway: Gateway) -> None:
    envelope = common_pb2.Envelope(payload=b"x" * ENVELOPE_MAX, signature=b"x")
    call = gateway.connection.gateway.Submit(gateway_pb2.SubmitRequest(prepared_transaction=envelope))
    assert await code_of(call) is Status.ABORTED


async def test_status_and_events_are_for_members(gateway: Gateway) -> None:
    stub = gateway.connection.gateway
    member = {"channel_id": "city", "identity": gateway.identity.serialized}

    def status(**fields: Any) -> Any:
        request = gateway_pb2.CommitStatusRequest(**fields).SerializeToString()
        return gateway_pb2.SignedCommitStatusRequest(request=request, signature=gateway.sign(request))

    assert await code_of(stub.CommitStatus(status(channel_id="city", transaction_id="t"))) is Status.INVALID_ARGUMENT
    assert await code_of(stub.CommitStatus(status(**member))) is Status.INVALID_ARGUMENT
    unsigned = gateway_pb2.SignedCommitStatusRequest(
        request=status(**member, transaction_id="t").request, signature=b"x"
    )
    assert await code_of(stub.CommitStatus(unsigned)) is Status.PERMISSION_DENIED
    request = gateway_pb2.ChaincodeEventsRequest(**member, start_position=OLDEST).SerializeToString()
    signed = gateway_pb2.SignedChaincodeEventsRequest(request=request, signature=gateway.sign(request))
    assert await code_of(stub.ChaincodeEvents(signed).read()) is Status.INVALID_ARGUMENT
    unsigned = gateway_pb2.SignedChaincodeEventsRequest(request=request, signature=b"x")
    assert await code_of(stub.ChaincodeEvents(unsigned).read()) is Status.PERMISSION_DENIED


async def test_of_two_that_wait_for_one_transaction_one_may_leave(running: Network, gateway: Gateway) -> None:
    prepared = await gateway.endorse(gateway.propose("notes", "put", [b"a", b"1"]))
    first, second = [asyncio.ensure_future(running.peer.chain.committed(prepared.transaction_id)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await gateway.send(prepared)
    async with asyncio.timeout(10.0):
        assert (await second).block == 1
    assert not running.peer.chain._waiting


async def test_an_organisation_that_does_not_endorse_here_is_named(gateway: Gateway) -> None:
    gateway.connection.retry = Retry(tries=1)
    with pytest.raises(GatewayError, match="no endorsers of AuditorMSP"):
        await gateway.submit("notes", "put", [b"a", b"1"], organisations=["AuditorMSP"])
    with pytest.raises(EvaluateError, match="no endorsers of AuditorMSP"):
        await gateway.evaluate("notes", "get", [b"a"], organisations=["AuditorMSP"])


async def test_calls_beyond_the_limit_are_refused_at_once(tmp_path: Path) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(stub: Stub) -> bytes:
        reached.set()
        await go_on.wait()
        return b"done"

    async with network(tmp_path, specification(calls_max=1)) as small:
        small.handlers["notes"] = slow
        gateway = small.gateway()
        gateway.connection.retry = Retry(tries=1)
        first = asyncio.ensure_future(gateway.evaluate("notes", "run"))
        await reached.wait()
        with pytest.raises(EvaluateError) as refused:
            await gateway.evaluate("notes", "run")
        assert refused.value.code is Status.RESOURCE_EXHAUSTED
        go_on.set()
        assert await first == b"done"


async def test_the_system_chaincode_finds_a_block_by_its_hash_and_names_what_it_knows(gateway: Gateway) -> None:
    info = ledger_pb2.BlockchainInfo.FromString(await gateway.evaluate("qscc", "GetChainInfo", [b"city"]))
    data = await gateway.evaluate("qscc", "GetBlockByHash", [b"city", info.currentBlockHash])
    assert common_pb2.Block.FromString(data).header.number == 0
    for arguments, said in (
        ((b"city", sha256(b"").digest()), "no block of that hash"),
        ((b"town", b"x"), "the second argument is the channel"),
        ((b"city",), "takes the channel and a parameter"),
    ):
        with pytest.raises(EvaluateError, match=said):
            await gateway.evaluate("qscc", "GetBlockByHash", arguments)
    with pytest.raises(EvaluateError, match="Requested function Forget not found"):
        await gateway.evaluate("qscc", "Forget", [b"city"])


# --- what a chaincode may ask ------------------------------------------------------------------------


async def asked(running: Network, handler: Any) -> bytes:
    """Submits to a chaincode that runs `handler`."""
    running.handlers["notes"] = handler
    return (await running.gateway().submit("notes", "run")).result


async def test_private_data_can_be_deleted_and_purged(running: Network) -> None:
    async def write(stub: Stub) -> None:
        stub.put("a", b"1", collection="both")
        stub.put("b", b"2", collection="both")

    async def remove(stub: Stub) -> None:
        stub.delete("a", collection="both")
        stub.purge("b", collection="both")

    async def read(stub: Stub) -> bytes:
        values = await stub.get_many(["a", "b"], collection="both")
        return repr((values, await stub.private_hash("a", collection="both"))).encode()

    await asked(running, write)
    await asked(running, remove)
    assert await asked(running, read) == b"([None, None], None)"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda stub: stub.query('{"selector":{}}').take(1), "rich queries need a document database"),
        (lambda stub: stub.validation_parameter("a", collection="both"), "metadata of private data is not kept"),
        (lambda stub: stub.get("a", collection="none"), "collection notes/none could not be found"),
        (lambda stub: stub.invoke("other", [b"get"], channel="town"), "failed to find ledger for channel: town"),
    ],
)
async def test_what_is_not_served_is_said_to_the_chaincode(running: Network, ask: Any, said: str) -> None:
    async def handler(stub: Stub) -> None:
        await ask(stub)

    with pytest.raises(GatewayError, match=said):
        await asked(running, handler)


async def test_an_iterator_that_was_closed_is_gone_and_the_rest_goes_on(running: Network) -> None:
    async def write(stub: Stub) -> None:
        for number in range(150):
            stub.put(f"k{number:03}", b"1")

    async def read(stub: Stub) -> bytes:
        first = await stub.range("k", "l").take(2)
        again = [entry.key async for entry in stub.range("k", "l")]
        stub.put("read", b"1")
        return f"{len(first)} {len(again)}".encode()

    await asked(running, write)
    assert await asked(running, read) == b"2 150"


async def test_a_key_s_policy_can_be_read_back(running: Network) -> None:
    async def write(stub: Stub) -> None:
        stub.put("a", b"1")
        stub.set_validation_parameter("a", b"policy")

    async def read(stub: Stub) -> bytes:
        return await stub.validation_parameter("a") or b""

    await asked(running, write)
    assert await asked(running, read) == b"policy"


async def test_an_initialisation_reaches_the_chaincode_as_one(running: Network, gateway: Gateway) -> None:
    proposal = gateway.propose("notes", "attribute", [b"city.service"])
    outer = proposal_pb2.Proposal.FromString(proposal.message)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(outer.payload)
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input)
    spec.chaincode_spec.input.is_init = True
    payload.input = spec.SerializeToString()
    outer.payload = payload.SerializeToString()
    message = outer.SerializeToString()
    signed = replace(proposal, message=message).signed(gateway.sign(message))
    # our shim's `init` does nothing, where the transaction would have answered with an attribute
    assert await gateway.evaluate_proposal(signed) == b""
