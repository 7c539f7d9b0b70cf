"""Devices: what a voucher says, which keys a device has had, and when it ended. Used by the contract and by the edge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.identity.domain.errors import IdentityError

DEVICES_MAX = 1_000
"""Devices in one registration."""
HISTORY_DAYS = 400
"""A year and the month that is being billed."""
_DAY_S = 86_400
KEYS_MAX = 100
"""Keys one device may have had."""
SEQUENCE_MAX = 2**53 - 1
TEXT_MAX = 200
State = dict[str, Any]
"""A device on the ledger: {"keys": [{"key", "algorithm", "from_sequence", "transaction"}], "revoked": null or
{"at", "last_sequence", "reason"}, "voucher": hex SHA-256}."""

_DEVICE = re.compile(r"[a-z0-9-]{1,64}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_KEY_BYTES = {"EdDSA": 32, "ES256": 65}
_UNCOMPRESSED = "04"
_VOUCHER = ("algorithm", "device", "key", "model", "serial")
_ENTRY = ("algorithm", "device", "from_sequence", "from_time", "key", "voucher")


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a manufacturer vouches for.

    Attributes:
        key: 32 bytes (EdDSA) or the 65-byte uncompressed point (ES256).
    """

    device: str
    key: bytes
    algorithm: str
    model: str
    serial: str


def voucher_of(document: Any) -> Voucher:
    """The voucher in a decoded document.

    Raises:
        IdentityError: other fields, or a key that does not fit its algorithm.
    """
    if not isinstance(document, dict) or tuple(sorted(document)) != _VOUCHER:
        raise IdentityError("bad-voucher", f"a voucher holds exactly {', '.join(_VOUCHER)}", "vouchers")
    if not all(isinstance(text, str) and 1 <= len(text) <= TEXT_MAX for text in document.values()):
        raise IdentityError(
            "bad-voucher", f"each part of a voucher is a text of 1 to {TEXT_MAX} characters", "vouchers"
        )
    require_device(document["device"], "vouchers")
    require_key(document["key"], document["algorithm"])
    key = bytes.fromhex(document["key"])
    return Voucher(document["device"], key, document["algorithm"], document["model"], document["serial"])


def require_device(device: Any, field: str = "device") -> str:
    """A device id.

    Raises:
        IdentityError: not 1 to 64 of a-z, 0-9 and hyphen.
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise IdentityError("bad-device", "a device id has 1 to 64 lower-case letters, digits and hyphens", field)
    return device


def require_key(key: Any, algorithm: Any) -> str:
    """A public key in lower-case hex.

    Raises:
        IdentityError: unknown algorithm, other form or length.
    """
    if not isinstance(algorithm, str) or algorithm not in _KEY_BYTES:
        raise IdentityError("bad-algorithm", f"the algorithm is one of {', '.join(_KEY_BYTES)}", "algorithm")
    size = _KEY_BYTES[algorithm]
    if not isinstance(key, str) or not _HEX.fullmatch(key) or len(key) != 2 * size:
        raise IdentityError("bad-key", f"a key of {algorithm} has {size} bytes, in lower-case hex", "key")
    if algorithm == "ES256" and not key.startswith(_UNCOMPRESSED):
        raise IdentityError("bad-key", "a key of ES256 is the uncompressed point, which starts with 04", "key")
    return key


def require_sequence(sequence: Any, field: str, lowest: int = 1) -> int:
    """A package sequence number.

    Raises:
        IdentityError: out of range.
    """
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not lowest <= sequence <= SEQUENCE_MAX:
        raise IdentityError("bad-sequence", f"{field} is a whole number from {lowest} to {SEQUENCE_MAX}", field)
    return sequence


def registrations(entries: list[State]) -> list[State]:
    """The entries of one registration.

    Raises:
        IdentityError: too many, none, twice the same, or an entry of another form.
    """
    if not 1 <= len(entries) <= DEVICES_MAX:
        raise IdentityError("bad-count", f"register 1 to {DEVICES_MAX} devices at once", "vouchers")
    for entry in entries:
        _require_entry(entry)
    for what in ("device", "key"):
        values = sorted(entry[what] for entry in entries)
        for one, other in pairwise(values):
            if one == other:
                raise IdentityError("named-twice", f"the {what} {one} is named twice in one registration", "vouchers")
    return entries


def _require_entry(entry: State) -> None:
    if tuple(sorted(entry)) != _ENTRY:
        raise IdentityError("bad-device", f"a device is registered with exactly {', '.join(_ENTRY)}", "vouchers")
    device = require_device(entry["device"], "vouchers")
    require_key(entry["key"], entry["algorithm"])
    require_sequence(entry["from_sequence"], "from_sequence")
    if not isinstance(entry["voucher"], str) or not _DIGEST.fullmatch(entry["voucher"]):
        raise IdentityError("bad-voucher", f"{device}: the voucher is named by its SHA-256 in hex", "vouchers")
    require_time(entry["from_time"], "from_time")


def require_begin(begins: int, now: int) -> int:
    """Since when a device that is registered now measures, in Unix seconds.

    Raises:
        IdentityError: in the future, or longer ago than `HISTORY_DAYS`.
    """
    if not now - HISTORY_DAYS * _DAY_S <= begins <= now:
        raise IdentityError(
            "bad-time",
            f"a device brings readings from at most {HISTORY_DAYS} days before its registration, and from no later than now",
            "in_service_from",
        )
    return begins


def require_time(text: Any, field: str) -> str:
    """A time as it stands on the ledger.

    Raises:
        IdentityError: not `2016-11-08T00:00:00Z`.
    """
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise IdentityError("bad-time", f"{field} is written as 2016-11-08T00:00:00Z", field)
    return text


def registered(entry: State, transaction: str) -> State:
    """The state of a device that is new."""
    key = _key(entry["key"], entry["algorithm"], entry["from_sequence"], transaction)
    return {"keys": [key], "revoked": None, "voucher": entry["voucher"]}


def in_service(device: str, state: State | None) -> State:
    """The state of a device that may still change.

    Raises:
        IdentityError: not registered, or revoked.
    """
    require_device(device)
    if state is None:
        raise IdentityError("unknown-device", f"{device} is not registered; register it with its voucher", "device")
    if state["revoked"] is not None:
        at = state["revoked"]["at"]
        raise IdentityError("revoked", f"{device} was revoked at {at} and never comes back; register another", "device")
    return state


def rotated(device: str, state: State, key: str, algorithm: str, from_sequence: int, transaction: str) -> State:
    """The state with another key from a sequence number on.

    Raises:
        IdentityError: the numbers do not rise, or too many keys.
    """
    require_key(key, algorithm)
    require_sequence(from_sequence, "from_sequence")
    newest = state["keys"][-1]["from_sequence"]
    if from_sequence <= newest:
        message = f"{device}: the key in force starts at package {newest}; the new one must start later"
        raise IdentityError("sequence-not-rising", message, "from_sequence")
    if len(state["keys"]) >= KEYS_MAX:
        raise IdentityError("too-many-keys", f"{device} has had {KEYS_MAX} keys; replace the device", "device")
    return {**state, "keys": [*state["keys"], _key(key, algorithm, from_sequence, transaction)]}


def revoked(device: str, state: State, at: str, last_sequence: int, reason: str) -> State:
    """The state of a device whose packages after `last_sequence` no longer count.

    Raises:
        IdentityError: no reason, or a number out of range.
    """
    require_sequence(last_sequence, "last_sequence", 0)
    require_time(at, "at")
    if not 1 <= len(reason.strip()) <= TEXT_MAX:
        raise IdentityError("bad-reason", f"{device}: say why in 1 to {TEXT_MAX} characters, without names", "reason")
    return {**state, "revoked": {"at": at, "last_sequence": last_sequence, "reason": reason}}


def _key(key: str, algorithm: str, from_sequence: int, transaction: str) -> State:
    return {"algorithm": algorithm, "from_sequence": from_sequence, "key": key, "transaction": transaction}


def voucher_message(document: bytes) -> bytes:
    """What a manufacturer signs: the canonical JSON of the voucher, tagged."""
    return b"city.voucher.v1\n" + document


def rotation_message(document: bytes) -> bytes:
    """What the key in force signs to name its successor: canonical JSON {algorithm, device, from_sequence, key}, tagged."""
    return b"city.device-rotation.v1\n" + document
