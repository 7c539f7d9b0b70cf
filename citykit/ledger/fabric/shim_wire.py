"""Messages between shim and peer (protos.ChaincodeMessage), made and read. Pure functions, used by the shim only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fabric_protos.ledger.queryresult import kv_query_result_pb2 as results
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as wire

from citykit.ledger.fabric.shim_errors import PeerError
from citykit.ledger.fabric.shim_types import KeyValue, Limits, Modification, Response

Message = wire.ChaincodeMessage
Kind = wire.ChaincodeMessage
_SECOND_NS = 1_000_000_000
_BATCH_MAX = 100
"""What a peer that names no size takes at least in one batch."""


@dataclass(frozen=True, slots=True)
class PeerOffer:
    """What the peer said in READY that it takes in one message; 0: one by one (peers before Fabric 3.1)."""

    writes: int = 0
    reads: int = 0


def read_offer(payload: bytes) -> PeerOffer:
    """The offer in a READY message's payload."""
    offered = chaincode_pb2.ChaincodeAdditionalParams.FromString(payload)
    writes = (offered.max_size_write_batch or _BATCH_MAX) if offered.use_write_batch else 0
    reads = (offered.max_size_get_multiple_keys or _BATCH_MAX) if offered.use_get_multiple_keys else 0
    return PeerOffer(writes, reads)


def register(package_id: str) -> Any:
    """The first message of a stream: which package this server runs."""
    return Message(type=Kind.REGISTER, payload=chaincode_pb2.ChaincodeID(name=package_id).SerializeToString())


def completed(channel: str, txid: str, response: Response, event: tuple[str, bytes] | None) -> Any:
    """The end of a transaction."""
    message = Message(
        type=Kind.COMPLETED, channel_id=channel, txid=txid, payload=response_message(response).SerializeToString()
    )
    if event is not None and response.ok:
        message.chaincode_event.CopyFrom(chaincode_event_pb2.ChaincodeEvent(event_name=event[0], payload=event[1]))
    return message


def failed(channel: str, txid: str, text: str) -> Any:
    """The end of an initialisation that failed."""
    return Message(type=Kind.ERROR, channel_id=channel, txid=txid, payload=text.encode())


def response_message(response: Response) -> Any:
    return proposal_response_pb2.Response(status=response.status, message=response.message, payload=response.payload)


def read_response(payload: bytes) -> Response:
    """A chaincode's response."""
    found = proposal_response_pb2.Response.FromString(payload)
    return Response(int(found.status), str(found.message), bytes(found.payload))


def read_invoked(payload: bytes) -> Response:
    """The response of a called chaincode, inside the peer's answer.

    Raises:
        PeerError: the called chaincode did not complete.
    """
    inner = Message.FromString(payload)
    if inner.type != Kind.COMPLETED:
        raise PeerError(_text(inner.payload) or "the called chaincode did not complete")
    return read_response(inner.payload)


def read_input(payload: bytes) -> Any:
    """The chaincode input of a TRANSACTION or INIT message."""
    return chaincode_pb2.ChaincodeInput.FromString(payload)


def invoke(chaincode: str, args: Iterable[bytes]) -> bytes:
    """Payload of INVOKE_CHAINCODE; `chaincode` is NAME or NAME/CHANNEL."""
    called = chaincode_pb2.ChaincodeSpec(
        chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode), input=chaincode_pb2.ChaincodeInput(args=list(args))
    )
    return bytes(called.SerializeToString())


def metadata(page_size: int, bookmark: str) -> bytes:
    """The paging part of a query."""
    return bytes(wire.QueryMetadata(pageSize=page_size, bookmark=bookmark).SerializeToString())


def read_bookmark(payload: bytes) -> str:
    return str(wire.QueryResponseMetadata.FromString(payload).bookmark)


def key_value(data: bytes) -> KeyValue:
    """An entry of a range or a query."""
    found = results.KV.FromString(data)
    return KeyValue(found.key, found.value)


def modification(data: bytes) -> Modification:
    """An entry of a key's history."""
    found = results.KeyModification.FromString(data)
    time_ns = int(found.timestamp.seconds) * _SECOND_NS + int(found.timestamp.nanos)
    return Modification(found.tx_id, found.value, time_ns, found.is_delete)


def put(key: str, value: bytes, collection: str) -> Any:
    return wire.WriteRecord(type=wire.WriteRecord.PUT_STATE, key=key, value=value, collection=collection)


def delete(key: str, collection: str) -> Any:
    return wire.WriteRecord(type=wire.WriteRecord.DEL_STATE, key=key, collection=collection)


def purge(key: str, collection: str) -> Any:
    return wire.WriteRecord(type=wire.WriteRecord.PURGE_PRIVATE_DATA, key=key, collection=collection)


def put_metadata(key: str, name: str, value: bytes, collection: str) -> Any:
    return wire.WriteRecord(
        type=wire.WriteRecord.PUT_STATE_METADATA,
        key=key,
        collection=collection,
        metadata=wire.StateMetadata(metakey=name, value=value),
    )


def write_requests(writes: Sequence[Any], offer: PeerOffer, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of the messages that carry a transaction's writes, in their order."""
    if offer.writes == 0:
        yield from (_single(write) for write in writes)
        return
    batch: list[Any] = []
    size = 0
    for write in writes:
        weight = write.ByteSize()
        if batch and (len(batch) == offer.writes or size + weight > limits.batch_bytes):
            yield _batch(batch)
            batch, size = [], 0
        batch.append(write)
        size += weight
    if batch:
        yield _batch(batch)


def _batch(writes: list[Any]) -> tuple[int, bytes]:
    if len(writes) == 1:
        return _single(writes[0])
    return Kind.WRITE_BATCH_STATE, wire.WriteBatchState(rec=writes).SerializeToString()


def _single(write: Any) -> tuple[int, bytes]:
    where = {"key": write.key, "collection": write.collection}
    made: Any
    match write.type:
        case wire.WriteRecord.PUT_STATE:
            made = wire.PutState(value=write.value, **where)
        case wire.WriteRecord.DEL_STATE:
            made = wire.DelState(**where)
        case wire.WriteRecord.PURGE_PRIVATE_DATA:
            made = wire.PurgePrivateState(**where)
        case _:
            made = wire.PutStateMetadata(metadata=write.metadata, **where)
    return int(write.type), made.SerializeToString()


def _text(payload: bytes) -> str:
    return payload.decode(errors="replace")
