"""The signed device package: COSE_Sign1 (RFC 9052) over a SenML pack (RFC 8428) in deterministic CBOR (RFC 8949, 4.2.1).

Devices make it, metering reads it; docs/PROOFS.md defines every byte. There is one byte form for each content; anything else is refused.
The reader is written for exactly this shape: one pass over the bytes, and only when they do not fit, a second, slower look to say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from nacl.bindings import crypto_sign as sign_attached
from nacl.bindings import crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from citykit.cbor import (
    INTEGER_MAX,
    Mismatch,
    encode_bytes,
    encode_head,
    encode_int,
    encode_text,
    read_bytes,
    read_head,
    read_int,
)
from citykit.package_faults import (
    ALGORITHMS,
    DEVICE,
    ENERGY,
    ENTRY,
    EXIT,
    MEASURES,
    NO_PREVIOUS,
    OCCUPIED,
    PACKAGE_MAX_BYTES,
    READINGS_MAX,
    SENML_CBOR,
    SEQUENCE_MAX,
    SIGNATURE_BYTES,
    SLOT_S,
    UNLOCK,
    Measure,
    PackageError,
    explain,
)

__all__ = [
    "ENERGY",
    "ENTRY",
    "EXIT",
    "NO_PREVIOUS",
    "OCCUPIED",
    "PACKAGE_MAX_BYTES",
    "READINGS_MAX",
    "SLOT_S",
    "UNLOCK",
    "Ed25519Signer",
    "Es256Signer",
    "Measure",
    "Package",
    "PackageError",
    "Reading",
    "Signer",
    "commitment",
    "package_hash",
    "parse_package",
    "sign_package",
    "verify_package",
    "verify_signature",
]

_LABELS = {name: label for label, name in ALGORITHMS.items()}
_SEQUENCE_KEY = b"\x3a\x00\x01\x00\x00"
_PREVIOUS_KEY = b"\x3a\x00\x01\x00\x01\x58\x20"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Reading:
    """One record.

    Attributes:
        time: unix seconds; of energy the start of the half hour, a multiple of 1,800.
        value: integer in the measure's unit; energy is negative only where a device is faulty or feeds in.
    """

    time: int
    value: int


class _Form:
    """The bytes that are the same in every record of a measure."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.record = b"\x00" + encode_text(measure.name.encode()) + b"\x02"
        self.now = b"\xa2" + self.record
        self.later = b"\xa3" + self.record
        self.size = len(self.now)
        self.unit = b"\x23" + encode_text(measure.unit.encode())


_FORMS = tuple(map(_Form, MEASURES))
_FORM_OF = {form.measure: form for form in _FORMS}


@dataclass(frozen=True, slots=True)
class Package:
    """A package as read; its signature is not checked yet.

    Attributes:
        previous: SHA-256 of the package before; 32 zero bytes for sequence 1.
        times, values: the readings, column by column, in order of time.
        signed: the bytes under the signature (RFC 9052, 4.4 Sig_structure).
        hash: SHA-256 of the whole package.
    """

    device: str
    sequence: int
    previous: bytes
    algorithm: str
    times: tuple[int, ...]
    values: tuple[int, ...]
    signature: bytes
    signed: bytes
    hash: bytes
    measure: Measure = ENERGY

    @property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(map(Reading, self.times, self.values))


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
        return bytes(sign_attached(message, self._secret_key)[:SIGNATURE_BYTES])


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


def sign_package(
    signer: Signer, device: str, sequence: int, previous: bytes, readings: Sequence[Reading], measure: Measure = ENERGY
) -> bytes:
    """A signed package, as a device makes it. Checks nothing: simulated faults make bad ones with it too."""
    protected = b"".join((
        b"\xa5\x01", encode_int(_LABELS[signer.algorithm]), b"\x03", encode_int(SENML_CBOR), b"\x04", encode_bytes(device.encode()),
        _SEQUENCE_KEY, encode_int(sequence), _PREVIOUS_KEY, previous,
    ))  # fmt: skip
    payload = _pack(device, readings, _FORM_OF[measure])
    signature = signer.sign(_sig_structure(protected, payload))
    return b"\xd2\x84" + encode_bytes(protected) + b"\xa0" + encode_bytes(payload) + encode_bytes(signature)


def verify_package(package: Package, public_key: bytes, algorithm: str) -> bool:
    """True if the signature holds under the device's registered key. Releases the interpreter lock for Ed25519."""
    return package.algorithm == algorithm and verify_signature(public_key, algorithm, package.signed, package.signature)


def verify_signature(public_key: bytes, algorithm: str, message: bytes, signature: bytes) -> bool:
    """True if a device's signature (64 bytes, EdDSA or ES256 as r || s) holds."""
    if len(signature) != SIGNATURE_BYTES:
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
    except (Mismatch, IndexError):
        explain(data)


def _parse(data: bytes) -> Package:
    if data[:2] != b"\xd2\x84":
        raise Mismatch
    protected, at = read_bytes(data, 2)
    if data[at] != 0xA0:  # noqa: PLR2004 - an empty map
        raise Mismatch
    payload, at = read_bytes(data, at + 1)
    signature, at = read_bytes(data, at)
    if at != len(data) or len(signature) != SIGNATURE_BYTES:
        raise Mismatch
    algorithm, device, sequence, previous = _parse_protected(protected)
    form = _form_of(payload)
    times, values = _parse_payload(payload, device, form)
    signed = _sig_structure(protected, payload)
    return Package(
        device.decode(),
        sequence,
        previous,
        algorithm,
        times,
        values,
        signature,
        signed,
        sha256(data).digest(),
        form.measure,
    )


def _parse_protected(data: bytes) -> tuple[str, bytes, int, bytes]:
    if data[:2] != b"\xa5\x01" or data[3:7] != b"\x03\x18\x70\x04":
        raise Mismatch
    algorithm = ALGORITHMS.get(0x1F - data[2])
    device, at = read_bytes(data, 7)
    if algorithm is None or not DEVICE.fullmatch(device) or data[at : at + 5] != _SEQUENCE_KEY:
        raise Mismatch
    sequence, at = read_int(data, at + 5)
    previous = data[at + 7 :]
    if data[at : at + 7] != _PREVIOUS_KEY or len(previous) != 32 or not 1 <= sequence <= SEQUENCE_MAX:  # noqa: PLR2004 - a SHA-256
        raise Mismatch
    if sequence == 1 and previous != NO_PREVIOUS:
        raise Mismatch
    return algorithm, device, sequence, previous


def _form_of(payload: bytes) -> _Form:
    """By the first record's name, which begins one or a few bytes into the pack."""
    start = read_head(payload, 0, 0x80)[1] + 1
    for form in _FORMS:
        if payload.startswith(form.record, start):
            return form
    raise Mismatch


def _parse_payload(data: bytes, device: bytes, form: _Form) -> tuple[tuple[int, ...], tuple[int, ...]]:
    count, at = read_head(data, 0, 0x80)
    if not 1 <= count <= READINGS_MAX:
        raise Mismatch
    value, later, at = _parse_first(data, at, form)
    base_name = b"\x21" + encode_text(b"urn:dev:city:" + device + b":") + b"\x22"
    if not data.startswith(base_name, at):
        raise Mismatch
    base, at = read_int(data, at + len(base_name))
    if not data.startswith(form.unit, at):
        raise Mismatch
    at += len(form.unit)
    times, values = [base + later], [value]
    for _ in range(count - 1):
        value, later, at = _parse_record(data, at, form)
        times.append(base + later)
        values.append(value)
    if at != len(data):
        raise Mismatch
    _check_times(times, form.measure.step_s)
    return tuple(times), tuple(values)


def _check_times(times: list[int], step_s: int) -> None:
    last = -1
    for time in times:
        if time <= last or time % step_s or time > INTEGER_MAX:
            raise Mismatch
        last = time


def _parse_first(data: bytes, at: int, form: _Form) -> tuple[int, int, int]:
    """The first record, up to its base fields: its map has three entries more."""
    if data[at] not in (0xA5, 0xA6):
        raise Mismatch
    value, after = read_int(data, at + form.size)
    return (value, *_parse_offset(data, after)) if data[at] == 0xA6 else (value, 0, after)  # noqa: PLR2004 - map of six


def _parse_record(data: bytes, at: int, form: _Form) -> tuple[int, int, int]:
    head = data[at : at + form.size]
    if head == form.later:
        value, at = read_int(data, at + form.size)
        return (value, *_parse_offset(data, at))
    if head == form.now:
        value, at = read_int(data, at + form.size)
        return value, 0, at
    raise Mismatch


def _parse_offset(data: bytes, at: int) -> tuple[int, int]:
    if data[at] != 0x06:  # noqa: PLR2004 - label 6, time
        raise Mismatch
    later, at = read_int(data, at + 1)
    if later == 0:
        raise Mismatch
    return later, at


def _sig_structure(protected: bytes, payload: bytes) -> bytes:
    return b"\x84\x6aSignature1" + encode_bytes(protected) + b"\x40" + encode_bytes(payload)


def _pack(device: str, readings: Sequence[Reading], form: _Form) -> bytes:
    base = readings[0].time if readings else 0
    parts = [encode_head(0x80, len(readings))]
    for number, reading in enumerate(readings):
        later = b"\x06" + encode_int(reading.time - base) if reading.time != base else b""
        entries = 2 + bool(later) + (3 if number == 0 else 0)
        parts += (bytes([0xA0 + entries]), form.record, encode_int(reading.value), later)
        if number == 0:
            parts += (
                b"\x21",
                encode_text(b"urn:dev:city:" + device.encode() + b":"),
                b"\x22",
                encode_int(base),
                form.unit,
            )
    return b"".join(parts)
