"""Where a package stands in its device's chain of hashes, and what its claims must fulfil. docs/PROOFS.md, "Device package"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

START_HASH = bytes(32)

NEXT, LATE, DUPLICATE = "next", "late", "duplicate"
"""Placements that are no refusal: at or beyond the head, between known packages, or known already."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest package of a device; sequence 0 before the first."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """A stored package: its own hash and the hash of its predecessor it names."""

    hash: bytes
    previous: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a package is not taken: machine word, and what to do; with a wait it is deferred and may come again.

    `device` is set where the package's signature proved whose it is.
    """

    reason: str
    message: str
    retry_after_ms: int = 0
    device: str = ""


FIRST = Head(0, START_HASH)


def place(head: Head, known: Mapping[int, Known], sequence: int, hash_: bytes, previous: bytes) -> str | Refusal:
    """NEXT (updates the head; beyond head + 1 leaves a gap), LATE (fills a gap), DUPLICATE, or why it is refused.

    Args:
        known: stored packages by sequence; only needed up to the head, for this sequence and its two neighbours.
    """
    if sequence == head.sequence + 1:
        return NEXT if previous == head.hash else _broken(sequence, sequence - 1)
    if sequence > head.sequence:
        return NEXT
    if (same := known.get(sequence)) is not None:
        return DUPLICATE if same.hash == hash_ else _replayed(sequence)
    return _late(known, sequence, hash_, previous)


def _late(known: Mapping[int, Known], sequence: int, hash_: bytes, previous: bytes) -> str | Refusal:
    before, after = known.get(sequence - 1), known.get(sequence + 1)
    if before is not None and before.hash != previous:
        return _broken(sequence, sequence - 1)
    if sequence == 1 and previous != START_HASH:
        return _broken(sequence, 0)
    if after is not None and after.previous != hash_:
        return _broken(sequence, sequence + 1)
    return LATE


def _broken(sequence: int, neighbour: int) -> Refusal:
    return Refusal(
        "chain-broken",
        f"package {sequence} does not link to package {neighbour} that is stored: its hash of the previous package differs."
        " Ask ListChainHeads where the chain stands and sign the package anew from there",
    )


def _replayed(sequence: int) -> Refusal:
    return Refusal(
        "sequence-replayed",
        f"sequence {sequence} was used before for other content; a device never signs a sequence number twice."
        " Go on from ListChainHeads; if the device did not send both, its key is in other hands: revoke it",
    )


def split_gap(after: int, before: int, filled: int) -> list[tuple[int, int]]:
    """What is left of the gap (after, before) once the sequence between them `filled` came."""
    return [(a, b) for a, b in ((after, filled), (filled, before)) if b > a + 1]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the city knows of a device: when it began and, if revoked, the last sequence that counts."""

    from_time: int
    last_sequence: int | None


def check_claims(standing: Standing, sequence: int, first_time: int, end: int, latest: int) -> Refusal | None:
    """Refuses packages of a revoked device, and of times before the device existed or after `latest`; all in unix seconds.

    Args:
        first_time: of the first reading; end: when the last one was over.
        latest: city time and the tolerance.
    """
    if standing.last_sequence is not None and sequence > standing.last_sequence:
        return Refusal(
            "device-revoked",
            f"the device is revoked; packages after sequence {standing.last_sequence} do not count."
            " Register the device that takes its place and sign with its key",
        )
    if first_time < standing.from_time:
        return Refusal(
            "before-device",
            f"a reading at {first_time} is older than the device's registration ({standing.from_time}); check the device's clock",
        )
    if end > latest:
        return Refusal(
            "from-the-future",
            f"the last reading ends at {end}, which has not come by city time ({latest} with the tolerance);"
            " set the device's clock, and send a reading once it is over",
        )
    return None
