"""A way to a server that asks for TLS, for client tools that cannot speak it: those of the installed package are built without.

Plain connections to a port of loopback go on as verified TLS, as PostgreSQL negotiates it
(https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SSL). Called by `infra.postgres.backup`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from citykit.errors import EnvironmentFault

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_YES = b"S"
_HEAD, _LENGTH = struct.Struct("!ci"), 4
_AUTHENTICATION, _SASL, _CODE = b"R", struct.pack("!i", 10), 4
_DIAL_S = 10.0
_PIECE = 1 << 16


@dataclass(frozen=True)
class Server:
    """Where it is.

    Attributes:
        host: the name in its certificate.
        address: where it is reached, if not by its name.
        root: certificate of its issuer.
    """

    host: str
    port: int
    root: Path
    address: str = ""


@dataclass
class Way:
    """A tunnel that is open.

    Attributes:
        port: of loopback, that leads to the server.
        fault: why the last connection could not be made; it was closed at once.
    """

    port: int = 0
    fault: str = ""


@contextmanager
def tunnel(server: Server) -> Iterator[Way]:
    """A way to the server while this is open.

    Raises:
        EnvironmentFault: the issuer's certificate cannot be read.
    """
    way, context = Way(), _context(server.root)
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        asyncio.start_server(partial(_forward, way, server, context), "127.0.0.1", 0, limit=_PIECE)
    )
    way.port = int(listening.sockets[0].getsockname()[1])
    thread = threading.Thread(target=loop.run_forever, name="postgres-tunnel", daemon=True)
    thread.start()
    try:
        yield way
    finally:
        asyncio.run_coroutine_threadsafe(_close(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _context(root: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(root))
    except OSError as error:
        raise EnvironmentFault(
            f"{root} cannot be used as the issuer's certificate: {error.strerror or error}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def _close(listening: asyncio.Server) -> None:
    """Ends what still runs."""
    listening.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _forward(
    way: Way, server: Server, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with contextlib.closing(writer):
        try:
            async with asyncio.timeout(_DIAL_S):
                there, onward = await _dial(server, context)
        except (OSError, asyncio.IncompleteReadError) as error:
            way.fault = f"{server.host}:{server.port}: {error or 'no answer'}"
            return
        with contextlib.closing(onward), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.gather(_relay(reader, onward), _answer(there, writer))


async def _dial(server: Server, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(server.address or server.host, server.port, limit=_PIECE)
    writer.write(_SSL_REQUEST)
    if await reader.readexactly(1) != _YES:
        writer.close()
        raise ConnectionRefusedError("the server has no TLS")
    await writer.start_tls(context, server_hostname=server.host)
    return reader, writer


async def _answer(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the server says; of its first message without the ways to log in that are bound to TLS, which the client does not know of."""
    head = await there.readexactly(_HEAD.size)
    kind, length = _HEAD.unpack(head)
    body = await there.readexactly(max(0, min(length - _LENGTH, _PIECE)))
    if kind == _AUTHENTICATION and body[:_CODE] == _SASL:
        ways = [one for one in body[_CODE:].split(b"\0") if one and not one.endswith(b"-PLUS")]
        body = _SASL + b"".join(one + b"\0" for one in ways) + b"\0"
        head = _HEAD.pack(kind, len(body) + _LENGTH)
    writer.write(head + body)
    await _relay(there, writer)


async def _relay(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until the source ends; the other direction then ends too."""
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
    target.close()
