"""Listens on an address and makes a connection of each peer that comes, with the TLS files as they are at that moment. Made by `shim_server`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from citykit.ledger.fabric.shim_call import Accept
from citykit.ledger.fabric.shim_connection import Http2Connection

_LOG = logging.getLogger(__name__)
_CONNECTIONS_MAX = 64
_BACKLOG = 64
_HANDSHAKE_S = 10.0
_PAUSE_S = 0.1
"""After the machine had no file descriptor left."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server; read again for new connections when they change.

    Attributes:
        client_roots: who signs the peers' client certificates; without it any client may connect.
    """

    certificate: Path
    key: Path
    client_roots: Path | None = None


class Listener:
    """One address.

    Args:
        address: HOST:PORT; port 0 takes a free one.
    """

    def __init__(self, address: str, tls: ServerTls | None, accept: Accept, message_max: int) -> None:
        self._address = address
        self._contexts = None if tls is None else Contexts(tls)
        self._accept = accept
        self._message_max = message_max
        self._connections: set[Http2Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    def start(self) -> int:
        """Binds and listens; returns the port.

        Raises:
            OSError: the address cannot be bound, or a TLS file cannot be used.
        """
        if self._contexts is not None:
            self._contexts.current()
        host, _, port = self._address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=_BACKLOG)
        except (OSError, ValueError, OverflowError) as error:
            raise OSError(f"the chaincode server cannot bind {self._address}: {error}") from None
        self._socket.setblocking(False)
        self._task = asyncio.create_task(self._take(self._socket), name="chaincode-listener")
        return int(self._socket.getsockname()[1])

    async def close(self, within_s: float) -> None:
        """Takes no more connections; those that do not end in time are cut."""
        if self._task is None or self._socket is None:
            return
        for task in (self._task, *self._arriving):
            task.cancel()
        await asyncio.gather(self._task, *self._arriving, return_exceptions=True)
        self._socket.close()
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._until_gone()
        for connection in list(self._connections):
            connection.abort()
        await self._until_gone()

    async def _until_gone(self) -> None:
        while self._connections:
            self._gone.clear()
            await self._gone.wait()

    async def _take(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                arrived, _ = await loop.sock_accept(listening)
            except OSError as error:
                _LOG.warning("no connection could be taken: %s", error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._connections) + len(self._arriving) >= _CONNECTIONS_MAX:
                arrived.close()
                continue
            task = asyncio.create_task(self._greet(arrived))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _greet(self, arrived: socket.socket) -> None:
        arrived.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = None if self._contexts is None else self._contexts.current()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._made, arrived, ssl=context, ssl_handshake_timeout=None if context is None else _HANDSHAKE_S
            )
        except (OSError, ssl.SSLError) as error:
            _LOG.info("a connection was not taken: %s", getattr(error, "reason", None) or type(error).__name__)
            arrived.close()

    def _made(self) -> Http2Connection:
        return Http2Connection(self._accept, self._message_max, self._connections, self._gone)


class Contexts:
    """The TLS context of the files as they are now."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._stamps: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        """The newest that could be read.

        Raises:
            OSError: none could be read yet.
        """
        try:
            stamps = _stamps(self._tls)
            if stamps != self._stamps:
                self._context = _context(self._tls)
                self._stamps = stamps
        except OSError as error:  # ssl.SSLError is one
            if self._context is None:
                raise
            _LOG.warning("TLS files not read again: %s", error.strerror or type(error).__name__)
        assert self._context is not None  # noqa: S101 - made above
        return self._context


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_roots is not None:
        context.load_verify_locations(tls.client_roots)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _stamps(tls: ServerTls) -> tuple[int, ...]:
    return tuple(file.stat().st_mtime_ns for file in (tls.certificate, tls.key, tls.client_roots) if file)
