"""Connections to chaincodes: the peer is the client of each chaincode's server (chaincode as a service), and keeps one stream to it.

A connection registers, says READY with what it can do (3.1 batches), runs transactions, many at once, and connects again when the
chaincode dies; runs it was in the middle of fail.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import grpc
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    chaincode_shim_pb2_grpc,
    proposal_response_pb2,
)
from google.protobuf.message import DecodeError

from citykit import telemetry
from citykit.ledger.devpeer.requests import Message, Run, handle, kind_name
from citykit.ledger.devpeer.simulation import Forbidden
from citykit.ledger.devpeer.specification import Chaincode, Specification

MESSAGE_MAX = 100 * 1024 * 1024
RUNS_MAX = 1_000
"""Transactions a chaincode runs at once; more wait."""
_BACKOFF_S = (0.05, 2.0)
_CALL_DEPTH_MAX = 16
_BATCH_MAX = 1_000
_log = telemetry.logger("devpeer")
STREAM_TERMINATED = "chaincode stream terminated"


class ChaincodeFault(Exception):
    """The chaincode could not be run to its end; the message says why."""


@dataclass(frozen=True)
class Completed:
    """What a run ended with."""

    response: proposal_response_pb2.Response
    event: chaincode_event_pb2.ChaincodeEvent | None
    message: Message


@dataclass
class _Active:
    run: Run
    done: asyncio.Future[Message]
    depth: int


class Connection:
    """The stream to one chaincode."""

    def __init__(self, chaincode: Chaincode, specification: Specification, calls: Chaincodes) -> None:
        self.chaincode = chaincode
        self._specification = specification
        self._calls = calls
        self._ready = asyncio.Event()
        self._slots = asyncio.Semaphore(RUNS_MAX)
        self._outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self._active: dict[str, _Active] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault = "it did not answer yet"
        self.received: Counter[str] = Counter()
        """Messages by type, since the start."""

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def keep(self, credentials: grpc.ChannelCredentials | None) -> None:
        """Connects, serves, and connects again; ends when cancelled."""
        pause = _BACKOFF_S[0]
        while True:
            try:
                await self._serve(credentials)
            except Exception as error:  # whatever a chaincode sends, the peer's side of it goes on
                self._fault = _fault_text(error)
            if self._ready.is_set():
                pause = _BACKOFF_S[0]
                _log.warning("chaincode-lost", extra={"fields": {"chaincode": self.chaincode.name, "why": self._fault}})
            self._end_runs()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _BACKOFF_S[1])

    async def execute(self, run: Run, call: chaincode_pb2.ChaincodeInput, depth: int = 0) -> Message:
        """Runs a transaction and returns the chaincode's last message, COMPLETED or ERROR.

        Raises:
            ChaincodeFault: not connected, died, took too long, or runs this transaction already.
        """
        await self._until_ready()
        async with self._slots:
            if run.transaction in self._active:
                raise ChaincodeFault(f"txid: {run.transaction}({run.channel}) exists")
            active = _Active(run, asyncio.get_running_loop().create_future(), depth)
            self._active[run.transaction] = active
            try:
                kind = Message.INIT if call.is_init else Message.TRANSACTION
                self._send(run, kind, call.SerializeToString(), run)
                async with asyncio.timeout(self._specification.execute_s):
                    return await active.done
            except TimeoutError:
                raise ChaincodeFault("timeout expired while executing transaction") from None
            finally:
                self._active.pop(run.transaction, None)

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._specification.connect_s):
                await self._ready.wait()
        except TimeoutError:
            raise ChaincodeFault(
                f"could not launch chaincode {self.chaincode.name}: no connection to its server ({self._fault})"
            ) from None

    # --- the stream --------------------------------------------------------------------------------

    async def _serve(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._outgoing = asyncio.Queue()
        async with _channel(self.chaincode.address, credentials) as channel:
            stream = chaincode_shim_pb2_grpc.ChaincodeStub(channel).Connect()
            writer = asyncio.create_task(self._write(stream))
            try:
                while (message := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined] # its types lack it
                    self._receive(message)
            finally:
                writer.cancel()
                stream.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        raise ChaincodeFault("it ended the stream")

    async def _write(self, stream: grpc.aio.StreamStreamCall[Message, Message]) -> None:
        while True:
            await stream.write(await self._outgoing.get())

    def _receive(self, message: Message) -> None:
        self.received[kind_name(message.type)] += 1
        if not self._ready.is_set():
            self._register(message)
        elif message.type in (Message.COMPLETED, Message.ERROR):
            active = self._active.get(message.txid)
            if active and not active.done.done():
                active.done.set_result(message)
        elif message.type == Message.INVOKE_CHAINCODE:
            task = asyncio.create_task(self._invoke(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif message.type != Message.KEEPALIVE:
            self._answer(message)

    def _register(self, message: Message) -> None:
        if message.type != Message.REGISTER:
            raise ChaincodeFault(f"it sent {kind_name(message.type)} before REGISTER")
        name = chaincode_pb2.ChaincodeID.FromString(message.payload).name
        expected = self.chaincode.package_id or self.chaincode.name
        if name not in (expected, self.chaincode.name):
            raise ChaincodeFault(f"it registers as {name!r}, not as {expected!r}; set its chaincode id to that")
        self._outgoing.put_nowait(Message(type=Message.REGISTERED))
        batches = self._specification.batches
        offer = chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=batches, max_size_write_batch=_BATCH_MAX * batches,
            use_get_multiple_keys=batches, max_size_get_multiple_keys=_BATCH_MAX * batches,
        )  # fmt: skip
        self._outgoing.put_nowait(Message(type=Message.READY, payload=offer.SerializeToString()))
        self._ready.set()
        _log.info("chaincode-ready", extra={"fields": {"chaincode": self.chaincode.name}})

    def _answer(self, message: Message) -> None:
        active = self._active.get(message.txid)
        if active is None or message.channel_id != active.run.channel:
            self._error(message, "no ledger context")
            return
        try:
            self._send(active.run, Message.RESPONSE, handle(active.run, message))
        except (Forbidden, DecodeError) as error:
            self._error(message, str(error))

    async def _invoke(self, message: Message) -> None:
        active = self._active.get(message.txid)
        if active is None:
            self._error(message, "could not get valid transaction")
            return
        try:
            answer = await self._calls.call(active.run, message.payload, active.depth + 1)
            self._send(active.run, Message.RESPONSE, answer.SerializeToString())
        except (ChaincodeFault, DecodeError) as error:
            self._error(message, str(error))

    def _send(self, run: Run, kind: int, payload: bytes, proposal: Run | None = None) -> None:
        message = Message(type=kind, payload=payload, txid=run.transaction, channel_id=run.channel)
        if proposal is not None:
            message.proposal.CopyFrom(proposal.signed)
        self._outgoing.put_nowait(message)

    def _error(self, message: Message, why: str) -> None:
        text = f"{kind_name(message.type)} failed: transaction ID: {message.txid}: {why}"
        self._outgoing.put_nowait(
            Message(type=Message.ERROR, payload=text.encode(), txid=message.txid, channel_id=message.channel_id)
        )

    def _end_runs(self) -> None:
        self._ready.clear()
        for active in self._active.values():
            if not active.done.done():
                active.done.set_exception(ChaincodeFault(STREAM_TERMINATED))
        for task in self._tasks:
            task.cancel()


class Chaincodes:
    """All chaincodes of the channel."""

    def __init__(self, specification: Specification) -> None:
        self._channel = specification.channel
        self._connections = {one.name: Connection(one, specification, self) for one in specification.chaincodes}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, credentials: Mapping[str, grpc.ChannelCredentials | None]) -> None:
        """Begins to connect to every chaincode; `credentials` by name, None for plain text."""
        self._tasks = [
            asyncio.create_task(connection.keep(credentials[name]), name=f"chaincode-{name}")
            for name, connection in self._connections.items()
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # their tracebacks hold the calls, and those the connections

    def ready(self) -> dict[str, bool]:
        return {name: connection.ready for name, connection in self._connections.items()}

    def received(self, name: str) -> Mapping[str, int]:
        """Messages a chaincode sent, by type."""
        return self._connections[name].received

    async def run(self, run: Run, call: chaincode_pb2.ChaincodeInput) -> Completed:
        """Runs a transaction.

        Raises:
            ChaincodeFault: it could not be run, or the chaincode failed without a response.
        """
        message = await self._connections[run.chaincode.name].execute(run, call)
        if message.type == Message.ERROR:
            raise ChaincodeFault(f"transaction returned with failure: {message.payload.decode(errors='replace')}")
        return completed(run, message)

    async def call(self, caller: Run, payload: bytes, depth: int) -> Message:
        """A call from one chaincode to another; what it reads and writes joins the caller's transaction, its event does not."""
        spec = chaincode_pb2.ChaincodeSpec.FromString(payload)
        name, _, channel = spec.chaincode_id.name.partition("/")
        name = name.partition(":")[0]
        if channel and channel != self._channel:
            raise ChaincodeFault(f"failed to find ledger for channel: {channel}")
        connection = self._connections.get(name)
        if connection is None:
            raise ChaincodeFault(f"chaincode {name} is not defined on channel {self._channel}")
        if depth > _CALL_DEPTH_MAX:
            raise ChaincodeFault(f"chaincodes call each other {_CALL_DEPTH_MAX} deep; that is the limit")
        run = replace(caller, chaincode=connection.chaincode, queries={})
        return await connection.execute(run, spec.input, depth)


def completed(run: Run, message: Message) -> Completed:
    """The response and event in a COMPLETED message."""
    try:
        response = proposal_response_pb2.Response.FromString(message.payload)
    except DecodeError:
        raise ChaincodeFault("the chaincode answered with no response") from None
    event = None
    if message.chaincode_event.event_name:
        event = chaincode_event_pb2.ChaincodeEvent(
            chaincode_id=run.chaincode.name, tx_id=run.transaction,
            event_name=message.chaincode_event.event_name, payload=message.chaincode_event.payload,
        )  # fmt: skip
    return Completed(response, event, message)


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options = [
        ("grpc.max_send_message_length", MESSAGE_MAX),
        ("grpc.max_receive_message_length", MESSAGE_MAX),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _fault_text(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
