"""One connection of a peer: HTTP/2 as far as gRPC streams need it, many messages in one write. Made by `shim_listener`.

Outgoing messages wait for the end of the event loop's round and for the peer's flow-control window, and leave together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from citykit.ledger.fabric import shim_http2 as h2
from citykit.ledger.fabric.shim_call import Accept, Call, CallRefused
from citykit.ledger.fabric.shim_http2 import Http2Error

_LOG = logging.getLogger(__name__)
_WINDOW = 16 * 1024 * 1024
"""What a peer may send before it hears that it was read."""
_FRAME = 1024 * 1024
_HEADERS_MAX = 16 * 1024
_STREAMS_MAX = 16
"""Calls at once on one connection; a peer opens one."""
_RESETS_MAX = 100
_UNSENT_CONTROL_MAX = 1024 * 1024
"""A peer that asks (pings, settings) and does not read the answers is cut off."""
_HANDSHAKE_S = 10.0
_KEEPALIVE_S = 60.0
_KEEPALIVE_ANSWER_S = 20.0


class Http2Connection(asyncio.Protocol):
    """A connection from its preface to its end.

    Args:
        message_max: bytes of one message; a larger one ends its call.
        open_ones: holds the connection from its beginning to its end.
        gone: set when it has ended.
    """

    def __init__(self, accept: Accept, message_max: int, open_ones: set[Http2Connection], gone: asyncio.Event) -> None:
        self._accept = accept
        self._message_max = message_max
        self._open_ones = open_ones
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._decoder = Decoder(_HEADERS_MAX)
        self._block: tuple[int, int, bytearray] | None = None
        self._calls: dict[int, Call] = {}
        self._newest = 0
        self._greeted = False
        self._window, self._first_window, self._frame = h2.WINDOW_DEFAULT, h2.WINDOW_DEFAULT, h2.FRAME_DEFAULT
        self._unread = 0
        self._resets = 0
        self._scheduled = self._paused = self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard = False
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            h2.DATA: self._on_data, h2.HEADERS: self._on_headers, h2.CONTINUATION: self._on_continuation,
            h2.SETTINGS: self._on_settings, h2.PING: self._on_ping, h2.WINDOW_UPDATE: self._on_window,
            h2.RST_STREAM: self._on_reset, h2.GOAWAY: self._on_goaway, h2.PUSH_PROMISE: self._on_push,
        }  # fmt: skip

    # --- the connection ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # what a stream socket gives, whatever the loop
        self._open_ones.add(self)
        tls = self._transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._transport.abort()
            return
        greeting = [
            (h2.MAX_CONCURRENT_STREAMS, _STREAMS_MAX),
            (h2.INITIAL_WINDOW_SIZE, _WINDOW),
            (h2.MAX_FRAME_SIZE, _FRAME),
            (h2.MAX_HEADER_LIST_SIZE, _HEADERS_MAX),
        ]
        self._transport.write(h2.settings(greeting) + h2.window_update(0, _WINDOW - h2.WINDOW_DEFAULT))
        self._timer = self._loop.call_later(_HANDSHAKE_S, self._give_up)

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        calls, self._calls = list(self._calls.values()), {}
        for call in calls:
            if call.incoming is not None:
                call.incoming.ended()
        self._open_ones.discard(self)
        self._gone.set()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._buffer += data
        try:
            self._read_frames()
        except Http2Error as error:
            self._fail(error)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.schedule()

    def close(self) -> None:
        """Says that nothing new is taken, and ends the connection when its calls have ended."""
        if not self._ending:
            self._ending = True
            self._send(h2.goaway(self._newest, h2.NO_ERROR))
            self._close_if_idle()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Http2Error) -> None:
        _LOG.info("peer's connection ended: %s", error)
        self._send(h2.goaway(self._newest, error.code, str(error)))
        self._ending = True
        if self._transport is not None:
            self._transport.close()

    def _close_if_idle(self) -> None:
        if self._ending and not self._calls and self._transport is not None:
            self._transport.close()

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _answer(self, data: bytes) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() > _UNSENT_CONTROL_MAX:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "answers are not read")
        self._send(data)

    # --- time --------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        _LOG.info("peer's connection said nothing in time")
        self.abort()

    def _keep_alive(self) -> None:
        """Asks after a minute of silence."""
        if self._heard:
            self._heard = False
            self._timer = self._loop.call_later(_KEEPALIVE_S, self._keep_alive)
        else:
            self._send(h2.frame(h2.PING, 0, 0, bytes(8)))
            self._timer = self._loop.call_later(_KEEPALIVE_ANSWER_S, self._answered_in_time)

    def _answered_in_time(self) -> None:
        if self._heard:
            self._keep_alive()
        else:
            self._give_up()

    # --- frames ------------------------------------------------------------------------------------

    def _read_frames(self) -> None:
        buffer, offset = self._buffer, 0
        if not self._greeted:
            offset = self._read_preface()
        while len(buffer) - offset >= h2.HEADER_BYTES and not self._ending_now():
            length, kind, flags, stream = h2.read_header(buffer, offset)
            if length > _FRAME:
                raise Http2Error(h2.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = offset + h2.HEADER_BYTES + length
            if end > len(buffer):
                break
            payload = bytes(buffer[offset + h2.HEADER_BYTES : end])
            offset = end
            if self._block is not None and kind != h2.CONTINUATION:
                raise Http2Error(h2.PROTOCOL_ERROR, "headers were interrupted")
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(flags, stream, payload)
        del buffer[:offset]

    def _ending_now(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _read_preface(self) -> int:
        found = bytes(self._buffer[: len(h2.PREFACE)])
        if not h2.PREFACE.startswith(found):
            raise Http2Error(
                h2.PROTOCOL_ERROR, "no HTTP/2: gRPC without TLS to a port with TLS, or the other way round?"
            )
        if len(found) < len(h2.PREFACE):
            return 0
        self._greeted = True
        if self._timer is not None:
            self._timer.cancel()
        self._keep_alive()
        return len(found)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._unread += len(payload)
        if self._unread > _WINDOW // 2:
            self._send(h2.window_update(0, self._unread))
            self._unread = 0
        call = self._calls.get(stream)
        if call is None:
            self._require_known(stream)
            return
        call.unread += len(payload)
        if call.unread > _WINDOW:
            raise Http2Error(h2.FLOW_CONTROL_ERROR, "more than the window")
        if call.unread > _WINDOW // 2:
            self._send(h2.window_update(stream, call.unread))
            call.unread = 0
        call.read(h2.content(h2.DATA, flags, payload), self._message_max)
        if flags & h2.END_STREAM:
            self._half_closed(call)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream % 2 == 0:
            raise Http2Error(h2.PROTOCOL_ERROR, "a client's stream has an odd number")
        self._block = (stream, flags, bytearray(h2.content(h2.HEADERS, flags, payload)))
        self._headers_so_far(flags)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise Http2Error(h2.PROTOCOL_ERROR, "a continuation of nothing")
        self._block[2].extend(payload)
        self._headers_so_far(flags)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & h2.ACK:
            return
        for name, value in h2.read_settings(payload):
            if name == h2.MAX_FRAME_SIZE:
                self._frame = min(value, _FRAME)
            elif name == h2.INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._first_window
                self._first_window = value
        self._answer(h2.frame(h2.SETTINGS, h2.ACK, 0))
        self.schedule()

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 8:  # noqa: PLR2004 - RFC 9113, 6.7
            raise Http2Error(h2.FRAME_SIZE_ERROR, "a ping of a wrong length")
        if not flags & h2.ACK:
            self._answer(h2.frame(h2.PING, h2.ACK, 0, payload))

    def _on_window(self, flags: int, stream: int, payload: bytes) -> None:
        increment = h2.read_word(payload) & h2.WINDOW_MAX
        if stream == 0:
            self._window += increment
            grown = self._window
        else:
            call = self._calls.get(stream)
            if call is None:
                return
            call.window += increment
            grown = call.window
        if increment == 0 or grown > h2.WINDOW_MAX:
            raise Http2Error(h2.FLOW_CONTROL_ERROR if increment else h2.PROTOCOL_ERROR, "a window out of range")
        self.schedule()

    def _on_reset(self, flags: int, stream: int, payload: bytes) -> None:
        h2.read_word(payload)
        self._require_known(stream)
        self._resets += 1
        if self._resets > _RESETS_MAX:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "too many calls were reset")
        call = self._calls.get(stream)
        if call is not None:
            self._drop(call)
            self._close_if_idle()

    def _on_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        self._ending = True
        self._close_if_idle()

    def _on_push(self, flags: int, stream: int, payload: bytes) -> None:
        raise Http2Error(h2.PROTOCOL_ERROR, "a client does not push")

    def _require_known(self, stream: int) -> None:
        if stream == 0 or stream % 2 == 0 or stream > self._newest:
            raise Http2Error(h2.PROTOCOL_ERROR, "a frame of a stream that was not opened")

    # --- calls -------------------------------------------------------------------------------------

    def _headers_so_far(self, flags: int) -> None:
        assert self._block is not None  # noqa: S101 - set by the callers
        stream, first, block = self._block
        if len(block) > _HEADERS_MAX:
            raise Http2Error(h2.ENHANCE_YOUR_CALM, "headers are too long")
        if not flags & h2.END_HEADERS:
            return
        self._block = None
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(bytes(block))}
        except (HPACKError, UnicodeDecodeError):
            raise Http2Error(h2.PROTOCOL_ERROR, "headers do not decode") from None
        call = self._calls.get(stream)
        if call is None:
            if stream <= self._newest:
                raise Http2Error(h2.STREAM_CLOSED, "headers on a stream that has ended")
            call = self._open(stream, headers)
        if call is not None and first & h2.END_STREAM:
            self._half_closed(call)

    def _open(self, stream: int, headers: dict[str, str]) -> Call | None:
        self._newest = stream
        if self._ending or len(self._calls) >= _STREAMS_MAX:
            self._answer(h2.rst_stream(stream, h2.REFUSED_STREAM))
            return None
        call = self._calls[stream] = Call(self, stream, self._first_window)
        try:
            if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
                raise CallRefused(h2.INVALID_ARGUMENT, "this port speaks gRPC only")
            call.incoming = self._accept(headers.get(":path", ""), call)
        except CallRefused as error:
            call.finish(error.status, str(error))
        return call

    def _half_closed(self, call: Call) -> None:
        """The peer sends no more; its call ends when what is queued has left."""
        call.half_closed = True
        if call.incoming is not None:
            call.incoming.ended()
        call.finish()

    def _drop(self, call: Call) -> None:
        if self._calls.pop(call.number, None) is not None and call.incoming is not None:
            call.incoming.ended()

    # --- sending -----------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Lets what is queued leave at the end of this round of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._paused or self._ending_now():
            return
        out: list[bytes] = []
        for call in list(self._calls.values()):
            self._flush_call(call, out)
        if out:
            self._send(b"".join(out))
        self._close_if_idle()

    def _flush_call(self, call: Call, out: list[bytes]) -> None:
        if call.pending and not call.opened:
            call.opened = True
            out.append(h2.response_headers(call.number))
        while call.pending_bytes and (room := min(self._window, call.window, self._frame, call.pending_bytes)) > 0:
            out.append(h2.frame(h2.DATA, 0, call.number, call.take(room)))
            self._window -= room
            call.window -= room
        if call.trailers and not call.pending_bytes:
            out.append(call.trailers)
            if not call.half_closed:
                out.append(h2.rst_stream(call.number, h2.NO_ERROR))
            self._drop(call)
