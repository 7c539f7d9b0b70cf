"""Flood guard: one token bucket a device, in readings and machine time. Called by `gate`."""

from __future__ import annotations

import time
from collections.abc import Callable

from citykit.onramp.chain import Refusal

DEFERRED = "device-rate"
DEVICES_MAX = 100_000


class Buckets:
    """Only signed packages take tokens, so that nobody can drain another's bucket with forgeries."""

    def __init__(self, rate_per_s: int, burst: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._monotonic = monotonic
        self._levels: dict[str, tuple[float, float]] = {}

    def busy(self, device: str) -> Refusal | None:
        """A refusal when the bucket is empty: cheap, before anything is verified."""
        level = self._level(device)
        return None if level >= 1 else self._refusal(1 - level)

    def take(self, device: str, readings: int) -> Refusal | None:
        """Takes tokens, or refuses and takes none. A package larger than the burst passes when the bucket is full."""
        level = self._level(device)
        wanted = min(readings, self._burst)
        if level < wanted:
            return self._refusal(wanted - level)
        if len(self._levels) >= DEVICES_MAX:
            self._levels.clear()
        self._levels[device] = (level - readings, self._monotonic())
        return None

    def _level(self, device: str) -> float:
        found = self._levels.get(device)
        if found is None:
            return float(self._burst)
        return min(float(self._burst), found[0] + (self._monotonic() - found[1]) * self._rate)

    def _refusal(self, lacking: float) -> Refusal:
        wait_ms = int(lacking * 1_000 / self._rate) + 1
        return Refusal(
            DEFERRED,
            f"the device sends more than {self._rate} readings a second; nothing was looked at. Send again after {wait_ms} ms",
            wait_ms,
        )
