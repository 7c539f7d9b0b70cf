"""Slots, local days and billing periods. Zone rules come in as a list of offsets, so that this stays pure and a verifier can repeat it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

from services.metering.domain.errors import RuleBroken

SLOT_S = 1_800
DAY_S = 86_400
WEEK_S = 7 * DAY_S
SLOTS_PER_WEEK = WEEK_S // SLOT_S
PERIOD_DAYS_MAX = 400
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0.


@dataclass(frozen=True, slots=True)
class Offsets:
    """Offsets from UTC: (from unix seconds, seconds east). The first entry also holds before its time."""

    entries: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.entries]
        if not starts or any(a >= b for a, b in pairwise(starts)):
            raise RuleBroken("offsets must be at least one, in growing order of time", field="offsets")

    def at(self, time: int) -> int:
        """Seconds east of UTC at `time`."""
        if len(self.entries) == 1:
            return self.entries[0][1]
        return self.entries[max(0, bisect_right(self.entries, (time, 1 << 40)) - 1)][1]

    def local(self, time: int) -> int:
        """Local wall time as if it were UTC, seconds."""
        return time + self.at(time)

    def clipped(self, from_time: int, to_time: int) -> Offsets:
        """The entries that matter in [from_time, to_time), the first one at from_time."""
        later = tuple(entry for entry in self.entries if from_time < entry[0] < to_time)
        return Offsets(((from_time, self.at(from_time)), *later))


@dataclass(frozen=True, slots=True)
class Period:
    """Whole local days. `to_day` is exclusive; the times are the local midnights in unix seconds."""

    from_day: date
    to_day: date
    from_time: int
    to_time: int
    zone: str
    offsets: Offsets

    def __post_init__(self) -> None:
        if not 0 < self.days <= PERIOD_DAYS_MAX:
            raise RuleBroken(f"a period holds 1 to {PERIOD_DAYS_MAX} days, to_date is exclusive", field="to_date")
        if self.from_time % SLOT_S or self.to_time % SLOT_S or self.from_time >= self.to_time:
            raise RuleBroken("a period begins and ends on a half hour", field="from_date")

    @property
    def days(self) -> int:
        """Local days, whatever their length in hours."""
        return (self.to_day - self.from_day).days

    @property
    def slots(self) -> range:
        """Starts of all slots of the period."""
        return range(self.from_time, self.to_time, SLOT_S)


def parse_day(text: str, field: str) -> date:
    """An ISO 8601 calendar date, `2016-10-04`."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise RuleBroken(f"{text!r} is no date; write it as 2016-10-04", field=field) from None
    if text != day.isoformat():
        raise RuleBroken(f"{text!r} is not in the form 2016-10-04", field=field)
    return day


def weekday_minute(local: int) -> tuple[int, int]:
    """Weekday (0 is Monday) and minute of the day of a local time."""
    days, second = divmod(local, DAY_S)
    return (days + _EPOCH_WEEKDAY) % 7, second // 60


def week_slot(local: int) -> int:
    """Which of the 336 half hours of the local week, 0 is Monday 00:00."""
    return (local + _EPOCH_WEEKDAY * DAY_S) % WEEK_S // SLOT_S


def local_day(local: int) -> date:
    """The calendar date of a local time."""
    return date(1970, 1, 1) + timedelta(days=local // DAY_S)
