"""Time grids: slots of a fixed length, counted from 1970-01-01T00:00 of the series' own clock."""

from __future__ import annotations

import re
from dataclasses import dataclass

DAY_S = 86_400
WEEK_S = 7 * DAY_S
_UNITS = {"s": 1, "min": 60, "h": 3_600, "d": DAY_S}
_FREQUENCY = re.compile(r"(\d*)(s|min|h|d)", re.IGNORECASE)


class GridError(ValueError):
    """A frequency or a season that makes no grid; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Slots of `freq_s` seconds; `season` of them make the pattern that repeats (a week).

    Attributes:
        day: slots of one day; 1 where a slot is a day or longer.
    """

    freq_s: int
    season: int

    @property
    def day(self) -> int:
        return max(1, DAY_S // self.freq_s)

    def slot(self, seconds: float) -> int:
        """The slot whose time is nearest to `seconds` of the series' clock."""
        return int((seconds + self.freq_s / 2) // self.freq_s)

    def time(self, slot: int) -> int:
        """Seconds of the series' clock at which a slot stands."""
        return slot * self.freq_s


def frequency_s(text: str) -> int:
    """`30min`, `1h`, `h`, `1d` in seconds.

    Raises:
        GridError: not a number and a unit, or not between a second and a week.
    """
    found = _FREQUENCY.fullmatch(text.strip())
    seconds = int(found[1] or 1) * _UNITS[found[2].lower()] if found else 0
    if not 1 <= seconds <= WEEK_S:
        raise GridError(f"{text!r} is no frequency; write a number and s, min, h or d: 30min, 1h, 1d")
    return seconds


def week_grid(freq_s: int) -> Grid:
    """The grid whose season is the week."""
    return Grid(freq_s, max(1, WEEK_S // freq_s))
