"""The bytes of docs/PROOFS.md, made from a seed: keys, packages, trees, notes, evidence, the trust file. Used by the makers of bundles beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CITY, DEVICE = "provable.city/example", "meter-001"
ORIGIN = f"{CITY}/metering.readings"
LOGS = ("metering.readings", "parking.events", "parking.states", "payments.events", "payments.transfers")


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- keys, all from the seed --------------------------------------------------------------------------


def secret(seed: int, name: str) -> bytes:
    return sha256(f"{seed} {name}".encode()).digest()


def ed25519(seed: int, name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secret(seed, name))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(key: Ed25519PrivateKey) -> str:
    return sha256(public(key)).hexdigest()[:16]


def p256(seed: int, name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret(seed, name), "big") >> 1, ec.SECP256R1())


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """65 bytes, uncompressed."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def es256(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r || s, the same for the same message (RFC 6979)."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass(frozen=True)
class DeviceKey:
    """A device's key of either algorithm."""

    seed: int
    algorithm: str = "EdDSA"
    device: str = DEVICE

    def _p256(self) -> ec.EllipticCurvePrivateKey:
        return p256(self.seed, self.device)

    def public(self) -> bytes:
        if self.algorithm == "EdDSA":
            return public(ed25519(self.seed, self.device))
        return point(self._p256())

    def sign(self, message: bytes) -> bytes:
        if self.algorithm == "EdDSA":
            return ed25519(self.seed, self.device).sign(message)
        return es256(self._p256(), message)


# --- packages: CBOR, COSE_Sign1, SenML ----------------------------------------------------------------


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    width = next(width for width in (1, 2, 4, 8) if argument < 1 << 8 * width)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width]]) + argument.to_bytes(width, "big")


def cbor(value: Any) -> bytes:
    """Deterministic CBOR of integers, byte and text strings, lists and maps."""
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(cbor(item) for item in value)
    pairs = sorted((cbor(key), cbor(item)) for key, item in value.items())
    return _head(5, len(pairs)) + b"".join(key + item for key, item in pairs)


def senml(
    readings: Sequence[tuple[int, int]], device: str = DEVICE, measure: str = "energy", unit: str = "Wh"
) -> list[dict[int, Any]]:
    """The pack of (time, value); of energy the start of the slot and Wh."""
    base = readings[0][0]
    records: list[dict[int, Any]] = [
        {0: measure, 2: value, **({6: time - base} if time != base else {})} for time, value in readings
    ]
    records[0] |= {-2: f"urn:dev:city:{device}:", -3: base, -4: unit}
    return records


def package(
    key: DeviceKey, sequence: int, previous: bytes, pack: Any, *, header: dict[int, Any] | None = None, tag: int = 18
) -> bytes:
    """One signed package; `pack` is any value, so that a test can sign nonsense. `header` overrides single labels."""
    labels = {
        1: {"EdDSA": -8, "ES256": -7}[key.algorithm],
        3: 112,
        4: key.device.encode(),
        -65537: sequence,
        -65538: previous,
    }
    protected, payload = cbor(labels | (header or {})), cbor(pack)
    signature = key.sign(cbor(["Signature1", protected, b"", payload]))
    return _head(6, tag) + cbor([protected, {}, payload, signature])


# --- trees, notes, ledger -----------------------------------------------------------------------------


def commit(salt: bytes, content: bytes) -> bytes:
    return sha256(b"city.commitment.v1\n" + salt + content).digest()


def _split(count: int) -> int:
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def root(entries: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    half = _split(len(entries))
    return sha256(b"\x01" + root(entries[:half]) + root(entries[half:])).digest()


def proof(entries: Sequence[bytes], indexes: Sequence[int]) -> dict[str, Any]:
    def walk(low: int, high: int) -> list[str]:
        if not any(low <= index < high for index in indexes):
            return [root(entries[low:high]).hex()]
        if high - low == 1:
            return []
        middle = low + _split(high - low)
        return walk(low, middle) + walk(middle, high)

    return {"size": len(entries), "indexes": sorted(indexes), "hashes": walk(0, len(entries))}


def consistency(entries: Sequence[bytes], first: int) -> dict[str, Any]:
    """RFC 6962, 2.1.2."""

    def subproof(size: int, low: int, high: int, whole: bool) -> list[str]:
        if size == high - low:
            return [] if whole else [root(entries[low:high]).hex()]
        half = _split(high - low)
        if size <= half:
            return [*subproof(size, low, low + half, whole), root(entries[low + half : high]).hex()]
        return [*subproof(size - half, low + half, high, False), root(entries[low : low + half]).hex()]

    return {"from": first, "to": len(entries), "hashes": subproof(first, 0, len(entries), True)}


def checkpoint(seed: int, entries: Sequence[bytes], origin: str = ORIGIN) -> str:
    key = ed25519(seed, origin)
    text = f"{origin}\n{len(entries)}\n{b64(root(entries))}\n"
    identifier = sha256(origin.encode() + b"\n\x01" + public(key)).digest()[:4]
    return f"{text}\n— {origin} {b64(identifier + key.sign(text.encode()))}\n"


def log_part(seed: int, entries: Sequence[bytes], indexes: Sequence[int], origin: str = ORIGIN) -> dict[str, Any]:
    """A bundle's `log`: checkpoint, proof of the entries and the anchor on the ledger."""
    head = {"origin": origin, "size": len(entries), "root": root(entries).hex(), "proof": []}
    return {
        "origin": origin, "checkpoint": checkpoint(seed, entries, origin), "proof": proof(entries, indexes),
        "anchor": evidence(seed, "anchors", "record", "notary", {"heads": [head]}),
    }  # fmt: skip


def mixed(seed: int, commitments: Sequence[bytes], name: str) -> tuple[list[bytes], list[int]]:
    """The entries of a log in which every second is somebody else's, and where ours are."""
    entries: list[bytes] = []
    for number, commitment in enumerate(commitments):
        entries += [secret(seed, f"{name} of another {number}"), commitment]
    return entries, list(range(1, len(entries), 2))


def evidence(seed: int, contract: str, function: str, submitter: str, args: dict[str, Any]) -> dict[str, Any]:
    """Evidence of a transaction in the middle of a block of three."""
    transaction: dict[str, Any] = {
        "args": args, "channel": "city", "contract": contract, "function": function, "submitter": submitter, "events": [],
        "id": secret(seed, f"{contract}.{function}").hex(), "reads": [], "writes": [], "result": None, "time": "2016-11-08T00:00:00Z",
    }  # fmt: skip
    endorser, orderer = ed25519(seed, "endorser"), ed25519(seed, "orderer")
    signed = b64(endorser.sign(b"city.endorsement.v1\n" + canonical(transaction)))
    envelope = {
        "transaction": transaction, "code": "VALID",
        "endorsements": [{"key": key_id(endorser), "organisation": "city", "signature": signed}],
    }  # fmt: skip
    block = [b"before", canonical(envelope), b"after"]
    header = {
        "channel": "city", "number": 7, "previous": "00" * 32, "data": root(block).hex(), "count": 3, "time": "2016-11-08T00:00:01Z",
    }  # fmt: skip
    signature = {"key": key_id(orderer), "signature": b64(orderer.sign(b"city.block.v1\n" + canonical(header)))}
    return {
        "type": "embedded.v1", "envelope": envelope, "index": 1, "path": proof(block, [1]), "header": header, "signature": signature,
    }  # fmt: skip


def trust(seed: int) -> dict[str, Any]:
    """The trust file of the seed's city."""
    return {
        "format": "city.trust.v1", "city": CITY, "witnesses": [], "known": [],
        "ledger": {
            "type": "embedded.v1", "channel": "city", "policy": {"endorsements": 1}, "note": "an example",
            "endorsers": [{"organisation": "city", "key": public(ed25519(seed, "endorser")).hex()}],
            "orderers": [{"key": public(ed25519(seed, "orderer")).hex()}],
        },
        "logs": [{"origin": f"{CITY}/{log}", "key": public(ed25519(seed, f"{CITY}/{log}")).hex()} for log in LOGS],
    }  # fmt: skip
