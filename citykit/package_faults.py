"""Why a device package was refused: a general decoder of deterministic CBOR, then the rules one by one. Only for what was not taken."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from citykit.cbor import Mismatch, read_head

PACKAGE_MAX_BYTES = 1_048_576
READINGS_MAX = 1_024
SLOT_S = 1_800
NO_PREVIOUS = bytes(32)
SEQUENCE_MAX = 2**53 - 1
SENML_CBOR = 112
SIGNATURE_BYTES = 64
ALGORITHMS = {-8: "EdDSA", -7: "ES256"}
DEVICE = re.compile(rb"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Measure:
    """What a package's records say: the SenML name and unit (RFC 8428, 12.1), and the seconds a record's time is a multiple of."""

    name: str
    unit: str
    step_s: int


ENERGY = Measure("energy", "Wh", SLOT_S)
OCCUPIED = Measure("occupied", "count", 1)
ENTRY = Measure("entry", "count", 1)
"""A lock let somebody in; the value is the number of the access document."""
EXIT = Measure("exit", "count", 1)
UNLOCK = Measure("unlock", "count", 1)
"""An instruction of a service to a lock; the value is the number of the access document it is for."""
MEASURES = (ENERGY, OCCUPIED, ENTRY, EXIT, UNLOCK)
_BY_NAME = {measure.name: measure for measure in MEASURES}


class PackageError(ValueError):
    """A package is refused.

    Attributes:
        code: truncated, oversized, not-canonical, not-cose, wrong-algorithm, bad-header, wrong-unit, not-an-integer, bad-slot, bad-pack.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def explain(data: bytes) -> NoReturn:
    """Says why `parse_package` did not take the bytes: a general decoder of deterministic CBOR, then the rules one by one."""
    value, end = _Decoder(data).item(0, 0)
    if end != len(data):
        raise PackageError("not-canonical", f"{len(data) - end} bytes follow the package; send exactly one package")
    if not isinstance(value, _Tag) or value.number != 18 or not _is_list(value.value, 4):  # noqa: PLR2004 - COSE_Sign1
        raise PackageError(
            "not-cose", "a package is a tagged COSE_Sign1 (RFC 9052): 18([protected, {}, payload, signature])"
        )
    protected, unprotected, payload, signature = value.value
    if not (
        isinstance(protected, bytes)
        and unprotected == {}
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
    ):
        raise PackageError(
            "not-cose", "COSE_Sign1 needs byte strings and an empty unprotected header; move all into the protected one"
        )
    if len(signature) != SIGNATURE_BYTES:
        raise PackageError("not-cose", f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    _explain_header(_whole(protected, "the protected header"))
    _explain_pack(_whole(payload, "the payload"), _whole(protected, "the protected header"))
    raise PackageError("not-canonical", "the package is not in its one form; see docs/PROOFS.md, Device package")


def _explain_header(header: Any) -> None:
    if not isinstance(header, dict) or set(header) != {1, 3, 4, -65537, -65538}:
        raise PackageError(
            "bad-header",
            "the protected header holds exactly alg (1), content type (3), device (4), sequence and previous hash",
        )
    if header[1] not in ALGORITHMS:
        raise PackageError(
            "wrong-algorithm", f"algorithm {header[1]!r} is not taken; sign with EdDSA (-8) or ES256 (-7)"
        )
    if header[3] != SENML_CBOR:
        raise PackageError("bad-header", "the content type must be 112 (application/senml+cbor)")
    if not isinstance(header[4], bytes) or not DEVICE.fullmatch(header[4]):
        raise PackageError(
            "bad-header", "the device id is a byte string of 1 to 64 lower-case letters, digits and hyphens"
        )
    sequence, previous = header[-65537], header[-65538]
    if not isinstance(sequence, int) or not 1 <= sequence <= SEQUENCE_MAX:
        raise PackageError("bad-header", "the sequence number counts up from 1")
    if not isinstance(previous, bytes) or len(previous) != 32 or (sequence == 1 and previous != NO_PREVIOUS):  # noqa: PLR2004
        raise PackageError("bad-header", "the previous hash has 32 bytes, all zero for sequence 1")


def _explain_pack(pack: Any, header: Any) -> None:
    if (
        not isinstance(pack, list)
        or not 1 <= len(pack) <= READINGS_MAX
        or not all(isinstance(item, dict) for item in pack)
    ):
        raise PackageError("bad-pack", f"the payload is a SenML pack of 1 to {READINGS_MAX} records")
    first = pack[0]
    measure = _BY_NAME.get(first.get(0)) if isinstance(first.get(0), str) else None
    if measure is None:
        raise PackageError("bad-pack", f"record 0: the name must be one of {', '.join(_BY_NAME)}")
    if first.get(-4) != measure.unit or any(item.get(1, measure.unit) != measure.unit for item in pack):
        raise PackageError(
            "wrong-unit",
            f"{measure.name} is sent in {measure.unit} (base unit of the first record); convert it in the device",
        )
    if first.get(-2) != f"urn:dev:city:{header[4].decode()}:":
        raise PackageError("bad-pack", "the base name must be urn:dev:city:<device id>:")
    for number, item in enumerate(pack):
        _explain_record(number, item, first, measure)


def _explain_record(number: int, item: dict[Any, Any], first: dict[Any, Any], measure: Measure) -> None:
    if not _is_int(item.get(2)):
        raise PackageError(
            "not-an-integer",
            f"record {number}: the value must be an integer in {measure.unit}; floats, NaN and infinity are refused",
        )
    if item.get(0) != measure.name:
        raise PackageError("bad-pack", f"record {number}: the name must be {measure.name}, as in the first")
    if set(item) - {0, 2, 6} - ({-2, -3, -4} if number == 0 else set()):
        raise PackageError(
            "bad-pack", f"record {number} has fields that a package does not carry; send name, value and time"
        )
    base, later = first.get(-3), item.get(6, 0)
    if not _is_int(base) or not _is_int(later) or (base + later) % measure.step_s:
        raise PackageError(
            "bad-slot", f"record {number}: a time is the start of a slot, a multiple of {measure.step_s} seconds"
        )
    if later == 0 and number > 0:
        raise PackageError("bad-slot", f"record {number}: times must rise from record to record")


def _whole(data: bytes, what: str) -> Any:
    value, end = _Decoder(data).item(0, 0)
    if end != len(data):
        raise PackageError("not-canonical", f"{what} has bytes after its end")
    return value


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Tag:
    number: int
    value: Any


class _Decoder:
    """Deterministic CBOR of any shape, for messages only."""

    _DEPTH_MAX = 8

    def __init__(self, data: bytes) -> None:
        self._data = data

    def item(self, at: int, depth: int) -> tuple[Any, int]:
        if at >= len(self._data):
            raise PackageError("truncated", "the package ends too early; send it whole")
        if depth > self._DEPTH_MAX:
            raise PackageError("bad-pack", "the package is nested too deep")
        major = self._data[at] & 0xE0
        if major == 0xE0:  # noqa: PLR2004 - simple values and floats
            return self._simple(at)
        argument, at = self._argument(at, major)
        if major in (0x00, 0x20):
            return (argument if major == 0 else -1 - argument), at
        if major in (0x40, 0x60):
            return self._string(at, argument, text=major == 0x60)  # noqa: PLR2004
        if major == 0xC0:  # noqa: PLR2004 - a tag
            value, at = self.item(at, depth + 1)
            return _Tag(argument, value), at
        return self._map(at, argument, depth) if major == 0xA0 else self._list(at, argument, depth)  # noqa: PLR2004

    def _argument(self, at: int, major: int) -> tuple[int, int]:
        low = self._data[at] - major
        if 24 <= low <= 27 and at + 1 + (1 << (low - 24)) > len(self._data):  # noqa: PLR2004
            raise PackageError("truncated", "the package ends too early; send it whole")
        try:
            return read_head(self._data, at, major)
        except Mismatch:
            raise PackageError(
                "not-canonical", "lengths and integers must be in their shortest definite form (RFC 8949, 4.2.1)"
            ) from None

    def _simple(self, at: int) -> tuple[Any, int]:
        code = self._data[at] & 0x1F
        if code in (20, 21, 22):
            return {20: False, 21: True, 22: None}[code], at + 1
        if code in (25, 26, 27):
            return math.nan, at + 1 + (1 << (code - 24))
        raise PackageError(
            "not-canonical", "the package holds a value that CBOR's deterministic form does not allow here"
        )

    def _string(self, at: int, length: int, *, text: bool) -> tuple[Any, int]:
        end = at + length
        if end > len(self._data):
            raise PackageError("truncated", "the package ends too early; send it whole")
        data = self._data[at:end]
        return (data.decode(errors="replace") if text else data), end

    def _list(self, at: int, length: int, depth: int) -> tuple[Any, int]:
        items = []
        for _ in range(length):
            value, at = self.item(at, depth + 1)
            items.append(value)
        return items, at

    def _map(self, at: int, length: int, depth: int) -> tuple[Any, int]:
        items: dict[Any, Any] = {}
        last = b""
        for _ in range(length):
            start = at
            key, at = self.item(at, depth + 1)
            encoded = self._data[start:at]
            if encoded <= last or isinstance(key, list | dict | _Tag):
                raise PackageError("not-canonical", "the keys of a map must be sorted and different (RFC 8949, 4.2.1)")
            last = encoded
            items[key], at = self.item(at, depth + 1)
        return items, at
