"""City time: one clock for all services. Real outside a demo; in a demo it starts at a stated moment and runs at a speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where every service takes the time from."""

    def now(self) -> float:
        """City time, unix seconds."""

    async def sleep_until(self, city_time: float) -> None:
        """Returns once city time has reached `city_time` (unix seconds)."""


def unix(clock: Clock) -> int:
    """Whole unix seconds of city time."""
    return int(clock.now())


def iso(seconds: float) -> str:
    """`2016-11-08T00:00:00Z`, whole seconds."""
    return _iso(int(seconds))


@lru_cache(maxsize=1_024)  # many facts share a second
def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    async def sleep_until(self, city_time: float) -> None:
        while (left := city_time - self.now()) > 0:
            await asyncio.sleep(min(left, 60.0))


class ReplayClock:
    """City time of a demo: stands still at `start` until `run`, then goes `speed` times as fast as the machine's clock.

    `speed` is city seconds per second. `advance_to` moves it while it stands still (the backfill does).
    """

    def __init__(self, start: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at = start
        self._since = monotonic()
        self._speed = 0.0

    @property
    def speed(self) -> float:
        return self._speed

    def now(self) -> float:
        return self._at + (self._monotonic() - self._since) * self._speed

    def run(self, speed: float) -> None:
        """Go on from the present city time at `speed`."""
        self._at, self._since, self._speed = self.now(), self._monotonic(), speed

    def advance_to(self, city_time: float) -> None:
        """Moves forward to `city_time`; never back."""
        self._at, self._since = max(self.now(), city_time), self._monotonic()

    async def sleep_until(self, city_time: float) -> None:
        while (left := city_time - self.now()) > 0:
            await asyncio.sleep(min(left / self._speed, 1.0) if self._speed else 0.1)
