"""One peer's stream: registers, answers keep-alives, runs its transactions side by side, and writes through one queue, its call's.

Made by `shim_server` for each `protos.Chaincode.Connect`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from citykit.ledger.fabric import shim_wire
from citykit.ledger.fabric.shim_call import CallRefused
from citykit.ledger.fabric.shim_errors import ERROR, ChaincodeError, LimitExceeded, PeerError
from citykit.ledger.fabric.shim_http2 import FAILED_PRECONDITION
from citykit.ledger.fabric.shim_stub import Stub
from citykit.ledger.fabric.shim_types import Limits, Response
from citykit.ledger.fabric.shim_wire import Kind, Message, PeerOffer

_LOG = logging.getLogger(__name__)
_BUSY = 503

Answered = Response | bytes | None
AsyncHandler = Callable[[Stub], Awaitable[Answered]]
Identity = tuple[str, str]


class Outgoing(Protocol):
    """Where a stream's messages go."""

    def write(self, data: bytes) -> None:
        """Queues a message; it leaves in its turn."""

    def finish(self) -> None:
        """Ends the call once all that is queued has left."""


class PeerStream:
    """A stream from its registration to its end. Each transaction has at most one message under way, so the queue is bounded by them."""

    def __init__(
        self, package_id: str, handler: AsyncHandler, init: AsyncHandler, limits: Limits, outgoing: Outgoing,
        gone: Callable[[PeerStream], None],
    ) -> None:  # fmt: skip
        self._handlers = {Kind.TRANSACTION: handler, Kind.INIT: init}
        self._limits = limits
        self._outgoing = outgoing
        self._gone = gone
        self._running: dict[Identity, _Transaction] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._registered = self._ready = self._draining = self._ended = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.offer = PeerOffer()
        self.send(shim_wire.register(package_id))

    @property
    def running(self) -> int:
        """Transactions that run now."""
        return len(self._running)

    @property
    def ready(self) -> bool:
        """Whether the peer may send transactions."""
        return self._ready

    def receive(self, data: bytes) -> None:
        """A message of the peer.

        Raises:
            CallRefused: it broke the protocol; the stream ends.
        """
        try:
            message = Message.FromString(data)
        except DecodeError:
            raise _breach("a message that does not decode") from None
        kind = message.type
        if kind in (Kind.RESPONSE, Kind.ERROR):
            self._answer(message)
        elif kind in self._handlers and self._ready:
            self._start(message)
        elif kind == Kind.KEEPALIVE:
            self.send(message)
        elif kind == Kind.REGISTERED and not self._registered:
            self._registered = True
        elif kind == Kind.READY and self._registered:
            self._take_offer(message.payload)
        else:
            raise _breach(f"a message of type {kind} where the protocol has no place for it")

    def ended(self) -> None:
        """The stream is gone: what still runs is cancelled."""
        if not self._ended:
            self._ended = True
            self._ready = False
            for task in self._tasks:
                task.cancel()
            self._gone(self)

    async def drain(self) -> None:
        """Takes no new transactions, waits for the running ones, and ends the stream."""
        self._draining = True
        await self._idle.wait()
        self._outgoing.finish()

    def send(self, message: Any) -> None:
        """Queues a message.

        Raises:
            LimitExceeded: larger than a peer takes.
        """
        data = message.SerializeToString()
        if len(data) > self._limits.message_bytes:
            raise LimitExceeded(f"a message to the peer is at most {self._limits.message_bytes} bytes, not {len(data)}")
        self._outgoing.write(data)

    def _take_offer(self, payload: bytes) -> None:
        try:
            self.offer = shim_wire.read_offer(payload)
        except DecodeError:
            raise _breach("an offer that does not decode") from None
        self._ready = True

    def _answer(self, message: Any) -> None:
        """An answer nobody waits for is of a transaction that was given up."""
        transaction = self._running.get((message.channel_id, message.txid))
        if transaction is not None:
            transaction.answered(message)

    def _start(self, message: Any) -> None:
        identity = (message.channel_id, message.txid)
        refusal = self._refusal(identity)
        if refusal:
            self.send(shim_wire.completed(*identity, Response(_BUSY, refusal), None))
            return
        transaction = _Transaction(self, identity)
        self._running[identity] = transaction
        self._idle.clear()
        task = asyncio.create_task(self._run(transaction, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refusal(self, identity: Identity) -> str:
        if self._draining:
            return "this chaincode server is stopping; try again"
        if len(self._running) >= self._limits.transactions:
            return f"this chaincode server runs {self._limits.transactions} transactions already; try again"
        if identity in self._running:
            return "this transaction runs here already; a chaincode cannot call itself"
        return ""

    # --- what runs ---------------------------------------------------------------------------------

    async def _run(self, transaction: _Transaction, message: Any) -> None:
        identity = transaction.identity
        try:
            response, event = await self._result(transaction, message)
            if message.type == Kind.INIT and response.status >= ERROR:
                self.send(shim_wire.failed(*identity, response.message))
            else:
                self._complete(identity, response, event)
        finally:
            del self._running[identity]
            if not self._running:
                self._idle.set()

    def _complete(self, identity: Identity, response: Response, event: tuple[str, bytes] | None) -> None:
        try:
            self.send(shim_wire.completed(*identity, response, event))
        except (LimitExceeded, ValueError) as error:
            _LOG.warning("chaincode answer not sent: %s", error)
            self.send(shim_wire.completed(*identity, Response(ERROR, f"answer not sent: {error}"), None))

    async def _result(self, transaction: _Transaction, message: Any) -> tuple[Response, tuple[str, bytes] | None]:
        try:
            async with asyncio.timeout(self._limits.transaction_s):
                invoked = shim_wire.read_input(message.payload)
                stub = Stub(transaction, self._limits, *transaction.identity, invoked, message.proposal)
                response = as_response(await self._handlers[message.type](stub))
                if response.ok:
                    await stub.flush()
                return response, stub.event
        except ChaincodeError as error:
            return Response(error.status, error.message), None
        except TimeoutError:
            return Response(ERROR, f"the chaincode took longer than {self._limits.transaction_s:g} s"), None
        except (PeerError, LimitExceeded) as error:
            return Response(ERROR, str(error)), None
        except Exception as error:
            _LOG.exception("chaincode handler failed")
            return Response(ERROR, f"the chaincode failed with {type(error).__name__}; its log says more"), None


class _Transaction:
    """A transaction's way to the peer: one request at a time."""

    def __init__(self, stream: PeerStream, identity: Identity) -> None:
        self.identity = identity
        self._stream = stream
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[Any] | None = None

    @property
    def offer(self) -> PeerOffer:
        return self._stream.offer

    async def ask(self, kind: int, payload: bytes) -> bytes:
        async with self._turn:
            channel, txid = self.identity
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                self._stream.send(Message(type=kind, payload=payload, txid=txid, channel_id=channel))
                answer = await self._waiting
            finally:
                self._waiting = None
        if answer.type == Kind.ERROR:
            raise PeerError(answer.payload.decode(errors="replace"))
        return bytes(answer.payload)

    def answered(self, message: Any) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(message)


def _breach(what: str) -> CallRefused:
    return CallRefused(FAILED_PRECONDITION, f"the peer sent {what}")


def as_response(answered: Answered) -> Response:
    """A handler's return value as a response: bytes are a payload, None an empty one.

    Raises:
        TypeError: something else.
    """
    if isinstance(answered, Response):
        return answered
    if answered is None or isinstance(answered, bytes):
        return Response(payload=answered or b"")
    raise TypeError(f"a chaincode handler returns Response, bytes or None, not {type(answered).__name__}")
