"""Message headers as bytes, for adapters that store them (outbox, embedded bus)."""

from __future__ import annotations

from collections.abc import Mapping


def encode_headers(headers: Mapping[str, bytes]) -> bytes:
    """name length (1 byte), name, value length (4 bytes), value, for each header."""
    parts: list[bytes] = []
    for name, value in headers.items():
        encoded = name.encode()
        parts += (len(encoded).to_bytes(1, "big"), encoded, len(value).to_bytes(4, "big"), value)
    return b"".join(parts)


def decode_headers(data: bytes) -> dict[str, bytes]:
    """The inverse of `encode_headers`."""
    headers: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        value_at = name_end + 4
        value_end = value_at + int.from_bytes(data[name_end:value_at], "big")
        headers[data[at + 1 : name_end].decode()] = data[value_at:value_end]
        at = value_end
    return headers
