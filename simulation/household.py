"""The measured home: one power value a minute over four years, made half-hour energy. Streamed once, then kept compactly."""

from __future__ import annotations

import lzma
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from citykit.errors import EnvironmentFault
from simulation.archives import Report

HALF_HOUR = timedelta(minutes=30)
MISSING = -1
_FIRST = datetime(2006, 12, 16, 17, 0)
_MINUTES = 30
_ROWS = 2_075_260
_REPORT_EVERY = 200_000
_COLUMNS = 9
_BLANK = (b"", b"?")


@dataclass(frozen=True)
class HalfHours:
    """Energy per half hour by local clock reading, Wh; MISSING where a minute is blank.

    Attributes:
        values: from 2006-12-16 17:00 on.
    """

    values: array[int]

    def at(self, clock_reading: datetime) -> int | None:
        """Wh of the half hour that starts at a naive local clock reading; None where missing or outside."""
        number = (clock_reading - _FIRST) // HALF_HOUR
        if not 0 <= number < len(self.values) or self.values[number] == MISSING:
            return None
        return self.values[number]

    @property
    def end(self) -> datetime:
        return _FIRST + len(self.values) * HALF_HOUR

    def rows(self) -> Iterator[tuple[str, str, int]]:
        """(series, clock reading, Wh) of each half hour there is."""
        for number, value in enumerate(self.values):
            if value != MISSING:
                yield "household", (_FIRST + number * HALF_HOUR).isoformat(sep=" "), value


def half_hours(source: Path, report: Report) -> HalfHours:
    """The series of a `minute_household_power.csv.xz`; kept beside it after the first pass.

    Raises:
        EnvironmentFault: the file is not of that form.
    """
    kept = source.with_name("household-half-hours.bin")
    if kept.exists() and kept.stat().st_size and kept.stat().st_mtime >= source.stat().st_mtime:
        values = array("i")
        values.frombytes(kept.read_bytes())
        return HalfHours(values)
    values = _read(source, report)
    unfinished = kept.with_suffix(".part")
    unfinished.write_bytes(values.tobytes())
    unfinished.replace(kept)
    return HalfHours(values)


def _read(source: Path, report: Report) -> array[int]:
    days: dict[bytes, int] = {}
    watts: dict[int, int] = {}
    minutes: dict[int, int] = {}
    with lzma.open(source) as file:
        if not next(file).startswith(b"Date,Time,Global_active_power"):
            raise EnvironmentFault(f"{source.name} has other columns than expected; pull it again")
        for number, line in enumerate(file):
            if number % _REPORT_EVERY == 0:
                report("half hours of the measured home", number, _ROWS)
            parts = line.split(b",")
            if len(parts) != _COLUMNS or parts[2] in _BLANK:
                continue
            day = days.get(parts[0])
            if day is None:
                day = days[parts[0]] = _half_hours_to(parts[0])
            slot = day + int(parts[1][:2]) * 2 + (parts[1][3:5] >= b"30")
            watts[slot] = watts.get(slot, 0) + round(float(parts[2]) * 1000)
            minutes[slot] = minutes.get(slot, 0) + 1
    report("half hours of the measured home", _ROWS, _ROWS)
    last = max(watts, default=-1)
    return array("i", (_energy(watts.get(n, 0), minutes.get(n, 0)) for n in range(last + 1)))


def _half_hours_to(day: bytes) -> int:
    """Half hours from the first to midnight of a day written DD/MM/YYYY."""
    return (datetime.strptime(day.decode(), "%d/%m/%Y") - _FIRST) // HALF_HOUR


def _energy(watt_minutes: int, minutes: int) -> int:
    """Wh, rounded half up; missing unless every minute is there."""
    return (watt_minutes + 30) // 60 if minutes == _MINUTES else MISSING
