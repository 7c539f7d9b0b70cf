"""Chaincode as a service: a gRPC server a peer connects to (`protos.Chaincode.Connect`), one for each chaincode package.

The server must name its package before the peer says anything, so one address serves one package; many servers fit in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from citykit.ledger.fabric.shim_call import Call, CallRefused
from citykit.ledger.fabric.shim_http2 import RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED
from citykit.ledger.fabric.shim_listener import Listener, ServerTls
from citykit.ledger.fabric.shim_stream import Answered, PeerStream
from citykit.ledger.fabric.shim_stub import Stub
from citykit.ledger.fabric.shim_sync import asynchronous
from citykit.ledger.fabric.shim_types import Limits

_LOG = logging.getLogger(__name__)
_CONNECT = "/protos.Chaincode/Connect"
_END_S = 1.0

Handler = Callable[[Any], Any]
"""Takes a `Stub` (async def) or a `SyncStub` (def), returns Response, bytes or None; or raises ChaincodeError."""


class ChaincodeServer:
    """Serves one chaincode package on one address.

    Args:
        package_id: LABEL:HASH as the peer computes it at installation.
        address: HOST:PORT; port 0 takes a free one.
        tls: None: plain text, for loopback only.
        init: runs where the chaincode's definition requires initialisation; the default succeeds and does nothing.
    """

    def __init__(
        self, package_id: str, handler: Handler, *, address: str, tls: ServerTls | None = None,
        limits: Limits | None = None, init: Handler | None = None,
    ) -> None:  # fmt: skip
        if not package_id:
            raise ValueError("a chaincode server needs the id of its package")
        self.package_id = package_id
        self.port = 0
        self._handler = asynchronous(handler)
        self._init = asynchronous(init) if init is not None else _nothing
        self._limits = limits or Limits()
        self._streams: set[PeerStream] = set()
        self._stopping = False
        self._listener = Listener(address, tls, self._accept, self._limits.message_bytes)

    @property
    def streams(self) -> int:
        """Peers that are connected and ready."""
        return sum(1 for stream in self._streams if stream.ready)

    @property
    def running(self) -> int:
        """Transactions that run now."""
        return sum(stream.running for stream in self._streams)

    async def start(self) -> int:
        """Binds and serves; returns the port.

        Raises:
            OSError: the address cannot be bound, or a TLS file cannot be used.
        """
        self.port = self._listener.start()
        return self.port

    async def stop(self, grace_s: float = 10.0) -> None:
        """Takes no new transactions, waits for the running ones, then ends the streams; the peer connects again at its next call."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(stream.drain() for stream in self._streams))
        await self._listener.close(_END_S)

    def _accept(self, path: str, call: Call) -> PeerStream:
        if path != _CONNECT:
            raise CallRefused(UNIMPLEMENTED, f"this server has {_CONNECT} only")
        if self._stopping:
            raise CallRefused(UNAVAILABLE, "this chaincode server is stopping")
        if len(self._streams) >= self._limits.streams:
            raise CallRefused(RESOURCE_EXHAUSTED, f"{self._limits.streams} peers are connected already")
        stream = PeerStream(self.package_id, self._handler, self._init, self._limits, call, self._left)
        self._streams.add(stream)
        _LOG.info("peer connected", extra={"package": self.package_id})
        return stream

    def _left(self, stream: PeerStream) -> None:
        self._streams.discard(stream)
        _LOG.info("peer gone", extra={"package": self.package_id})


async def _nothing(stub: Stub) -> Answered:
    return None
