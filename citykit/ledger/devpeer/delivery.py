"""The delivery service (peer/events.proto): blocks, filtered blocks, and blocks with the asker's private data, by a signed SeekInfo."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import events_pb2, events_pb2_grpc
from google.protobuf.message import DecodeError

from citykit.ledger.devpeer.members import Member, Members, NotMember
from citykit.ledger.devpeer.messages import read_headers
from citykit.ledger.devpeer.ordering import Chain
from citykit.ledger.devpeer.specification import Specification
from citykit.ledger.devpeer.traffic import filtered, with_private

CLOCKS_APART_S = 15 * 60
"""How far a request's time may lie from the peer's, Fabric's default."""
LAST = 2**64 - 1
Context = grpc.aio.ServicerContext[Any, Any]
Response = events_pb2.DeliverResponse
Form = Callable[[common_pb2.Block, Member], Any]


@dataclass(frozen=True)
class Seek:
    """What is asked: blocks from `start` to `stop`, waiting for those that are not there yet or not."""

    start: int
    stop: int
    wait: bool


class SeekRefused(Exception):
    """Ends a request with this status (common.Status)."""

    def __init__(self, status: int) -> None:
        super().__init__(common_pb2.Status.Name(status))
        self.status = status


class DeliveryService(events_pb2_grpc.DeliverServicer):  # type: ignore[misc] # generated, untyped
    """Deliver, DeliverFiltered, DeliverWithPrivateData."""

    def __init__(self, specification: Specification, members: Members, chain: Chain) -> None:
        self._channel = specification.channel
        self._chaincodes = {one.name: one for one in specification.chaincodes}
        self._members = members
        self._chain = chain

    async def Deliver(self, requests: AsyncIterator[common_pb2.Envelope], context: Context) -> AsyncIterator[Any]:
        async for response in self._serve(requests, context, lambda block, _: Response(block=block)):
            yield response

    async def DeliverFiltered(
        self, requests: AsyncIterator[common_pb2.Envelope], context: Context
    ) -> AsyncIterator[Any]:
        async for response in self._serve(requests, context, self._filtered):
            yield response

    async def DeliverWithPrivateData(
        self, requests: AsyncIterator[common_pb2.Envelope], context: Context
    ) -> AsyncIterator[Any]:
        async for response in self._serve(requests, context, self._with_private):
            yield response

    def _filtered(self, block: common_pb2.Block, _: Member) -> Any:
        return Response(filtered_block=filtered(block, self._channel))

    def _with_private(self, block: common_pb2.Block, member: Member) -> Any:
        """With the private data of the collections the asker's organisation keeps."""

        def may_see(chaincode: str, collection: str) -> bool:
            found = self._chaincodes.get(chaincode)
            return found is not None and member.msp_id in found.members_of(collection)

        private = self._chain.private_sets(block.header.number)
        return Response(block_and_private_data=with_private(block, private, may_see))

    async def _serve(
        self, requests: AsyncIterator[common_pb2.Envelope], context: Context, form: Form
    ) -> AsyncIterator[Any]:
        async for envelope in requests:
            try:
                seek, member = self._seek(envelope, context)
                async for block in self._blocks(seek):
                    yield form(block, member)
                yield Response(status=common_pb2.SUCCESS)
            except SeekRefused as refused:
                yield Response(status=refused.status)

    async def _blocks(self, seek: Seek) -> AsyncIterator[common_pb2.Block]:
        number = seek.start
        while number <= seek.stop:
            if not seek.wait and number >= self._chain.height:
                raise SeekRefused(common_pb2.NOT_FOUND)
            await self._chain.longer_than(number)
            yield self._chain.block(number)
            number += 1

    def _seek(self, envelope: common_pb2.Envelope, context: Context) -> tuple[Seek, Member]:
        try:
            payload = common_pb2.Payload.FromString(envelope.payload)
            headers = read_headers(payload.header)
            info = ab_pb2.SeekInfo.FromString(payload.data)
        except DecodeError:
            raise SeekRefused(common_pb2.BAD_REQUEST) from None
        if headers.channel != self._channel:
            raise SeekRefused(common_pb2.NOT_FOUND)
        if abs(headers.time[0] - time.time()) > CLOCKS_APART_S:
            raise SeekRefused(common_pb2.BAD_REQUEST)
        if headers.tls_hash and headers.tls_hash != _tls_hash(context):
            raise SeekRefused(common_pb2.BAD_REQUEST)
        try:
            member = self._members.signed(headers.creator, envelope.payload, envelope.signature)
        except NotMember:
            raise SeekRefused(common_pb2.FORBIDDEN) from None
        return self._range(info), member

    def _range(self, info: ab_pb2.SeekInfo) -> Seek:
        start, stop = self._number(info.start), self._number(info.stop)
        if info.stop.WhichOneof("Type") == "newest":
            stop = max(stop, start)
        if stop < start:
            raise SeekRefused(common_pb2.BAD_REQUEST)
        return Seek(start, stop, info.behavior == ab_pb2.SeekInfo.BLOCK_UNTIL_READY)

    def _number(self, position: ab_pb2.SeekPosition) -> int:
        match position.WhichOneof("Type"):
            case "oldest":
                return 0
            case "newest":
                return self._chain.height - 1
            case "next_commit":
                return self._chain.height
            case "specified":
                return int(position.specified.number)
        raise SeekRefused(common_pb2.BAD_REQUEST)


def _tls_hash(context: Context) -> bytes:
    """SHA-256 of the TLS certificate the client showed; empty without one."""
    shown = (context.auth_context() or {}).get("x509_pem_cert", ())
    return next((sha256(x509.load_pem_x509_certificate(one).public_bytes(Encoding.DER)).digest() for one in shown), b"")
