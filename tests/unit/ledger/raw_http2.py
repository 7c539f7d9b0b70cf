"""A client that sends HTTP/2 frames as it likes, for trying the chaincode server's connections."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
DEADLINE_S = 10.0
CONNECT = {
    ":method": "POST", ":scheme": "http", ":path": "/protos.Chaincode/Connect", ":authority": "x",
    "content-type": "application/grpc", "te": "trailers",
}  # fmt: skip


@dataclass
class RawClient:
    """One connection; `frames` is what came."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    encoder: Encoder = field(default_factory=Encoder)
    decoder: Decoder = field(default_factory=Decoder)
    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def send(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        length = len(payload)
        self.writer.write(struct.pack(">HBBBI", length >> 8, length & 0xFF, kind, flags, stream) + payload)

    def open(self, stream: int = 1, flags: int = 0x4, **changes: str) -> None:
        """HEADERS of a call to the chaincode method."""
        headers = CONNECT | {name.replace("_", "-"): value for name, value in changes.items() if name != "path"}
        if "path" in changes:
            headers[":path"] = changes["path"]
        self.send(HEADERS, flags, stream, self.encoder.encode(list(headers.items())))

    def message(self, data: bytes, stream: int = 1, compressed: int = 0) -> None:
        self.send(DATA, 0, stream, struct.pack(">BI", compressed, len(data)) + data)

    async def next(self, kind: int) -> tuple[int, int, int, bytes]:
        """The next frame of a kind; others are kept in `frames`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                head = await self.reader.readexactly(9)
                high, low, found, flags, stream = struct.unpack(">HBBBI", head)
                payload = await self.reader.readexactly(high << 8 | low)
                self.frames.append((found, flags, stream, payload))
                if found == kind:
                    return self.frames[-1]

    async def status(self) -> tuple[str, str]:
        """(grpc-status, grpc-message) of the next trailers."""
        while True:
            _, flags, _, payload = await self.next(HEADERS)
            headers = {str(name): str(value) for name, value in self.decoder.decode(payload)}
            if flags & 1:
                return headers["grpc-status"], headers.get("grpc-message", "")

    async def goaway(self) -> int:
        """The code of the connection's end, after which nothing comes."""
        payload = (await self.next(GOAWAY))[3]
        with contextlib.suppress(ConnectionResetError):  # it closed with our bytes unread
            await self.ended()
        return int(struct.unpack(">II", payload[:8])[1])

    async def ended(self) -> bytes:
        """What came until the server closed."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()


class Dialler:
    """Opens connections to a port and closes them all."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[RawClient] = []

    async def __call__(self, *, greet: bool = True, settings: bytes = b"") -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        client = RawClient(reader, writer)
        self._clients.append(client)
        if greet:
            writer.write(PREFACE)
            client.send(SETTINGS, payload=settings)
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.writer.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
