"""City time and source time: each source is shifted by whole weeks, so that weekday and local hour stay.

A slot of the city (UTC) is looked up by its local clock reading: the hour that a clock change repeats reads the source hour twice,
the hour that it skips is never asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

CONTRACTS_BEGIN = date(2016, 10, 4)
DEMO_BEGINS = date(2016, 11, 8)
SLOT_S = 1_800
_YEAR_WEEKS = 52


@dataclass(frozen=True)
class Shift:
    """From city time to a source's clock.

    Attributes:
        weeks: how far the source lies back.
        ends: the source's end; beyond it, its weeks repeat, a year of them back.
    """

    weeks: int
    ends: datetime

    def source_reading(self, slot: int, zone: ZoneInfo) -> tuple[datetime, bool]:
        """The source's clock reading for a slot, and whether it is a repeated week."""
        reading = clock_reading(slot, zone) - timedelta(weeks=self.weeks)
        repeated = False
        while reading >= self.ends:
            reading -= timedelta(weeks=_YEAR_WEEKS)
            repeated = True
        return reading, repeated


def weeks_from(source_year: int) -> int:
    """Whole weeks from the start of October in `source_year` to the beginning of the demo's contracts."""
    days = (CONTRACTS_BEGIN - CONTRACTS_BEGIN.replace(year=source_year)).days
    return round(days / 7)


def clock_reading(slot: int, zone: ZoneInfo) -> datetime:
    """What a wall clock of the city shows at a moment (naive)."""
    return datetime.fromtimestamp(slot, zone).replace(tzinfo=None)


def midnight(day: date, zone: ZoneInfo) -> int:
    """Unix seconds of local midnight."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def slots(start: int, end: int) -> range:
    """Starts of the slots in [start, end)."""
    return range(-(-start // SLOT_S) * SLOT_S, end, SLOT_S)


def utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
