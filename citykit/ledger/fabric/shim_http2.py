"""The part of HTTP/2 (RFC 9113) and gRPC that a chaincode stream needs: frames, settings, headers, length-prefixed messages. Pure functions.

Written for `shim_connection`: a chaincode's stream carries many small messages, and a general gRPC server spends several times more on
each than the chaincode does. Headers are compressed by the package `hpack`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 5, 6, 7, 11

HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 1, 3, 4, 5, 6
WINDOW_DEFAULT, WINDOW_MAX = 65_535, 2**31 - 1
FRAME_DEFAULT, FRAME_MAX = 16_384, 2**24 - 1

OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED, UNAVAILABLE = 0, 3, 8, 9, 12, 14
"""Statuses of gRPC."""

_HEADER = struct.Struct(">HBBBI")
_PREFIX = struct.Struct(">BI")
_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
HEADER_BYTES, PREFIX_BYTES = _HEADER.size, _PREFIX.size
_PREFIX_FULL, _MORE = 0x7F, 0x80
_STATIC_STATUS_200 = b"\x88"
"""`:status: 200` in HPACK's static table (RFC 7541, appendix A)."""


class Http2Error(Exception):
    """The peer broke HTTP/2; the connection ends with this code (RFC 9113, 5.4.1)."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def read_header(buffer: bytes | bytearray, offset: int) -> tuple[int, int, int, int]:
    """(length, kind, flags, stream) of the frame header at `offset` (RFC 9113, 4.1)."""
    high, low, kind, flags, stream = _HEADER.unpack_from(buffer, offset)
    return (high << 8) | low, kind, flags, stream & 0x7FFFFFFF


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Raises Http2Error where a value is out of its range (RFC 9113, 6.5.2)."""
    if len(payload) % _SETTING.size:
        raise Http2Error(FRAME_SIZE_ERROR, "settings of a wrong length")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        if name == INITIAL_WINDOW_SIZE and value > WINDOW_MAX:
            raise Http2Error(FLOW_CONTROL_ERROR, "an initial window is at most 2^31-1")
        if name == MAX_FRAME_SIZE and not FRAME_DEFAULT <= value <= FRAME_MAX:
            raise Http2Error(PROTOCOL_ERROR, "a frame size out of range")
    return found


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(increment))


def read_word(payload: bytes) -> int:
    """The 31 bits of WINDOW_UPDATE, or the code of RST_STREAM."""
    if len(payload) != _WORD.size:
        raise Http2Error(FRAME_SIZE_ERROR, "a frame of a wrong length")
    return int(_WORD.unpack(payload)[0])


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway(last: int, code: int, why: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _WORD.pack(last) + _WORD.pack(code) + why.encode())


def content(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority (RFC 9113, 6.1 and 6.2)."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise Http2Error(FRAME_SIZE_ERROR, "padding without its length")
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & WITH_PRIORITY:
        start += 5
    if start > end:
        raise Http2Error(PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]


def response_headers(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, _STATIC_STATUS_200 + _literal("content-type", "application/grpc"))


def trailers(stream: int, status: int, message: str, *, alone: bool) -> bytes:
    """The end of a call; `alone` where no headers went before."""
    block = _literal("grpc-status", str(status))
    if message:
        block += _literal("grpc-message", quote(message, safe=" !#$&'()*+,/:;<=>?@[]^_`{|}~\"\\"))
    if alone:
        block = _STATIC_STATUS_200 + _literal("content-type", "application/grpc") + block
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def message_prefix(length: int) -> bytes:
    """What stands before an uncompressed message of gRPC."""
    return _PREFIX.pack(0, length)


def read_prefix(buffer: bytes | bytearray, offset: int) -> tuple[int, int]:
    """(compressed, length) of the message at `offset`."""
    compressed, length = _PREFIX.unpack_from(buffer, offset)
    return compressed, length


def _literal(name: str, value: str) -> bytes:
    """A header that enters no table (RFC 7541, 6.2.2), without Huffman coding."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    data = text.encode()
    return _integer(len(data)) + data


def _integer(value: int) -> bytes:
    """An integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if value < _PREFIX_FULL:
        return bytes([value])
    value -= _PREFIX_FULL
    out = bytearray([_PREFIX_FULL])
    while value >= _MORE:
        out.append(value % _MORE + _MORE)
        value //= _MORE
    out.append(value)
    return bytes(out)
