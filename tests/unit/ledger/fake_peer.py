"""A scripted peer: connects to a chaincode server, answers its requests from a dictionary, and can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.ledger.queryresult import kv_query_result_pb2 as results
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2
from fabric_protos.peer import chaincode_shim_pb2 as wire

Message = wire.ChaincodeMessage
NOW = 1_800_000_000
DEADLINE_S = 10.0


@cache
def creator(common_name: str = "tester", msp_id: str = "CityMSP", **attributes: str) -> bytes:
    """A serialised identity with a self-signed certificate."""
    return _creator(common_name, msp_id, json.dumps({"attrs": attributes}).encode() if attributes else b"")


def broken_creator() -> bytes:
    """An identity whose certificate has attributes that are no JSON."""
    return _creator("tester", "CityMSP", b"{")


def _creator(common_name: str, msp_id: str, attributes: bytes) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=3650))
    if attributes:
        oid = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, attributes), critical=False)
    pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return bytes(identities_pb2.SerializedIdentity(mspid=msp_id, id_bytes=pem).SerializeToString())


@dataclass(frozen=True)
class Outcome:
    """How a transaction ended."""

    status: int
    message: str
    payload: bytes
    event: tuple[str, bytes] | None
    writes: dict[str, bytes | None]


@dataclass
class Running:
    done: asyncio.Future[Any]
    writes: dict[str, bytes | None] = field(default_factory=dict)
    asking: bool = False


Script = Callable[[Any], Any]
"""Takes a request; returns an answer (Message), None to stay silent, or NotImplemented to let the peer answer as usual."""


class FakePeer:
    """One connection to a chaincode server. Reads see `state`; `invoke(commit=True)` applies the writes of a success."""

    def __init__(self, *, writes: int = 0, reads: int = 0, results_max: int = 100) -> None:
        self.state: dict[str, bytes] = {}
        self.history: dict[str, list[Any]] = {}
        self.called: dict[str, Callable[[list[bytes]], Any]] = {}
        self.requests: list[str] = []
        self.package_id = ""
        self.overlaps = 0
        self.echoes = 0
        self.script: Script = lambda request: NotImplemented
        self.open_queries: dict[str, list[bytes]] = {}
        self.most_running = 0
        self._params = chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=writes > 0, max_size_write_batch=writes,
            use_get_multiple_keys=reads > 0, max_size_get_multiple_keys=reads,
        )  # fmt: skip
        self._results_max = results_max
        self._running: dict[str, Running] = {}
        self._made = 0
        self._call: Any = None
        self._channel: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self.ready = asyncio.Event()

    async def connect(self, port: int, credentials: grpc.ChannelCredentials | None = None) -> FakePeer:
        options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        target = f"localhost:{port}"
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=options)
        )
        method = self._channel.stream_stream("/protos.Chaincode/Connect", Message.SerializeToString, Message.FromString)
        self._call = method()
        self._reader = asyncio.create_task(self._read())
        waiting = asyncio.create_task(self.ready.wait())
        await asyncio.wait({waiting, self._reader}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.ready.is_set():
            self._reader.result()
            raise AssertionError("the chaincode server did not register")
        return self

    async def send(self, message: Any) -> None:
        if message.type in (Message.RESPONSE, Message.ERROR) and message.txid in self._running:
            self._running[message.txid].asking = False
        async with self._writing:
            await self._call.write(message)

    async def close(self) -> None:
        """Cuts the stream as a peer that dies."""
        self._call.cancel()
        await self.ended()
        await self._channel.close()

    async def ended(self) -> grpc.StatusCode:
        """Waits for the stream's end; its status."""
        if self._reader is not None:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            return await self._call.code()  # type: ignore[no-any-return] # an untyped call
        return grpc.StatusCode.CANCELLED

    # --- transactions ------------------------------------------------------------------------------

    async def invoke(
        self, *args: bytes | str, txid: str = "", identity: bytes | None = None, transient: dict[str, bytes] | None = None,
        init: bool = False, commit: bool = True, time: int = NOW,
    ) -> Outcome:  # fmt: skip
        """Sends a transaction and waits for its end."""
        self._made += 1
        txid = txid or sha256(f"{id(self)}/{self._made}".encode()).hexdigest()
        running = self._running[txid] = Running(asyncio.get_running_loop().create_future())
        self.most_running = max(self.most_running, len(self._running))
        data = [item.encode() if isinstance(item, str) else item for item in args]
        proposed = transaction(txid, data, identity or creator(), transient or {}, init=init, time=time)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.send(proposed)
                message = await running.done
        finally:
            self._running.pop(txid, None)
        outcome = outcome_of(message, running.writes)
        if commit and outcome.status < 400:
            self.apply(outcome.writes)
        return outcome

    def apply(self, writes: dict[str, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value

    async def _read(self) -> None:
        async for message in self._call:
            await self._handle(message)

    async def _handle(self, message: Any) -> None:
        if message.type == Message.REGISTER:
            self.package_id = chaincode_pb2.ChaincodeID.FromString(message.payload).name
            await self.send(Message(type=Message.REGISTERED))
            await self.send(Message(type=Message.READY, payload=self._params.SerializeToString()))
            self.ready.set()
        elif message.type == Message.KEEPALIVE:
            self.echoes += 1
        elif message.type in (Message.COMPLETED, Message.ERROR):
            running = self._running.get(message.txid)
            if running is not None and not running.done.done():
                running.done.set_result(message)
        else:
            await self._request(message)

    async def _request(self, message: Any) -> None:
        self.requests.append(Message.Type.Name(message.type))
        running = self._running.get(message.txid)
        if running is not None:
            self.overlaps += running.asking
            running.asking = True
        answer = self.script(message)
        if answer is NotImplemented:
            answer = self.answer(message)
        if answer is not None:
            await self.send(answer)

    # --- requests ----------------------------------------------------------------------------------

    def answer(self, message: Any) -> Any:
        """The usual answer."""
        try:
            payload = self._payload(message)
        except LookupError as error:
            return reply(message, str(error).encode(), kind=Message.ERROR)
        return reply(message, payload)

    def _payload(self, message: Any) -> bytes:
        if message.type in _WRITES:
            self._write(message.txid, message.type, _WRITES[message.type].FromString(message.payload))
            return b""
        if message.type == Message.WRITE_BATCH_STATE:
            for record in wire.WriteBatchState.FromString(message.payload).rec:
                self._write(message.txid, record.type, record)
            return b""
        form, read = _READS[message.type]
        return bytes(read(self, form.FromString(message.payload)))

    def _get(self, asked: Any) -> bytes:
        return self.state.get(_name(asked), b"")

    def _get_many(self, asked: Any) -> bytes:
        values = [self.state.get(_joined(key, asked.collection), b"") for key in asked.keys]
        return bytes(wire.GetStateMultipleResult(values=values).SerializeToString())

    def _hash(self, asked: Any) -> bytes:
        value = self.state.get(_name(asked))
        return sha256(value).digest() if value else b""

    def _metadata(self, asked: Any) -> bytes:
        value = self.state.get(_name(asked) + "#VALIDATION_PARAMETER")
        entries = [wire.StateMetadata(metakey="VALIDATION_PARAMETER", value=value)] if value else []
        return bytes(wire.StateMetadataResult(entries=entries).SerializeToString())

    def _history(self, asked: Any) -> bytes:
        return self._batch([change.SerializeToString() for change in self.history.get(asked.key, [])])

    def _following(self, asked: Any) -> bytes:
        return self._batch(self.open_queries.pop(asked.id))

    def _closed(self, asked: Any) -> bytes:
        self.open_queries.pop(asked.id)
        return bytes(wire.QueryResponse(id=asked.id).SerializeToString())

    def _query(self, asked: Any) -> bytes:
        raise LookupError("ExecuteQuery not supported for leveldb")

    def _write(self, txid: str, kind: int, record: Any) -> None:
        writes = self._running[txid].writes
        if kind == Message.PUT_STATE_METADATA:
            writes[f"{_name(record)}#{record.metadata.metakey}"] = record.metadata.value
        else:
            writes[_name(record)] = record.value if kind == Message.PUT_STATE else None

    def _range(self, asked: Any) -> bytes:
        paged = wire.QueryMetadata.FromString(asked.metadata)
        start, end = (_joined(key, asked.collection) for key in (paged.bookmark or asked.startKey, asked.endKey))
        found = [
            results.KV(key=key.rpartition("|")[2], value=value).SerializeToString()
            for key, value in sorted(self.state.items())
            if start <= key and (key < end or not asked.endKey) and ("|" in key) == bool(asked.collection)
        ]
        if paged.pageSize == 0:
            return self._batch(found)
        bookmark = results.KV.FromString(found[paged.pageSize]).key if len(found) > paged.pageSize else ""
        metadata = wire.QueryResponseMetadata(fetched_records_count=len(found[: paged.pageSize]), bookmark=bookmark)
        page = [wire.QueryResultBytes(resultBytes=item) for item in found[: paged.pageSize]]
        return bytes(wire.QueryResponse(results=page, metadata=metadata.SerializeToString()).SerializeToString())

    def _batch(self, found: list[bytes]) -> bytes:
        first, rest = found[: self._results_max], found[self._results_max :]
        query = f"query-{len(self.requests)}"
        if rest:
            self.open_queries[query] = rest
        items = [wire.QueryResultBytes(resultBytes=item) for item in first]
        return bytes(wire.QueryResponse(results=items, has_more=bool(rest), id=query).SerializeToString())

    def _invoked(self, spec: Any) -> bytes:
        name = spec.chaincode_id.name
        if name not in self.called:
            raise LookupError(f"chaincode {name} not found")
        response = self.called[name](list(spec.input.args))
        return bytes(Message(type=Message.COMPLETED, payload=response.SerializeToString()).SerializeToString())


def transaction(
    txid: str, args: list[bytes], identity: bytes, transient: dict[str, bytes], *, init: bool = False, time: int = NOW
) -> Any:
    """A TRANSACTION (or INIT) message as a peer makes it of a signed proposal."""
    header = common_pb2.ChannelHeader(channel_id="city", tx_id=txid)
    header.timestamp.FromSeconds(time)
    signature = common_pb2.SignatureHeader(creator=identity, nonce=b"n" * 24)
    both = common_pb2.Header(channel_header=header.SerializeToString(), signature_header=signature.SerializeToString())
    payload = proposal_pb2.ChaincodeProposalPayload(TransientMap=transient)
    proposal = proposal_pb2.Proposal(header=both.SerializeToString(), payload=payload.SerializeToString())
    return Message(
        type=Message.INIT if init else Message.TRANSACTION,
        txid=txid,
        channel_id="city",
        payload=chaincode_pb2.ChaincodeInput(args=args).SerializeToString(),
        proposal=proposal_pb2.SignedProposal(proposal_bytes=proposal.SerializeToString()),
    )


def reply(message: Any, payload: bytes, kind: int = Message.RESPONSE) -> Any:
    return Message(type=kind, txid=message.txid, channel_id=message.channel_id, payload=payload)


def outcome_of(message: Any, writes: dict[str, bytes | None]) -> Outcome:
    if message.type == Message.ERROR:
        return Outcome(0, message.payload.decode(), b"", None, writes)
    response = proposal_response_pb2.Response.FromString(message.payload)
    happened = message.chaincode_event
    event = (happened.event_name, happened.payload) if happened.event_name else None
    return Outcome(response.status, response.message, response.payload, event, writes)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def _name(record: Any) -> str:
    return _joined(record.key, record.collection)


def _joined(key: str, collection: str) -> str:
    return f"{collection}|{key}" if collection else key


_WRITES: dict[int, Any] = {
    Message.PUT_STATE: wire.PutState,
    Message.DEL_STATE: wire.DelState,
    Message.PUT_STATE_METADATA: wire.PutStateMetadata,
    Message.PURGE_PRIVATE_DATA: wire.PurgePrivateState,
}
_READS: dict[int, tuple[Any, Callable[[FakePeer, Any], bytes]]] = {
    Message.GET_STATE: (wire.GetState, FakePeer._get),
    Message.GET_STATE_MULTIPLE: (wire.GetStateMultiple, FakePeer._get_many),
    Message.GET_PRIVATE_DATA_HASH: (wire.GetState, FakePeer._hash),
    Message.GET_STATE_METADATA: (wire.GetStateMetadata, FakePeer._metadata),
    Message.GET_STATE_BY_RANGE: (wire.GetStateByRange, FakePeer._range),
    Message.GET_HISTORY_FOR_KEY: (wire.GetHistoryForKey, FakePeer._history),
    Message.GET_QUERY_RESULT: (wire.GetQueryResult, FakePeer._query),
    Message.QUERY_STATE_NEXT: (wire.QueryStateNext, FakePeer._following),
    Message.QUERY_STATE_CLOSE: (wire.QueryStateClose, FakePeer._closed),
    Message.INVOKE_CHAINCODE: (chaincode_pb2.ChaincodeSpec, FakePeer._invoked),
}
