"""Certificates that are replaced while the process runs: of members and of TLS. A look at the files now and then; no restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from citykit.errors import SettingsError

T = TypeVar("T")
_LOOK_S = 1.0
"""Seconds between two looks."""


class Renewed(Generic[T]):
    """A value read from files; read again when one of them was replaced.

    Args:
        read: reads the value; where it fails, as between the replacing of a certificate and of its key, the old one stays.

    Raises:
        SettingsError: the value cannot be read the first time.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T], now: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._read = read
        self._now = now
        self._looked = now()
        self._seen = self._stamp()
        self._value = read()

    def value(self) -> T:
        """The value; the same object as long as the files are the same."""
        now = self._now()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            self._value = self._read()
        except SettingsError:
            return  # half replaced: the next look sees the other half
        self._seen = stamp

    def _stamp(self) -> list[tuple[int, int, int]]:
        return [_stamp_of(path) for path in self._files]


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
