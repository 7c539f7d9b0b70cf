"""A simulated lock: decides offline, by its own clock and key list, whether it opens; says what it did in signed packages.

It opens for an access document (a JWS of parking, docs/PROOFS.md) or for an instruction it fetched. The signed package with the document's number
is queued; it is sent when the lock is online, a day later if need be. Numbers it has opened for are kept in a file, so a restart forgets none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit import canonical
from citykit.package import (
    ENTRY,
    EXIT,
    NO_PREVIOUS,
    UNLOCK,
    Package,
    PackageError,
    Reading,
    Signer,
    package_hash,
    parse_package,
    sign_package,
    verify_package,
    verify_signature,
)

LIFETIME_S = 120
"""How long an instruction is good: as CITY_PARKING_LOCK_LIFETIME_S says."""
SKEW_S = 60
QUEUE_MAX, REQUEST_MAX = 10_000, 256
"""Packages that may wait; that one request takes."""
KEPT_S = 86_400
"""How long a number is remembered after its document is good for nothing."""
REASONS = (
    "malformed", "unknown-key", "bad-signature", "foreign-lock", "wrong-act", "not-yet", "expired", "replayed", "broken-chain",
    "memory-full",
)  # fmt: skip
DOCUMENT_MAX = 4_096
_MEASURES = {"entry": ENTRY, "exit": EXIT}
_HEADER = {"alg", "kid", "typ"}
_CLAIMS = {"iss", "aud", "sub", "jti", "act", "lot", "bay", "iat", "nbf", "exp"}


@dataclass(frozen=True, slots=True)
class Opened:
    """The barrier is up. `act` is `entry` or `exit`."""

    number: int
    act: str
    opens: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """The barrier stays down. `reason` is one word of REASONS."""

    reason: str
    opens: bool = False


class _No(Exception):
    """Why not, as one of REASONS."""


class Lock:
    """One lock.

    Args:
        keys: kid -> public key of parking (65 bytes), from a list that came with the lock or from ListAccessKeys.
        memory: the file that outlives a restart.
        offset_s: how far its clock is off.
        lifetime_s: how long an instruction is good.
    """

    def __init__(
        self,
        id: str,
        signer: Signer,
        keys: Mapping[str, bytes],
        memory: Path,
        offset_s: int = 0,
        lifetime_s: int = LIFETIME_S,
    ) -> None:
        self.id = id
        self._lifetime_s = lifetime_s
        self.offset_s = offset_s
        self._signer = signer
        self._keys = dict(keys)
        self._memory = memory
        self._used: dict[int, int] = {}
        self._queue: list[bytes] = []
        self._sequence, self._previous = 0, NO_PREVIOUS
        self._instruction, self._instructed = 0, NO_PREVIOUS
        self._load()

    @property
    def last_instruction(self) -> int:
        """Sequence number of the last instruction it has seen: what ListInstructions is asked after."""
        return self._instruction

    def learn(self, keys: Mapping[str, bytes]) -> None:
        """A newer key list."""
        self._keys = dict(keys)

    def decide(self, document: str, now: int) -> Opened | Refused:
        """Whether it opens for an access document. Needs nobody; `now` is unix seconds of the right clock."""
        time = now + self.offset_s
        try:
            claims = self._read(document)
            self._require_now(claims, time)
            return self._open(int(claims["jti"]), claims["act"], time, claims["exp"])
        except _No as reason:
            return Refused(str(reason))

    def obey(self, instruction: bytes, now: int, act: str) -> Opened | Refused:
        """Whether it opens for an instruction; `act` says on which side of the barrier the car stands."""
        time = now + self.offset_s
        try:
            package = self._instructed_by(instruction)
            if not package.times[-1] - SKEW_S <= time <= package.times[-1] + self._lifetime_s:
                raise _No("expired")
            return self._open(package.values[-1], act, time, time)
        except _No as reason:
            return Refused(str(reason))

    def waiting(self) -> list[bytes]:
        """Packages that were not sent, oldest first, as many as one request takes."""
        return self._queue[:REQUEST_MAX]

    def sent(self, count: int) -> None:
        """The first `count` of them were acknowledged."""
        self._queue = self._queue[count:]
        self._save()

    def _require_now(self, claims: dict[str, Any], time: int) -> None:
        if claims["aud"] != self.id:
            raise _No("foreign-lock")
        if time < claims["nbf"]:
            raise _No("not-yet")
        if time > claims["exp"]:
            raise _No("expired")

    def _instructed_by(self, instruction: bytes) -> Package:
        """The instruction, if it is parking's next one to this lock; it is never taken again."""
        try:
            package = parse_package(instruction)
        except PackageError:
            raise _No("malformed") from None
        if package.device != f"parking-{self.id}" or package.measure is not UNLOCK:
            raise _No("foreign-lock")
        if not any(verify_package(package, key, "ES256") for key in self._keys.values()):
            raise _No("bad-signature")
        if package.sequence <= self._instruction:
            raise _No("replayed")
        if package.sequence != self._instruction + 1 or package.previous != self._instructed:
            raise _No("broken-chain")
        self._instruction, self._instructed = package.sequence, package.hash
        self._save()
        return package

    def _open(self, number: int, act: str, time: int, good_until: int) -> Opened:
        if act not in _MEASURES:
            raise _No("wrong-act")
        if number in self._used:
            raise _No("replayed")
        if len(self._queue) >= QUEUE_MAX:
            raise _No("memory-full")
        self._used = {old: until for old, until in self._used.items() if until >= time}
        self._used[number] = good_until + KEPT_S
        self._sequence += 1
        package = sign_package(
            self._signer, self.id, self._sequence, self._previous, [Reading(time, number)], _MEASURES[act]
        )
        self._previous = package_hash(package)
        self._queue.append(package)
        self._save()
        return Opened(number, act)

    def _read(self, document: str) -> dict[str, Any]:
        """The claims of a document that one of the keys signed."""
        parts = document.split(".")
        if len(document) > DOCUMENT_MAX or len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
            raise _No("malformed")
        try:
            header, claims = (canonical.decode(_bytes(part)) for part in parts[:2])
            signature = _bytes(parts[2])
        except ValueError:
            raise _No("malformed") from None
        if not _is_header(header) or not _are_claims(claims):
            raise _No("malformed")
        key = self._keys.get(header["kid"])
        if key is None:
            raise _No("unknown-key")
        if not verify_signature(key, "ES256", f"{parts[0]}.{parts[1]}".encode(), signature):
            raise _No("bad-signature")
        return dict(claims)

    def _load(self) -> None:
        if self._memory.exists():
            kept = json.loads(self._memory.read_text(encoding="utf-8"))
            self._used = {int(number): until for number, until in kept["used"].items()}
            self._queue = [base64.b64decode(text) for text in kept["queue"]]
            self._sequence, self._previous = kept["sequence"], bytes.fromhex(kept["previous"])
            self._instruction, self._instructed = kept["instruction"], bytes.fromhex(kept["instructed"])

    def _save(self) -> None:
        kept = {
            "used": self._used, "queue": [base64.b64encode(raw).decode() for raw in self._queue],
            "sequence": self._sequence, "previous": self._previous.hex(),
            "instruction": self._instruction, "instructed": self._instructed.hex(),
        }  # fmt: skip
        part = self._memory.with_suffix(".part")
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(self._memory)


def _is_header(header: Any) -> bool:
    return (
        isinstance(header, dict)
        and set(header) == _HEADER
        and isinstance(header["kid"], str)
        and (header["alg"], header["typ"]) == ("ES256", "city-access+jwt")
    )


def _are_claims(claims: Any) -> bool:
    if not isinstance(claims, dict) or set(claims) != _CLAIMS or not isinstance(claims["jti"], str):
        return False
    times = all(isinstance(claims[name], int) for name in ("iat", "nbf", "exp"))
    return times and claims["jti"].isascii() and claims["jti"].isdigit()


def _bytes(text: str) -> bytes:
    """Strict base64url without padding: one text for each value."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise ValueError(text)
    return data
