"""Device packages: deterministic CBOR, COSE_Sign1, SenML, read strictly (docs/PROOFS.md, "Device package")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from verifier.canonical import Failure

PACKAGE_MAX = 1_048_576
READINGS_MAX = 1_024
SLOT_S = 1_800
_MEASURES = {
    "energy": ("Wh", SLOT_S),
    "occupied": ("count", 1),
    "entry": ("count", 1),
    "exit": ("count", 1),
    "unlock": ("count", 1),
}
_DEPTH_MAX = 6
_ALGORITHMS = {-8: "EdDSA", -7: "ES256"}
_SEQUENCE, _PREVIOUS = -65537, -65538
_SIGN1_TAG, _SENML = 18, 112
_SIGNATURE, _HASH = 64, 32


@dataclass(frozen=True)
class Package:
    """One package; `readings` maps times (unix seconds; of energy the start of a slot) to values in the measure's unit."""

    device: str
    sequence: int
    previous: bytes
    algorithm: str
    readings: dict[int, int]
    signature: bytes
    signed: bytes
    hash: bytes
    measure: str


def parse_package(data: bytes, where: str) -> Package:
    """Reads a package.

    Raises:
        Failure: it is not in its one form.
    """
    if len(data) > PACKAGE_MAX:
        raise Failure(f"{where} is larger than {PACKAGE_MAX} bytes")
    outer = _decode(data, where)
    if (
        not isinstance(outer, Tagged)
        or outer.number != _SIGN1_TAG
        or not isinstance(outer.value, list)
        or len(outer.value) != len("city")
    ):
        raise Failure(f"{where} is no COSE_Sign1")
    protected, unprotected, payload, signature = outer.value
    if (
        not isinstance(protected, bytes)
        or unprotected != {}
        or not isinstance(payload, bytes)
        or not isinstance(signature, bytes)
    ):
        raise Failure(f"{where} is no COSE_Sign1 with everything in its protected header")
    header = _header(_decode(protected, where), where)
    if len(signature) != _SIGNATURE:
        raise Failure(f"{where} has a signature of {len(signature)} bytes")
    device = header[4].decode()
    return Package(
        device=device,
        sequence=header[_SEQUENCE],
        previous=header[_PREVIOUS],
        algorithm=_ALGORITHMS[header[1]],
        readings=_readings(_decode(payload, where), device, where),
        signature=signature,
        signed=b"\x84\x6aSignature1" + _bytes(protected) + b"\x40" + _bytes(payload),
        hash=sha256(data).digest(),
        measure=_measure(_decode(payload, where), where),
    )


def _header(header: Any, where: str) -> Any:
    good = (
        isinstance(header, dict)
        and set(header) == {1, 3, 4, _SEQUENCE, _PREVIOUS}
        and _is_int(header[1])
        and header[1] in _ALGORITHMS
        and header[3] == _SENML
        and isinstance(header[4], bytes)
        and re.fullmatch(rb"[a-z0-9-]{1,64}", header[4]) is not None
        and _is_int(header[_SEQUENCE])
        and header[_SEQUENCE] >= 1
        and isinstance(header[_PREVIOUS], bytes)
        and len(header[_PREVIOUS]) == _HASH
        and (header[_SEQUENCE] > 1 or header[_PREVIOUS] == bytes(_HASH))
    )
    if not good:
        raise Failure(f"{where} has a malformed protected header")
    return header


def _measure(pack: Any, where: str) -> str:
    name = pack[0].get(0) if isinstance(pack, list) and pack and isinstance(pack[0], dict) else None
    if not isinstance(name, str) or name not in _MEASURES:
        raise Failure(f"{where} measures {name!r}, which is nothing known")
    return name


def _readings(pack: Any, device: str, where: str) -> dict[int, int]:
    if (
        not isinstance(pack, list)
        or not 1 <= len(pack) <= READINGS_MAX
        or not all(isinstance(item, dict) for item in pack)
    ):
        raise Failure(f"{where} holds no SenML pack of 1 to {READINGS_MAX} records")
    name, base = _measure(pack, where), pack[0].get(-3)
    unit, step_s = _MEASURES[name]
    if pack[0].get(-2) != f"urn:dev:city:{device}:" or pack[0].get(-4) != unit or not _is_int(base):
        raise Failure(f"{where} has another base name, time or unit than its device and measure")
    readings: dict[int, int] = {}
    last = -1
    for number, item in enumerate(pack):
        allowed = {0, 2, 6, -2, -3, -4} if number == 0 else {0, 2, 6}
        later = item.get(6, 0)
        if (
            set(item) - allowed
            or item.get(0) != name
            or not _is_int(item.get(2))
            or not _is_int(later)
            or item.get(6, 1) == 0
        ):
            raise Failure(f"{where}, record {number} is malformed")
        slot = base + later
        if slot % step_s or slot <= last:
            raise Failure(f"{where}, record {number} is not at the start of a later slot")
        readings[slot] = item[2]
        last = slot
    return readings


# --- deterministic CBOR (RFC 8949, 4.2.1), the part that packages use -------------------------------


@dataclass(frozen=True)
class Tagged:
    number: int
    value: Any


def _decode(data: bytes, where: str) -> Any:
    value, end = _item(data, 0, where, 0)
    if end != len(data):
        raise Failure(f"{where} has bytes after its end")
    return value


def _item(data: bytes, at: int, where: str, depth: int) -> tuple[Any, int]:
    if depth > _DEPTH_MAX:
        raise Failure(f"{where} is nested too deep")
    major, argument, at = _head(data, at, where)
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major in (2, 3):
        if at + argument > len(data):
            raise Failure(f"{where} ends too early")
        raw = data[at : at + argument]
        return (raw if major == 2 else _text(raw, where)), at + argument  # noqa: PLR2004 - major types of RFC 8949, 3.1
    if major == 4:  # noqa: PLR2004
        return _array(data, at, argument, where, depth)
    if major == 5:  # noqa: PLR2004
        return _map(data, at, argument, where, depth)
    if major == 6:  # noqa: PLR2004
        value, at = _item(data, at, where, depth + 1)
        return Tagged(argument, value), at
    raise Failure(f"{where} holds a float or another value that packages do not carry")


def _head(data: bytes, at: int, where: str) -> tuple[int, int, int]:
    if at >= len(data):
        raise Failure(f"{where} ends too early")
    major, low = data[at] >> 5, data[at] & 31
    if low < 24:  # noqa: PLR2004 - RFC 8949, 3
        return major, low, at + 1
    if low > 27 or major == 7:  # noqa: PLR2004
        raise Failure(f"{where} holds a float, or a length that is not definite")
    width = 1 << (low - 24)
    end = at + 1 + width
    value = int.from_bytes(data[at + 1 : end], "big")
    if end > len(data) or value < (24 if width == 1 else 1 << (4 * width)):
        raise Failure(f"{where} ends too early or holds a number that is not in its shortest form")
    return major, value, end


def _array(data: bytes, at: int, count: int, where: str, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(min(count, len(data))):
        item, at = _item(data, at, where, depth + 1)
        items.append(item)
    if len(items) != count:
        raise Failure(f"{where} ends too early")
    return items, at


def _map(data: bytes, at: int, count: int, where: str, depth: int) -> tuple[dict[Any, Any], int]:
    items: dict[Any, Any] = {}
    last = b""
    for _ in range(min(count, len(data))):
        start = at
        key, at = _item(data, at, where, depth + 1)
        if data[start:at] <= last or not isinstance(key, int | str | bytes):
            raise Failure(f"{where} has a map whose keys are not sorted and different")
        last = data[start:at]
        items[key], at = _item(data, at, where, depth + 1)
    if len(items) != count:
        raise Failure(f"{where} ends too early or has a key twice")
    return items, at


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Failure(f"{where} holds a text that is not UTF-8") from None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bytes(data: bytes) -> bytes:
    for code, width in ((24, 1), (25, 2), (26, 4)):
        if len(data) < 24:  # noqa: PLR2004
            return bytes([0x40 + len(data)]) + data
        if len(data) < 1 << (8 * width):
            return bytes([0x40 + code]) + len(data).to_bytes(width, "big") + data
    raise Failure("a byte string is too long")
