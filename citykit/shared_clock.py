"""A demo's replay clock, kept in a small file: it survives SIGKILL, and other processes of the machine can follow it.

It stands still when its keeper is gone: nobody goes on for longer than `LEASE_S` after its last sign of life. So a keeper that starts again
knows which city time anybody can have seen, and city time never goes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from citykit.clock import ReplayClock
from citykit.errors import EnvironmentFault

BEAT_S = 0.25
"""How often the keeper gives a sign of life."""
LEASE_S = 2.0
_POLL_S = 0.1
_BODY = struct.Struct("<ddd")
_FORM = struct.Struct("<dddI")
_TRIES = 1_000


@dataclass(frozen=True)
class Setting:
    """City time `at` (unix seconds) at the machine's monotonic `since`, from there `speed` city seconds a second."""

    at: float
    since: float
    speed: float


class KeptClock(ReplayClock):
    """The keeper's. `keeping` must be around what follows it."""

    def __init__(self, path: Path, start: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = path
        self._written = monotonic()
        super().__init__(max(start, seen_at_most(path)), monotonic)
        self._write()

    def now(self) -> float:
        """Tells no time that a keeper started after us could go back behind, even where the beat is late."""
        if self._monotonic() - self._written > LEASE_S / 2:
            self._write()
        return super().now()

    def run(self, speed: float) -> None:
        super().run(speed)
        self._write()

    def advance_to(self, city_time: float) -> None:
        super().advance_to(city_time)
        self._write()

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Gives signs of life; at the end the clock stands, so that the next start begins there."""
        beating = asyncio.create_task(self._beat(), name="clock")
        try:
            yield
        finally:
            beating.cancel()
            self.run(0.0)

    async def _beat(self) -> None:
        while True:
            self._write()
            await asyncio.sleep(BEAT_S)

    def _write(self) -> None:
        self._written = self._monotonic()
        body = _BODY.pack(super().now(), self._written, self.speed)
        if not self._file.exists():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part = self._file.with_suffix(".part")
            part.write_bytes(bytes(_FORM.size))
            part.replace(self._file)
        with self._file.open("r+b") as file:  # in place: followers have it mapped
            file.write(body + struct.pack("<I", zlib.crc32(body)))


class FollowedClock:
    """Another process's replay clock; see `citykit.clock.Clock`.

    Raises:
        EnvironmentFault: nobody keeps the clock.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), _FORM.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(
                f"the demo's clock {path} cannot be read; `city run --backbone real` keeps it."
                " Outside a demo set CITY_GENERAL_MODE=cluster"
            ) from error

    def now(self) -> float:
        found = self._setting()
        return found.at + min(max(0.0, self._monotonic() - found.since), LEASE_S) * found.speed

    async def sleep_until(self, city_time: float) -> None:
        while (left := city_time - self.now()) > 0:
            speed = self._setting().speed
            await asyncio.sleep(min(left / speed, 1.0) if speed else _POLL_S)

    def _setting(self) -> Setting:
        """Read again while the keeper is in the middle of writing."""
        for _ in range(_TRIES):
            found = _read(self._map[:])
            if found is not None:
                return found
        raise EnvironmentFault("the demo's clock file is damaged; stop the city, delete the file, start again")


def seen_at_most(path: Path) -> float:
    """The latest city time anybody can have seen; 0 without a clock."""
    try:
        found = _read(path.read_bytes())
    except OSError:
        return 0.0
    return found.at + LEASE_S * found.speed if found else 0.0


def _read(content: bytes) -> Setting | None:
    if len(content) != _FORM.size:
        return None
    *values, check = _FORM.unpack(content)
    return Setting(*values) if zlib.crc32(_BODY.pack(*values)) == check else None
