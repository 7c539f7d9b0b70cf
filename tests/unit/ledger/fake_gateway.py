"""A scripted gateway on grpc.aio: each call takes the next act of its script, or the usual answer; what was asked is kept."""

from __future__ import annotations

import asyncio
import datetime
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    events_pb2,
    events_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import status_pb2

from citykit.ledger.fabric import Identity, wire
from citykit.ledger.fabric.blocks import data_hash, header_hash

Act = Callable[[Any, Any], Awaitable[Any]]
KEY = ec.derive_private_key(7, ec.SECP256R1())


def certificate(key: Any = KEY, name: str = "tester", days: int = 20_000) -> bytes:
    """A self-signed certificate, valid so many days from 2016 on; nobody here looks at who issued it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime(2016, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=days))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


MEMBER = Identity("TestMSP", certificate())


def fails(code: grpc.StatusCode, message: str = "scripted", details: tuple[tuple[str, str, str], ...] = ()) -> Act:
    """An act that ends the call with a status, and with ErrorDetails (address, MSP id, message)."""

    async def act(_: Any, context: Any) -> Any:
        status = status_pb2.Status(code=code.value[0], message=message)
        for address, msp_id, said in details:
            packed = Packed()
            packed.Pack(gateway_pb2.ErrorDetail(address=address, msp_id=msp_id, message=said))
            status.details.append(packed)
        trailers = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()
        await context.abort(code, message, trailers)

    return act


def hangs() -> Act:
    """An act that answers only once the caller is gone."""

    async def act(_: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    return act


def answers(message: Any) -> Act:
    async def act(_: Any, context: Any) -> Any:
        return message

    return act


class FakeGateway(gateway_pb2_grpc.GatewayServicer, events_pb2_grpc.DeliverServicer):  # type: ignore[misc] # Fabric's messages are untyped
    """Attributes:
    script: method name -> acts still to come.
    asked: method name -> requests, in order.
    result: what the chaincode answers.
    codes: validation codes by transaction id; valid where there is none.
    events: what ChaincodeEvents sends: (block, transaction id, name, payload).
    chain: blocks that Deliver sends.
    cut_after: messages after which a stream is cut, one number for each stream to come.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[Act]] = defaultdict(list)
        self.asked: dict[str, list[Any]] = defaultdict(list)
        self.result = b"fine"
        self.codes: dict[str, int] = {}
        self.events: list[tuple[int, str, str, bytes]] = []
        self.chain: list[Any] = []
        self.cut_after: list[int] = []
        self.at_once = 0
        self.most_at_once = 0

    async def Endorse(self, request: Any, context: Any) -> Any:
        async def usual(asked: Any, _: Any) -> Any:
            payload = endorsed(asked.proposed_transaction.proposal_bytes, self.result)
            return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))

        return await self._next("Endorse", request, context, usual)

    async def Submit(self, request: Any, context: Any) -> Any:
        return await self._next("Submit", request, context, answers(gateway_pb2.SubmitResponse()))

    async def CommitStatus(self, request: Any, context: Any) -> Any:
        async def usual(asked: Any, _: Any) -> Any:
            question = gateway_pb2.CommitStatusRequest.FromString(asked.request)
            code = self.codes.get(question.transaction_id, 0)
            return gateway_pb2.CommitStatusResponse(result=code, block_number=9)

        return await self._next("CommitStatus", request, context, usual)

    async def Evaluate(self, request: Any, context: Any) -> Any:
        async def usual(_: Any, __: Any) -> Any:
            return gateway_pb2.EvaluateResponse(result=proposal_response_pb2.Response(status=200, payload=self.result))

        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._next("Evaluate", request, context, usual)
        finally:
            self.at_once -= 1

    async def ChaincodeEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As a peer does: from a block on, after a transaction of it."""
        asked = gateway_pb2.ChaincodeEventsRequest.FromString(request.request)
        self.asked["ChaincodeEvents"].append(asked)
        if self.script["ChaincodeEvents"]:
            await self.script["ChaincodeEvents"].pop(0)(request, context)
        block, after = asked.start_position.specified.number, asked.after_transaction_id
        rest = [event for event in self.events if event[0] >= block]
        known = [event[1] for event in rest if event[0] == block]
        if after in known:
            rest = rest[known.index(after) + 1 :]
        left = self.cut_after.pop(0) if self.cut_after else None
        for number, txid, name, payload in rest:
            if left == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            event = chaincode_event_pb2.ChaincodeEvent(
                chaincode_id=asked.chaincode_id, tx_id=txid, event_name=name, payload=payload
            )
            yield gateway_pb2.ChaincodeEventsResponse(events=[event], block_number=number)
            left = None if left is None else left - 1
        if left is not None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        await asyncio.Event().wait()

    async def Deliver(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for response in self._delivered("Deliver", requests, context):
            yield response

    async def DeliverFiltered(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for response in self._delivered("DeliverFiltered", requests, context):
            yield filtered(response)

    async def DeliverWithPrivateData(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """The second transaction of each block has private data."""
        async for response in self._delivered("DeliverWithPrivateData", requests, context):
            if response.WhichOneof("Type") != "block":
                yield response
                continue
            both = events_pb2.BlockAndPrivateData(block=response.block)
            both.private_data_map[1].ns_pvt_rwset.add(namespace="assets")
            yield events_pb2.DeliverResponse(block_and_private_data=both)

    async def _delivered(self, method: str, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        envelope = await anext(aiter(requests))
        self.asked[method].append(envelope)
        seek = ab_pb2.SeekInfo.FromString(common_pb2.Payload.FromString(envelope.payload).data)
        if self.script[method]:
            yield await self.script[method].pop(0)(envelope, context)
            return
        left = self.cut_after.pop(0) if self.cut_after else None
        place = 0
        while True:
            for block in self.chain[place:]:
                place += 1
                if seek.start.specified.number <= block.header.number <= seek.stop.specified.number:
                    if left == 0:
                        await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                    yield events_pb2.DeliverResponse(block=block)
                    left = None if left is None else left - 1
            if left is not None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            if not self.chain or seek.stop.specified.number <= self.chain[-1].header.number:
                break
            await self.grown()
        yield events_pb2.DeliverResponse(status=common_pb2.SUCCESS)

    def commit(self, codes: list[int], requests: list[Any]) -> None:
        """Adds a block to the chain: somebody else's transaction, then these."""
        block = made_block(len(self.chain), [0])
        block.data.data.extend(request.prepared_transaction.SerializeToString() for request in requests)
        block.metadata.metadata[2] = bytes([0, *codes])
        self.chain.append(block)

    async def grown(self) -> None:
        """Returns once the chain is longer than it was."""
        length = len(self.chain)
        while len(self.chain) == length:
            await asyncio.sleep(0.001)

    async def _next(self, method: str, request: Any, context: Any, usual: Act) -> Any:
        self.asked[method].append(request)
        act = self.script[method].pop(0) if self.script[method] else usual
        return await act(request, context)


async def served(fake: FakeGateway) -> tuple[grpc.aio.Server, str]:
    """A server on a free port, and its address."""
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServicer_to_server(fake, server)
    events_pb2_grpc.add_DeliverServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


def endorsed(proposal: bytes, result: bytes, event: tuple[str, bytes] | None = None) -> bytes:
    """The payload of a transaction with this answer and no endorsement."""
    said = proposal_pb2.ChaincodeAction(
        response=proposal_response_pb2.Response(status=200, payload=result),
        chaincode_id=chaincode_pb2.ChaincodeID(name="assets"),
    )
    if event:
        said.events = chaincode_event_pb2.ChaincodeEvent(event_name=event[0], payload=event[1]).SerializeToString()
    response = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=wire.proposal_hash(proposal), extension=said.SerializeToString()
    )
    return wire.prepare(proposal, response.SerializeToString(), [])


def made_block(number: int, codes: list[int], previous: bytes = b"") -> Any:
    """A block of transactions t<number>.<index>, each with an event of its id."""
    envelopes = []
    for index in range(len(codes)):
        call = wire.Call("city", "assets", (b"create", b"x"))
        _, proposal = wire.proposal(call, MEMBER.serialized, f"{number}.{index}".encode(), 1_700_000_000)
        payload = endorsed(proposal, b"made", ("created", f"t{number}.{index}".encode()))
        envelopes.append(common_pb2.Envelope(payload=payload, signature=b"s").SerializeToString())
    block = common_pb2.Block()
    block.header.number = number
    block.header.previous_hash = previous
    block.header.data_hash = data_hash(envelopes)
    block.data.data.extend(envelopes)
    block.metadata.metadata.extend([b"", b"", bytes(codes), b"", b""])
    return block


def made_chain(*codes: list[int]) -> list[Any]:
    chain: list[Any] = []
    for number, each in enumerate(codes):
        before = chain[-1].header if chain else None
        previous = header_hash(before.number, before.previous_hash, before.data_hash) if before else b""
        chain.append(made_block(number, each, previous))
    return chain


def filtered(response: Any) -> Any:
    """A delivered block as DeliverFiltered gives it."""
    if response.WhichOneof("Type") != "block":
        return response
    block = response.block
    found = events_pb2.FilteredBlock(channel_id="city", number=block.header.number)
    for data, code in zip(block.data.data, block.metadata.metadata[2], strict=True):
        header = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload).header
        channel = common_pb2.ChannelHeader.FromString(header.channel_header)
        found.filtered_transactions.add(txid=channel.tx_id, type=channel.type, tx_validation_code=code)
    return events_pb2.DeliverResponse(filtered_block=found)


def chain_info(height: int) -> Act:
    """What qscc answers to GetChainInfo."""
    info = ledger_pb2.BlockchainInfo(height=height).SerializeToString()
    response = proposal_response_pb2.Response(status=200, payload=info)
    return answers(gateway_pb2.EvaluateResponse(result=response))


def creator_of(request: Any) -> tuple[bytes, bytes]:
    """(creator, nonce) of a signed proposal."""
    header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(request.proposal_bytes).header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    return bytes(signature.creator), bytes(signature.nonce)


def digest(message: bytes) -> bytes:
    return sha256(message).digest()


CONFLICT = transaction_pb2.MVCC_READ_CONFLICT
