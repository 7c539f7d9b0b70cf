"""Protocol Buffers, read by hand and strictly (https://protobuf.dev/programming-guides/encoding/): what Fabric's messages are made of."""

from __future__ import annotations

from verifier.canonical import Failure

_VARINT, _BYTES, _FIXED64, _FIXED32 = 0, 2, 1, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_VARINT_MAX_BYTES = 10
_ENVELOPE = [1, 2]


class Message:
    """A message's fields. Field numbers are those of Fabric's proto files.

    Raises:
        Failure: the bytes are no message.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self._where = where
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            number, value, at = _field(data, at, where)
            self._fields.setdefault(number, []).append(value)

    def data(self, number: int) -> bytes:
        """A field of bytes, text or a message that stands at most once; empty where it is not there."""
        found = self.every(number)
        if len(found) > 1:
            raise Failure(f"{self._where}: field {number} stands twice")
        return found[0] if found else b""

    def text(self, number: int) -> str:
        try:
            return self.data(number).decode()
        except UnicodeDecodeError:
            raise Failure(f"{self._where}: field {number} is no text") from None

    def message(self, number: int) -> Message:
        return Message(self.data(number), self._where)

    def number(self, number: int) -> int:
        """A number that stands at most once; 0 where it is not there."""
        found = self._fields.get(number, [])
        if len(found) > 1 or not all(isinstance(item, int) for item in found):
            raise Failure(f"{self._where}: field {number} is no number, or stands twice")
        return int(found[0]) if found else 0

    def every(self, number: int) -> list[bytes]:
        """A repeated field of bytes, texts or messages."""
        found = self._fields.get(number, [])
        if not all(isinstance(item, bytes) for item in found):
            raise Failure(f"{self._where}: field {number} is a number")
        return [item for item in found if isinstance(item, bytes)]


def require_envelope(data: bytes, where: str) -> tuple[bytes, bytes]:
    """(payload, signature) of exactly one envelope in its one form.

    A block's hash is over its envelopes joined. Because each is whole here, and begins and ends in one way, they cannot be cut otherwise.
    """
    found: list[bytes] = []
    at = 0
    while at < len(data):
        number, value, end = _field(data, at, where)
        shortest = isinstance(value, bytes) and data[at:end] == bytes([number << 3 | _BYTES]) + _length(value) + value
        if number != len(found) + 1 or number not in _ENVELOPE or not isinstance(value, bytes) or not shortest:
            raise Failure(f"{where} is no envelope in its one form")
        found.append(value)
        at = end
    if len(found) != len(_ENVELOPE):
        raise Failure(f"{where} is no envelope with payload and signature")
    return found[0], found[1]


def _length(value: bytes) -> bytes:
    size, out = len(value), bytearray()
    while size > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


def _field(data: bytes, at: int, where: str) -> tuple[int, int | bytes, int]:
    key, at = _varint(data, at, where)
    number, kind = key >> 3, key & 7
    if number == 0:
        raise Failure(f"{where} is no protobuf message")
    if kind == _VARINT:
        value, at = _varint(data, at, where)
        return number, value, at
    if kind == _BYTES:
        size, at = _varint(data, at, where)
    elif kind in _WIDTH:
        size = _WIDTH[kind]
    else:
        raise Failure(f"{where} is no protobuf message")
    if at + size > len(data):
        raise Failure(f"{where} is no protobuf message, or ends too early")
    return number, data[at : at + size], at + size


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_MAX_BYTES):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, at + place + 1
    raise Failure(f"{where} is no protobuf message, or ends too early")
