"""A gRPC call on a peer's connection: what is queued to leave, and what has arrived of the next message. Made by `shim_connection`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from citykit.ledger.fabric import shim_http2 as h2

_LOG = logging.getLogger(__name__)
_PENDING_MAX = 20_000
"""Queued parts of a call, two a message; its transactions alone never make so many."""


class CallRefused(Exception):
    """A call is not taken.

    Args:
        status: of gRPC.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Incoming(Protocol):
    """Who takes a call's messages."""

    def receive(self, data: bytes) -> None:
        """A message. CallRefused ends the call."""

    def ended(self) -> None:
        """Nothing more comes, and nothing more is sent."""


class Carrier(Protocol):
    """The connection, as its calls see it."""

    def schedule(self) -> None:
        """Lets what is queued leave soon."""

    def abort(self) -> None: ...


class Call:
    """One call: what it has to send and what has arrived of its next message."""

    def __init__(self, connection: Carrier, number: int, window: int) -> None:
        self.number = number
        self.window = window
        self.incoming: Incoming | None = None
        self.partial = bytearray()
        self.pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.unread = 0
        self.opened = self.half_closed = False
        self.trailers = b""
        self._connection = connection
        self._offset = 0

    def read(self, data: bytes, message_max: int) -> None:
        """Takes bytes that arrived, and hands on the messages they complete. What breaks gRPC ends the call."""
        if self.trailers or self.incoming is None:
            return
        try:
            self._read(self.incoming, data, message_max)
        except CallRefused as error:
            self.finish(error.status, str(error))
            self.partial = bytearray()

    def _read(self, incoming: Incoming, data: bytes, message_max: int) -> None:
        buffer: bytes | bytearray = data
        if self.partial:
            self.partial += data
            buffer = self.partial
        offset = 0
        while len(buffer) - offset >= h2.PREFIX_BYTES:
            compressed, length = h2.read_prefix(buffer, offset)
            _require_message(compressed, length, message_max)
            end = offset + h2.PREFIX_BYTES + length
            if end > len(buffer):
                break
            incoming.receive(bytes(buffer[offset + h2.PREFIX_BYTES : end]))
            offset = end
        if buffer is self.partial:
            del self.partial[:offset]
        else:
            self.partial += buffer[offset:]

    def write(self, data: bytes) -> None:
        """Queues a message; nothing happens after the end of the call."""
        if not self.trailers:
            self.pending.append(h2.message_prefix(len(data)))
            self.pending.append(data)
            self.pending_bytes += h2.PREFIX_BYTES + len(data)
            if len(self.pending) > _PENDING_MAX:
                _LOG.warning("peer does not read what it is sent; its connection is cut")
                self._connection.abort()
            self._connection.schedule()

    def finish(self, status: int = h2.OK, message: str = "") -> None:
        """Ends the call once all that is queued has left."""
        if not self.trailers:
            alone = not (self.opened or self.pending)
            self.trailers = h2.trailers(self.number, status, message, alone=alone)
            self._connection.schedule()

    def take(self, count: int) -> bytes:
        """The next `count` queued bytes."""
        if count == self.pending_bytes and self._offset == 0:
            out = b"".join(self.pending)
            self.pending.clear()
            self.pending_bytes = 0
            return out
        taken = bytearray()
        while len(taken) < count:
            piece = self.pending[0]
            end = min(self._offset + count - len(taken), len(piece))
            taken += memoryview(piece)[self._offset : end]
            self._offset = end
            if end == len(piece):
                self.pending.popleft()
                self._offset = 0
        self.pending_bytes -= count
        return bytes(taken)


Accept = Callable[[str, Call], Incoming]
"""Takes path and call; may raise CallRefused."""


def _require_message(compressed: int, length: int, message_max: int) -> None:
    if compressed:
        raise CallRefused(h2.UNIMPLEMENTED, "messages are not compressed here")
    if length > message_max:
        raise CallRefused(h2.RESOURCE_EXHAUSTED, f"a message of {length} bytes; at most {message_max} are taken")
