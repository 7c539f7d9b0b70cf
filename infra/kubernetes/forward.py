"""Ports of loopback that lead into a node's namespaces: `python -m infra.kubernetes.forward PID LISTEN=HOST:PORT...`, until the process ends.

It listens first, then enters the network namespace of the process, so that what it connects is inside. Started by `infra.kubernetes.node`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CHUNK = 65_536
_CONNECT_S = 10.0
_BACKLOG = 512
_LOOK_S = 1.0


@dataclass(frozen=True)
class Way:
    """From a port of loopback to an address inside."""

    listen: int
    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> Way:
        """From `8080=10.96.0.20:80`.

        Raises:
            ValueError: something else.
        """
        listen, _, target = text.partition("=")
        host, _, port = target.rpartition(":")
        if not host:
            raise ValueError(f"{text!r} is no way; write 8080=10.96.0.20:80")
        return cls(int(listen), host, int(port))

    def __str__(self) -> str:
        return f"{self.listen}={self.host}:{self.port}"


def main(words: Sequence[str]) -> None:
    ways = [Way.read(word) for word in words[1:]]
    listening = [(socket.create_server(("127.0.0.1", way.listen), backlog=_BACKLOG), way) for way in ways]
    enter_network(int(words[0]))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(listening, int(words[0])))


def enter_network(pid: int) -> None:
    """From now on this thread's sockets are made in the network namespace of a process.

    Raises:
        OSError: there is none, or it is not allowed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if library.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"the network of process {pid} cannot be entered: {os.strerror(number)}")
    finally:
        os.close(descriptor)


async def _serve(listening: Sequence[tuple[socket.socket, Way]], pid: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for bound, way in listening:
            await stack.enter_async_context(await asyncio.start_server(_Relay(way), sock=bound))
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(_LOOK_S)


@dataclass(frozen=True)
class _Relay:
    way: Way

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                inner_reader, inner_writer = await asyncio.open_connection(self.way.host, self.way.port)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        # each direction ends by itself: a half-closed connection still answers
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        for one in (writer, inner_writer):
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


if __name__ == "__main__":
    main(sys.argv[1:])
