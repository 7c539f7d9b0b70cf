"""Chaincode events and blocks as endless async iterators that take up again, after a cut, where they stood: no gap, no double.

Source: gateway/gateway.proto (ChaincodeEvents) and peer/events.proto (Deliver, DeliverFiltered) with a signed orderer.SeekInfo.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2

from citykit.ledger.fabric import system, wire
from citykit.ledger.fabric.blocks import Block, ChaincodeEvent, Transaction, parse_block, require_follows
from citykit.ledger.fabric.checkpoint import Checkpointer, Place
from citykit.ledger.fabric.connection import stream
from citykit.ledger.fabric.errors import REFUSED, EventsError, FormError
from citykit.ledger.fabric.gateway import Gateway

_SUCCESS = 200
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""What a peer's status at the end of a stream of blocks says (common.Status)."""


class _Cuts:
    """Counts the cuts of a stream that bring nothing in between, and gives up after the connection's number of tries."""

    def __init__(self, gateway: Gateway) -> None:
        self._retry = gateway.connection.retry
        self._failures = 0

    def progress(self) -> None:
        self._failures = 0

    async def pause(self, error: EventsError) -> None:
        self._failures += 1
        if error.code in REFUSED or self._failures >= self._retry.tries:
            raise error
        await asyncio.sleep(self._retry.pause_s(self._failures))


async def chaincode_events(
    gateway: Gateway, chaincode: str, *, start: int | None = None, checkpoint: Checkpointer | None = None
) -> AsyncGenerator[ChaincodeEvent, None]:
    """Events of a chaincode's valid transactions, from now on or from a place on.

    Args:
        start: number of the first block; None: the next one that is committed. A checkpoint's place goes before.
        checkpoint: read at the start; the caller saves each event once it is handled.

    Raises:
        EventsError: refused, or cut as often in a row as the connection's retries say.
    """
    place = checkpoint.place() if checkpoint else None
    if place is None:
        place = Place(await system.height(gateway) if start is None else start)
    seen: set[str] = set()
    cuts = _Cuts(gateway)
    while True:
        try:
            async with aclosing(_chaincode_stream(gateway, chaincode, place)) as found:
                async for event in found:
                    cuts.progress()
                    if event.block != place.block:
                        seen.clear()
                    place = Place(event.block, event.transaction_id)
                    if event.transaction_id not in seen:
                        seen.add(event.transaction_id)
                        yield event
            fault = EventsError("the peer ended the stream of events", grpc.StatusCode.UNAVAILABLE)
        except EventsError as error:
            fault = error
        await cuts.pause(fault)


async def blocks(
    gateway: Gateway,
    *,
    start: int | None = None,
    stop: int | None = None,
    filtered: bool = False,
    private: bool = False,
    checkpoint: Checkpointer | None = None,
) -> AsyncGenerator[Block, None]:
    """Blocks in order.

    Args:
        start: number of the first block; None: the next one that is committed. A checkpoint's place goes before.
        stop: number of the last block; None: on and on.
        filtered: only transaction ids, codes and events without payload; `message` is protos.FilteredBlock. Of the others
            the hashes are checked: content against header, header against the block before.
        private: with what the reader's organisation holds of private data (`Block.private`); its peer must be of it.

    Raises:
        EventsError: refused, or cut as often in a row as the connection's retries say.
        FormError: a block that cannot be read, or that is not the next one; BlockDamaged where its hashes say so.
    """
    place = checkpoint.place() if checkpoint else None
    expected = place.block if place else start
    if expected is None:
        expected = await system.height(gateway)
    at = gateway.connection.deliver
    method = at.DeliverFiltered if filtered else at.DeliverWithPrivateData if private else at.Deliver
    cuts = _Cuts(gateway)
    before: Block | None = None
    while stop is None or expected <= stop:
        try:
            async with aclosing(_block_stream(gateway, expected, stop, method)) as found:
                async for block in found:
                    cuts.progress()
                    if block.number != expected:
                        raise FormError(f"the peer sent block {block.number} where block {expected} is next")
                    if not filtered:
                        require_follows(block, before)
                    expected, before = expected + 1, block
                    yield block
            if stop is not None and expected > stop:
                return
            fault = EventsError("the peer ended the stream of blocks early", grpc.StatusCode.UNAVAILABLE)
        except EventsError as error:
            fault = error
        await cuts.pause(fault)


async def _chaincode_stream(gateway: Gateway, chaincode: str, place: Place) -> AsyncGenerator[ChaincodeEvent, None]:
    request = gateway_pb2.ChaincodeEventsRequest(
        channel_id=gateway.channel, chaincode_id=chaincode, identity=gateway.identity.serialized
    )
    request.start_position.specified.number = place.block
    request.after_transaction_id = place.transaction_id
    message = bytes(request.SerializeToString())
    signed = gateway_pb2.SignedChaincodeEventsRequest(request=message, signature=gateway.sign(message))
    call = gateway.connection.gateway.ChaincodeEvents(signed)
    async with aclosing(stream(call, EventsError)) as answers:
        async for answer in answers:
            for event in answer.events:
                yield _event(event, int(answer.block_number))


async def _block_stream(gateway: Gateway, start: int, stop: int | None, method: Any) -> AsyncGenerator[Block, None]:
    at = gateway.connection
    payload = wire.seek_payload(
        gateway.channel, gateway.identity.serialized, gateway.nonce(), start, stop, at.tls_hash()
    )
    envelope = common_pb2.Envelope(payload=payload, signature=gateway.sign(payload))
    call = method()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(envelope)  # why a call ended is said by reading from it
    async with aclosing(stream(call, EventsError)) as answers:
        async for answer in answers:
            kind = answer.WhichOneof("Type")
            if kind == "status":
                _require_end(answer.status)
                return
            yield _block(kind, answer)
    raise EventsError("the peer ended the stream of blocks", grpc.StatusCode.UNAVAILABLE)


def _block(kind: str, answer: Any) -> Block:
    if kind == "filtered_block":
        return _filtered_block(answer.filtered_block)
    if kind == "block":
        return parse_block(answer.block)
    both = answer.block_and_private_data
    return replace(parse_block(both.block), private=dict(both.private_data_map))


def _require_end(status: int) -> None:
    if status != _SUCCESS:
        name = common_pb2.Status.Name(status) if status in common_pb2.Status.values() else str(status)
        raise EventsError(f"the peer ended the stream of blocks: {name}", _CODES.get(status, grpc.StatusCode.UNKNOWN))


def _event(event: Any, block: int) -> ChaincodeEvent:
    return ChaincodeEvent(event.chaincode_id, event.tx_id, event.event_name, bytes(event.payload), block)


def _filtered_block(message: Any) -> Block:
    transactions = [
        Transaction(str(item.txid), int(item.type), int(item.tx_validation_code), 0, ("", b""), None, b"")
        for item in message.filtered_transactions
    ]
    return Block(int(message.number), b"", b"", tuple(transactions), message)
