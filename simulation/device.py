"""A simulated meter: a key born from the seed, readings signed and chained. The same seed gives the same packages byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from citykit.package import NO_PREVIOUS, Ed25519Signer, Es256Signer, Reading, Signer, package_hash, sign_package
from simulation.calendar import SLOT_S
from simulation.homes import Energy

BACKFILL_SLOTS = 48


def device_signer(seed: int, device: str, algorithm: str = "EdDSA") -> Signer:
    """The device's key."""
    secret = sha256(f"city.simulation.device.v1\n{seed}\n{device}".encode()).digest()
    return Es256Signer.from_seed(secret) if algorithm == "ES256" else Ed25519Signer.from_seed(secret)


@dataclass
class Device:
    """A meter.

    Attributes:
        start: its first slot.
        live_from: from here on it sends one reading a package, before it 48.
        gapless: its source has a value for every slot, so where it stands is reckoned without looking at each.
        sequence, previous: where its chain stands; `resume` sets them from what the city holds.
    """

    id: str
    signer: Signer
    energy: Energy
    start: int
    live_from: int
    gapless: bool = False
    sequence: int = 0
    previous: bytes = field(default=NO_PREVIOUS)
    _next_slot: int = 0

    def resume(self, sequence: int, previous: bytes) -> None:
        """Goes on after the package the city holds. The plan of packages is the same at every start, so counting finds the slot."""
        self.sequence, self.previous = 0, NO_PREVIOUS
        self._next_slot = self.start
        if self.gapless:
            self._next_slot = self._reckoned(sequence)
        else:
            for _ in range(sequence):
                self._next_slot = self._next_group(self._next_slot)[1]
        self.sequence, self.previous = sequence, previous if sequence else NO_PREVIOUS

    def due(self, until: int) -> Iterator[list[Reading]]:
        """The readings of each package whose slots have ended by `until`."""
        at = self._next_slot or self.start
        while True:
            group, end = self._next_group(at, until)
            if end > until:
                return
            self._next_slot = at = end
            if group:
                yield group

    def sign(self, readings: list[Reading]) -> bytes:
        """The next package of the chain."""
        self.sequence += 1
        package = sign_package(self.signer, self.id, self.sequence, self.previous, readings)
        self.previous = package_hash(package)
        return package

    def _reckoned(self, sequence: int) -> int:
        """Where package `sequence` ended."""
        group_s = BACKFILL_SLOTS * SLOT_S
        backfill = -(-(self.live_from - self.start) // group_s)
        if sequence <= backfill:
            return min(self.start + sequence * group_s, self.live_from)
        return self.live_from + (sequence - backfill) * SLOT_S

    def _next_group(self, at: int, until: int | None = None) -> tuple[list[Reading], int]:
        """The next package's readings from slot `at` on, and where they end; slots without a value are passed over."""
        while True:
            end = min(at + BACKFILL_SLOTS * SLOT_S, self.live_from) if at < self.live_from else at + SLOT_S
            values = [(slot, self.energy(slot)) for slot in range(at, end, SLOT_S)]
            group = [Reading(slot, value) for slot, value in values if value is not None]
            if group or (until is not None and end >= until):
                return group, end
            at = end
