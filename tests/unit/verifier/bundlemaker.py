"""An executable example of docs/PROOFS.md: makes a bill's, a package's and an event's bundle and the trust file from a seed.

Written from the specification alone: it shares code neither with the servers nor with the verifier. Used by the verifier's tests.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from hashlib import sha256
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CITY, DEVICE, ZONE = "provable.city/example", "meter-001", "Europe/London"
ORIGIN = f"{CITY}/metering.readings"
FROM, TO = date(2016, 10, 29), date(2016, 10, 31)
SLOT_S = 1_800
TARIFF: dict[str, Any] = {
    "id": "example", "version": 1, "currency": "GBP", "zone": ZONE, "valid_from": "2016-10-01", "dispute_days": 28,
    "bands": [
        {"name": "night", "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 0, "to_minute": 420}],
         "steps": [{"up_to_wh_per_day": None, "price_micro_per_wh": 8_200}]},
        {"name": "day", "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 420, "to_minute": 1_440}],
         "steps": [{"up_to_wh_per_day": 3_000, "price_micro_per_wh": 14_370}, {"up_to_wh_per_day": None, "price_micro_per_wh": 16_910}]},
    ],
    "standing_micro_per_day": 24_600_000, "vat_basis_points": 500, "estimation": "profile-v1", "contact": {},
}  # fmt: skip


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


@dataclass(frozen=True)
class DeviceKey:
    """A device's key of either algorithm."""

    seed: int
    algorithm: str = "EdDSA"

    def _p256(self) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(secret(self.seed, DEVICE), "big") >> 1, ec.SECP256R1())

    def public(self) -> bytes:
        if self.algorithm == "EdDSA":
            return public(ed25519(self.seed, DEVICE))
        return self._p256().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def sign(self, message: bytes) -> bytes:
        if self.algorithm == "EdDSA":
            return ed25519(self.seed, DEVICE).sign(message)
        r, s = decode_dss_signature(self._p256().sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


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


def senml(readings: Sequence[tuple[int, int]], device: str = DEVICE) -> list[dict[int, Any]]:
    """The pack of (start of slot, Wh)."""
    base = readings[0][0]
    records: list[dict[int, Any]] = [
        {0: "energy", 2: value, **({6: slot - base} if slot != base else {})} for slot, value in readings
    ]
    records[0] |= {-2: f"urn:dev:city:{device}:", -3: base, -4: "Wh"}
    return records


def package(
    key: DeviceKey, sequence: int, previous: bytes, pack: Any, *, header: dict[int, Any] | None = None, tag: int = 18
) -> bytes:
    """One signed package; `pack` is any value, so that a test can sign nonsense. `header` overrides single labels."""
    labels = {
        1: {"EdDSA": -8, "ES256": -7}[key.algorithm],
        3: 112,
        4: DEVICE.encode(),
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


def checkpoint(seed: int, entries: Sequence[bytes]) -> str:
    key = ed25519(seed, ORIGIN)
    text = f"{ORIGIN}\n{len(entries)}\n{b64(root(entries))}\n"
    identifier = sha256(ORIGIN.encode() + b"\n\x01" + public(key)).digest()[:4]
    return f"{text}\n— {ORIGIN} {b64(identifier + key.sign(text.encode()))}\n"


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
        "logs": [{"origin": ORIGIN, "key": public(ed25519(seed, ORIGIN)).hex()}],
    }  # fmt: skip


# --- the bill -----------------------------------------------------------------------------------------


def moment(day: date) -> int:
    """Unix time of local midnight."""
    return int(datetime.combine(day, time(), ZoneInfo(ZONE)).timestamp())


def local(slot: int) -> datetime:
    return datetime.fromtimestamp(slot, ZoneInfo(ZONE))


def half_up(amount: int, unit: int) -> int:
    return (2 * amount + unit) // (2 * unit)


def lines_of(energy: dict[int, int], days: int) -> list[dict[str, Any]]:
    """The lines of TARIFF: one price at night, two steps by day."""
    night = [slot for slot in energy if local(slot).hour < 7]
    wh = {
        "night": sum(energy[slot] for slot in night),
        "day": sum(energy.values()) - sum(energy[slot] for slot in night),
    }
    low = min(wh["day"], 3_000 * days)
    parts = [("night", 0, wh["night"], 8_200), ("day", 0, low, 14_370), ("day", 1, wh["day"] - low, 16_910)]
    slots = {"night": len(night), "day": len(energy) - len(night)}
    lines: list[dict[str, Any]] = [
        {"kind": "energy", "band": band, "step": step, "energy_wh": part, "price_micro_per_wh": price,
         "amount_minor": half_up(part * price, 10**6), "slots": slots[band]}
        for band, step, part, price in parts if part > 0
    ]  # fmt: skip
    lines.append(
        {
            "kind": "standing",
            "days": days,
            "price_micro_per_day": 24_600_000,
            "amount_minor": half_up(days * 24_600_000, 10**6),
        }
    )
    subtotal = sum(line["amount_minor"] for line in lines)
    return [*lines, {"kind": "vat", "basis_points": 500, "amount_minor": half_up(subtotal * 500, 10_000)}]


def bill_of(
    energy: dict[int, int], estimated: list[dict[str, Any]], gaps: list[tuple[int, int]], published: str
) -> dict[str, Any]:
    """The document; `energy` gives every slot its Wh, `published` is the tariff's transaction."""
    days = (TO - FROM).days
    lines = lines_of(energy, days)
    subtotal, vat = sum(line["amount_minor"] for line in lines[:-1]), lines[-1]["amount_minor"]
    offsets: list[list[int]] = []
    for slot in sorted(energy):
        offset = int((local(slot).utcoffset() or local(slot) - local(slot)).total_seconds())
        if not offsets or offsets[-1][1] != offset:
            offsets.append([slot, offset])
    return {
        "format": "city.bill.v1", "id": "bill-2016-10-29-0123456789abcdef", "meter_point": "mp-001", "device": [DEVICE],
        "period": {
            "from": FROM.isoformat(), "to": TO.isoformat(), "from_time": moment(FROM), "to_time": moment(TO), "zone": ZONE, "offsets": offsets,
        },
        "tariff": {"id": "example", "version": 1, "transaction": published}, "slot_seconds": SLOT_S, "slots": len(energy),
        "measured": len(energy) - len(estimated), "estimated": estimated, "gaps": [{"after": a, "before": b} for a, b in gaps],
        "lines": lines, "subtotal_minor": subtotal, "vat_minor": vat, "total_minor": subtotal + vat, "currency": "GBP",
        "corrects": None, "issued": "2016-11-01T00:00:00Z", "due": "2016-11-15", "dispute_until": "2016-11-29",
    }  # fmt: skip


# --- bundles ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What goes into a bundle; the defaults make an honest bill with packages of `size` readings.

    Attributes:
        left_out: sequence numbers that were lost on the way: their slots are estimated, the gap is stated.
        held: slots (by number in the period) that are set aside as a spike and estimated.
        earlier: size of the log at an earlier checkpoint that the bundle continues; 0 for none.
    """

    seed: int = 1
    size: int = 7
    algorithm: str = "EdDSA"
    left_out: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    earlier: int = 0


def slots() -> list[int]:
    """The half hours of the period: 98, since the clocks go back in it."""
    return list(range(moment(FROM), moment(TO), SLOT_S))


def value_of(seed: int, slot: int) -> int:
    return int.from_bytes(secret(seed, str(slot))[:2], "big") % 400


def packages_of(recipe: Recipe) -> dict[int, bytes]:
    """sequence -> package, chained, over the whole period."""
    made: dict[int, bytes] = {}
    previous, key, wanted = bytes(32), DeviceKey(recipe.seed, recipe.algorithm), slots()
    for sequence, first in enumerate(range(0, len(wanted), recipe.size), start=1):
        pack = senml([(slot, value_of(recipe.seed, slot)) for slot in wanted[first : first + recipe.size]])
        made[sequence] = package(key, sequence, previous, pack)
        previous = sha256(made[sequence]).digest()
    return made


def _log_part(recipe: Recipe, entries: Sequence[bytes], indexes: Sequence[int]) -> dict[str, Any]:
    head = {"origin": ORIGIN, "size": len(entries), "root": root(entries).hex(), "proof": []}
    return {
        "origin": ORIGIN, "checkpoint": checkpoint(recipe.seed, entries), "proof": proof(entries, indexes),
        "anchor": evidence(recipe.seed, "anchors", "record", "notary", {"heads": [head]}),
    }  # fmt: skip


def package_bundle(recipe: Recipe) -> dict[str, Any]:
    """Kind "package": each package that was not lost, at every second place of the log."""
    kept = {sequence: data for sequence, data in packages_of(recipe).items() if sequence not in recipe.left_out}
    items: list[dict[str, Any]] = []
    entries: list[bytes] = []
    for sequence, data in kept.items():
        salt = secret(recipe.seed, f"salt {sequence}")
        entries += [secret(recipe.seed, f"another {sequence}"), commit(salt, data)]
        items.append({"index": len(entries) - 1, "package": b64(data), "salt": salt.hex()})
    key = {
        "key": DeviceKey(recipe.seed, recipe.algorithm).public().hex(),
        "algorithm": recipe.algorithm,
        "from_sequence": 1,
    }
    told = {"device": DEVICE, "voucher": "00" * 32, "from_time": "2016-10-01T00:00:00Z", **key}
    registered = evidence(recipe.seed, "devices", "register_many", "identity", {"devices": [told]})
    earlier = None
    if recipe.earlier:
        older = checkpoint(recipe.seed, entries[: recipe.earlier])
        earlier = {"checkpoint": older, "consistency": consistency(entries, recipe.earlier)}
    return {
        "format": "city.bundle.v1", "kind": "package", "city": CITY, "earlier": earlier, "packages": items,
        "log": _log_part(recipe, entries, [item["index"] for item in items]),
        "devices": [{"id": DEVICE, "keys": [{**key, "registered": registered}]}],
    }  # fmt: skip


def _accounted(recipe: Recipe) -> tuple[dict[int, int], list[dict[str, Any]], list[tuple[int, int]]]:
    energy, estimated = {}, []
    for number, slot in enumerate(slots()):
        lost, held = 1 + number // recipe.size in recipe.left_out, number in recipe.held
        energy[slot] = 100 if lost or held else value_of(recipe.seed, slot)
        if lost or held:
            reason = "missing" if lost else "quarantined:spike"
            estimated.append({"slot": slot, "energy_wh": 100, "reason": reason, "method": "profile-v1"})
    kept = [number for number in range(1, 2 + (len(slots()) - 1) // recipe.size) if number not in recipe.left_out]
    return energy, estimated, [(a, b) for a, b in pairwise(kept) if b != a + 1]


def with_bill(recipe: Recipe, bill: dict[str, Any], period: str = "") -> dict[str, Any]:
    """Kind "bill" around any bill document: in a run of five that the ledger closed."""
    salt = secret(recipe.seed, "bill")
    run = [secret(recipe.seed, f"bill {n}") for n in range(2)] + [commit(salt, canonical(bill))]
    run += [secret(recipe.seed, f"bill {n}") for n in range(3, 5)]
    args = {
        "run": "run-1", "period": period or f"{FROM}/{TO}", "count": 5, "root": root(run).hex(), "tariff": {"id": "example", "version": 1},
    }  # fmt: skip
    return {
        **package_bundle(recipe), "kind": "bill", "bill": bill, "bill_salt": salt.hex(),
        "run": {"proof": proof(run, [2]), "evidence": evidence(recipe.seed, "billing", "close", "metering", args)},
        "tariff": evidence(recipe.seed, "tariffs", "publish", "metering", {"tariff": TARIFF}),
    }  # fmt: skip


def bill_document(recipe: Recipe) -> dict[str, Any]:
    return bill_of(*_accounted(recipe), published=secret(recipe.seed, "tariffs.publish").hex())


def bill_bundle(recipe: Recipe) -> dict[str, Any]:
    """An honest bill and everything that proves it."""
    return with_bill(recipe, bill_document(recipe))


def event_bundle(recipe: Recipe) -> dict[str, Any]:
    """Kind "event": a document in the middle of a log of five."""
    event, salt = (
        {"format": "city.example.v1", "at": datetime.fromtimestamp(0, UTC).isoformat()},
        secret(recipe.seed, "event"),
    )
    entries = [secret(recipe.seed, f"entry {n}") for n in range(5)]
    entries[3] = commit(salt, canonical(event))
    return {
        "format": "city.bundle.v1", "kind": "event", "city": CITY, "earlier": None, "event": event, "salt": salt.hex(), "index": 3,
        "log": _log_part(recipe, entries, [3]),
    }  # fmt: skip
