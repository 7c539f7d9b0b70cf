"""The signed device package: COSE_Sign1 (RFC 9052) over a SenML pack (RFC 8428) in deterministic CBOR (RFC 8949, 4.2.1).

Devices make it, metering reads it; docs/PROOFS.md defines every byte. There is one byte form for each content; anything else is refused.
The reader is written for exactly this shape: one pass over the bytes, and only when they do not fit, a second, slower look to say why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NoReturn, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from nacl.bindings import crypto_sign as sign_attached
from nacl.bindings import crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

PACKAGE_MAX_BYTES = 1_048_576
READINGS_MAX = 1_024
SLOT_S = 1_800
NO_PREVIOUS = bytes(32)
SEQUENCE_MAX = 2**53 - 1
_INT_MAX = 2**53 - 1
_SENML_CBOR = 112
_SIGNATURE_BYTES = 64
_ALGORITHMS = {-8: "EdDSA", -7: "ES256"}
_LABELS = {name: label for label, name in _ALGORITHMS.items()}
_DEVICE = re.compile(rb"[a-z0-9-]{1,64}")
_SEQUENCE_KEY = b"\x3a\x00\x01\x00\x00"
_PREVIOUS_KEY = b"\x3a\x00\x01\x00\x01\x58\x20"
_RECORD = b"\x00\x66energy\x02"
_RECORD_NOW = b"\xa2" + _RECORD
_RECORD_LATER = b"\xa3" + _RECORD
_UNIT = b"\x23\x62Wh"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class PackageError(ValueError):
    """A package is refused.

    Attributes:
        code: truncated, oversized, not-canonical, not-cose, wrong-algorithm, bad-header, wrong-unit, not-an-integer, bad-slot, bad-pack.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of one slot.

    Attributes:
        time: start of the slot, unix seconds, a multiple of 1,800.
        energy_wh: integer; negative only where a device is faulty or feeds in.
    """

    time: int
    energy_wh: int


@dataclass(frozen=True, slots=True)
class Package:
    """A package as read; its signature is not checked yet.

    Attributes:
        previous: SHA-256 of the package before; 32 zero bytes for sequence 1.
        times, energies_wh: the readings, column by column, in order of time.
        signed: the bytes under the signature (RFC 9052, 4.4 Sig_structure).
        hash: SHA-256 of the whole package.
    """

    device: str
    sequence: int
    previous: bytes
    algorithm: str
    times: tuple[int, ...]
    energies_wh: tuple[int, ...]
    signature: bytes
    signed: bytes
    hash: bytes

    @property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(map(Reading, self.times, self.energies_wh))


class Signer(Protocol):
    """A device's key."""

    algorithm: str
    public_key: bytes

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""


class Ed25519Signer:
    """EdDSA (RFC 8032)."""

    algorithm = "EdDSA"

    def __init__(self, public_key: bytes, secret_key: bytes) -> None:
        self.public_key = public_key
        self._secret_key = secret_key

    @classmethod
    def from_seed(cls, seed: bytes) -> Ed25519Signer:
        """The key of a 32-byte seed."""
        return cls(*crypto_sign_seed_keypair(seed))

    def sign(self, message: bytes) -> bytes:
        return bytes(sign_attached(message, self._secret_key)[:_SIGNATURE_BYTES])


class Es256Signer:
    """ECDSA on P-256 with SHA-256, deterministic (RFC 6979); the signature is r || s."""

    algorithm = "ES256"

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self.public_key = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    @classmethod
    def from_seed(cls, seed: bytes) -> Es256Signer:
        """The key of a 32-byte seed."""
        secret = int.from_bytes(sha256(b"city.es256.v1\n" + seed).digest(), "big") % (_P256_ORDER - 1) + 1
        return cls(ec.derive_private_key(secret, ec.SECP256R1()))

    def sign(self, message: bytes) -> bytes:
        signature = self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(signature)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def package_hash(data: bytes) -> bytes:
    """What the next package of the device holds as `previous`."""
    return sha256(data).digest()


def commitment(salt: bytes, content: bytes) -> bytes:
    """The log entry of a content: SHA-256("city.commitment.v1\\n" || salt || content); the salt has 32 bytes."""
    return sha256(b"city.commitment.v1\n" + salt + content).digest()


def sign_package(signer: Signer, device: str, sequence: int, previous: bytes, readings: Sequence[Reading]) -> bytes:
    """A signed package, as a device makes it. Checks nothing: simulated faults make bad ones with it too."""
    protected = b"".join((
        b"\xa5\x01", _int(_LABELS[signer.algorithm]), b"\x03", _int(_SENML_CBOR), b"\x04", _bytes(device.encode()),
        _SEQUENCE_KEY, _int(sequence), _PREVIOUS_KEY, previous,
    ))  # fmt: skip
    payload = _pack(device, readings)
    signature = signer.sign(_sig_structure(protected, payload))
    return b"\xd2\x84" + _bytes(protected) + b"\xa0" + _bytes(payload) + _bytes(signature)


def verify_package(package: Package, public_key: bytes, algorithm: str) -> bool:
    """True if the signature holds under the device's registered key. Releases the interpreter lock for Ed25519."""
    return package.algorithm == algorithm and verify_signature(public_key, algorithm, package.signed, package.signature)


def verify_signature(public_key: bytes, algorithm: str, message: bytes, signature: bytes) -> bool:
    """True if a device's signature (64 bytes, EdDSA or ES256 as r || s) holds."""
    if len(signature) != _SIGNATURE_BYTES:
        return False
    if algorithm == "EdDSA":
        try:
            crypto_sign_open(signature + message, public_key)
        except (BadSignatureError, ValueError):
            return False
        return True
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_package(data: bytes) -> Package:
    """Reads a package.

    Raises:
        PackageError: it is not in its one form; the code and message say what and what to do.
    """
    if len(data) > PACKAGE_MAX_BYTES:
        raise PackageError(
            "oversized", f"a package is at most {PACKAGE_MAX_BYTES} bytes, not {len(data)}; send fewer readings in each"
        )
    try:
        return _parse(data)
    except (_Mismatch, IndexError):
        _explain(data)


class _Mismatch(Exception):
    """The bytes are not of the expected form; `_explain` says why."""


def _parse(data: bytes) -> Package:
    if data[:2] != b"\xd2\x84":
        raise _Mismatch
    protected, at = _read_bytes(data, 2)
    if data[at] != 0xA0:  # noqa: PLR2004 - an empty map
        raise _Mismatch
    payload, at = _read_bytes(data, at + 1)
    signature, at = _read_bytes(data, at)
    if at != len(data) or len(signature) != _SIGNATURE_BYTES:
        raise _Mismatch
    algorithm, device, sequence, previous = _parse_protected(protected)
    times, energies = _parse_payload(payload, device)
    signed = _sig_structure(protected, payload)
    return Package(
        device.decode(), sequence, previous, algorithm, times, energies, signature, signed, sha256(data).digest()
    )


def _parse_protected(data: bytes) -> tuple[str, bytes, int, bytes]:
    if data[:2] != b"\xa5\x01" or data[3:7] != b"\x03\x18\x70\x04":
        raise _Mismatch
    algorithm = _ALGORITHMS.get(0x1F - data[2])
    device, at = _read_bytes(data, 7)
    if algorithm is None or not _DEVICE.fullmatch(device) or data[at : at + 5] != _SEQUENCE_KEY:
        raise _Mismatch
    sequence, at = _read_int(data, at + 5)
    previous = data[at + 7 :]
    if data[at : at + 7] != _PREVIOUS_KEY or len(previous) != 32 or not 1 <= sequence <= SEQUENCE_MAX:  # noqa: PLR2004 - a SHA-256
        raise _Mismatch
    if sequence == 1 and previous != NO_PREVIOUS:
        raise _Mismatch
    return algorithm, device, sequence, previous


def _parse_payload(data: bytes, device: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    count, at = _read_head(data, 0, 0x80)
    if not 1 <= count <= READINGS_MAX:
        raise _Mismatch
    energy, later, at = _parse_first(data, at)
    base_name = b"\x21" + _text(b"urn:dev:city:" + device + b":") + b"\x22"
    if not data.startswith(base_name, at):
        raise _Mismatch
    base, at = _read_int(data, at + len(base_name))
    if not data.startswith(_UNIT, at):
        raise _Mismatch
    at += len(_UNIT)
    times, energies = [base + later], [energy]
    for _ in range(count - 1):
        energy, later, at = _parse_record(data, at)
        times.append(base + later)
        energies.append(energy)
    if at != len(data):
        raise _Mismatch
    _check_times(times)
    return tuple(times), tuple(energies)


def _check_times(times: list[int]) -> None:
    last = -1
    for time in times:
        if time <= last or time % SLOT_S or time > _INT_MAX:
            raise _Mismatch
        last = time


def _parse_first(data: bytes, at: int) -> tuple[int, int, int]:
    """The first record, up to its base fields: its map has three entries more."""
    if data[at] not in (0xA5, 0xA6) or data[at + 1 : at + 9] + data[at + 9 : at + 10] != _RECORD:
        raise _Mismatch
    energy, after = _read_int(data, at + 10)
    return (energy, *_parse_offset(data, after)) if data[at] == 0xA6 else (energy, 0, after)  # noqa: PLR2004 - map of six


def _parse_record(data: bytes, at: int) -> tuple[int, int, int]:
    head = data[at : at + 10]
    if head == _RECORD_LATER:
        energy, at = _read_int(data, at + 10)
        return (energy, *_parse_offset(data, at))
    if head == _RECORD_NOW:
        energy, at = _read_int(data, at + 10)
        return energy, 0, at
    raise _Mismatch


def _parse_offset(data: bytes, at: int) -> tuple[int, int]:
    if data[at] != 0x06:  # noqa: PLR2004 - label 6, time
        raise _Mismatch
    later, at = _read_int(data, at + 1)
    if later == 0:
        raise _Mismatch
    return later, at


def _read_int(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 0x18:  # noqa: PLR2004 - a small number is its own byte
        return first, at + 1
    value, end = _read_head(data, at, first & 0xE0)
    if first >= 0x40 or value > _INT_MAX:  # noqa: PLR2004 - majors 0 and 1 are integers
        raise _Mismatch
    return (value, end) if first < 0x20 else (-1 - value, end)  # noqa: PLR2004 - major 1 is negative


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, start = _read_head(data, at, 0x40)
    end = start + length
    if end > len(data):
        raise _Mismatch
    return data[start:end], end


def _read_head(data: bytes, at: int, major: int) -> tuple[int, int]:
    """The argument of a head of this major type in its shortest form (RFC 8949, 4.2.1), and where it ends."""
    low = data[at] - major
    if 0 <= low < 24:  # noqa: PLR2004 - RFC 8949, 3
        return low, at + 1
    if not 24 <= low <= 27:  # noqa: PLR2004
        raise _Mismatch
    width = 1 << (low - 24)
    end = at + 1 + width
    value = int.from_bytes(data[at + 1 : end], "big")
    if end > len(data) or value < (24 if width == 1 else 1 << (4 * width)):
        raise _Mismatch
    return value, end


def _sig_structure(protected: bytes, payload: bytes) -> bytes:
    return b"\x84\x6aSignature1" + _bytes(protected) + b"\x40" + _bytes(payload)


def _pack(device: str, readings: Sequence[Reading]) -> bytes:
    base = readings[0].time if readings else 0
    parts = [_head(0x80, len(readings))]
    for number, reading in enumerate(readings):
        later = b"\x06" + _int(reading.time - base) if reading.time != base else b""
        entries = 2 + bool(later) + (3 if number == 0 else 0)
        parts += (bytes([0xA0 + entries]), _RECORD, _int(reading.energy_wh), later)
        if number == 0:
            parts += (b"\x21", _text(b"urn:dev:city:" + device.encode() + b":"), b"\x22", _int(base), _UNIT)
    return b"".join(parts)


def _int(value: int) -> bytes:
    return _head(0x00, value) if value >= 0 else _head(0x20, -1 - value)


def _bytes(data: bytes) -> bytes:
    return _head(0x40, len(data)) + data


def _text(data: bytes) -> bytes:
    return _head(0x60, len(data)) + data


def _head(major: int, value: int) -> bytes:
    if value < 24:  # noqa: PLR2004 - RFC 8949, 3
        return bytes([major + value])
    for code, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << (8 * width):
            return bytes([major + code]) + value.to_bytes(width, "big")
    raise ValueError(f"{value} does not fit in 64 bits")


# --- why bytes were refused ------------------------------------------------------------------------


def _explain(data: bytes) -> NoReturn:
    """Says why `_parse` did not take the bytes: a general decoder of deterministic CBOR, then the rules one by one."""
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
    if len(signature) != _SIGNATURE_BYTES:
        raise PackageError("not-cose", f"a signature has {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    _explain_header(_whole(protected, "the protected header"))
    _explain_pack(_whole(payload, "the payload"), _whole(protected, "the protected header"))
    raise PackageError("not-canonical", "the package is not in its one form; see docs/PROOFS.md, Device package")


def _explain_header(header: Any) -> None:
    if not isinstance(header, dict) or set(header) != {1, 3, 4, -65537, -65538}:
        raise PackageError(
            "bad-header",
            "the protected header holds exactly alg (1), content type (3), device (4), sequence and previous hash",
        )
    if header[1] not in _ALGORITHMS:
        raise PackageError(
            "wrong-algorithm", f"algorithm {header[1]!r} is not taken; sign with EdDSA (-8) or ES256 (-7)"
        )
    if header[3] != _SENML_CBOR:
        raise PackageError("bad-header", "the content type must be 112 (application/senml+cbor)")
    if not isinstance(header[4], bytes) or not _DEVICE.fullmatch(header[4]):
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
    if first.get(-4) != "Wh" or any(item.get(1, "Wh") != "Wh" for item in pack):
        raise PackageError(
            "wrong-unit", "energy is sent in Wh (base unit of the first record); convert it in the device"
        )
    if first.get(-2) != f"urn:dev:city:{header[4].decode()}:":
        raise PackageError("bad-pack", "the base name must be urn:dev:city:<device id>:")
    for number, item in enumerate(pack):
        _explain_record(number, item, first)


def _explain_record(number: int, item: dict[Any, Any], first: dict[Any, Any]) -> None:
    if not _is_int(item.get(2)):
        raise PackageError(
            "not-an-integer",
            f"record {number}: the value must be an integer in Wh; floats, NaN and infinity are refused",
        )
    if item.get(0) != "energy":
        raise PackageError("bad-pack", f"record {number}: the name must be energy")
    if set(item) - {0, 2, 6} - ({-2, -3, -4} if number == 0 else set()):
        raise PackageError(
            "bad-pack", f"record {number} has fields that a package does not carry; send name, value and time"
        )
    base, later = first.get(-3), item.get(6, 0)
    if not _is_int(base) or not _is_int(later) or (base + later) % SLOT_S:
        raise PackageError(
            "bad-slot", f"record {number}: a time is the start of a slot, a multiple of {SLOT_S} seconds"
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
            return _read_head(self._data, at, major)
        except _Mismatch:
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
