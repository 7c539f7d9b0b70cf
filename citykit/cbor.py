"""Heads, integers and strings of CBOR in its deterministic form (RFC 8949, 4.2.1), for device packages. Anything else is a mismatch."""

from __future__ import annotations

INTEGER_MAX = 2**53 - 1


class Mismatch(Exception):
    """The bytes are not of the expected form; `citykit.package_faults` says why."""


def read_int(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 0x18:  # noqa: PLR2004 - a small number is its own byte
        return first, at + 1
    value, end = read_head(data, at, first & 0xE0)
    if first >= 0x40 or value > INTEGER_MAX:  # noqa: PLR2004 - majors 0 and 1 are integers
        raise Mismatch
    return (value, end) if first < 0x20 else (-1 - value, end)  # noqa: PLR2004 - major 1 is negative


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, start = read_head(data, at, 0x40)
    end = start + length
    if end > len(data):
        raise Mismatch
    return data[start:end], end


def read_head(data: bytes, at: int, major: int) -> tuple[int, int]:
    """The argument of a head of this major type in its shortest form (RFC 8949, 4.2.1), and where it ends."""
    low = data[at] - major
    if 0 <= low < 24:  # noqa: PLR2004 - RFC 8949, 3
        return low, at + 1
    if not 24 <= low <= 27:  # noqa: PLR2004
        raise Mismatch
    width = 1 << (low - 24)
    end = at + 1 + width
    value = int.from_bytes(data[at + 1 : end], "big")
    if end > len(data) or value < (24 if width == 1 else 1 << (4 * width)):
        raise Mismatch
    return value, end


def encode_int(value: int) -> bytes:
    return encode_head(0x00, value) if value >= 0 else encode_head(0x20, -1 - value)


def encode_bytes(data: bytes) -> bytes:
    return encode_head(0x40, len(data)) + data


def encode_text(data: bytes) -> bytes:
    return encode_head(0x60, len(data)) + data


def encode_head(major: int, value: int) -> bytes:
    if value < 24:  # noqa: PLR2004 - RFC 8949, 3
        return bytes([major + value])
    for code, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << (8 * width):
            return bytes([major + code]) + value.to_bytes(width, "big")
    raise ValueError(f"{value} does not fit in 64 bits")
