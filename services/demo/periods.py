"""The months of the demo's contracts (from the 4th to the 3rd): which have ended, and when the next does. Used by `city.py`."""

from __future__ import annotations

from datetime import date, datetime

from services.demo.bootstrap import CONTRACT_START
from simulation.neighbourhood import ZONE

GRACE_S = 3 * 86_400
"""How long after a month's end its bills are made: late readings still count."""


def closed_periods(now: float) -> list[tuple[date, date]]:
    """The months that have ended, with a few days for late readings."""
    periods: list[tuple[date, date]] = []
    start = date.fromisoformat(CONTRACT_START)
    while True:
        end = _next_month(start)
        if _close_of(end) > now:
            return periods
        periods.append((start, end))
        start = end


def next_close(now: float) -> float:
    """When the running month ends."""
    periods = closed_periods(now)
    end = _next_month(periods[-1][1] if periods else date.fromisoformat(CONTRACT_START))
    return _close_of(end)


def _close_of(end: date) -> float:
    return datetime(end.year, end.month, end.day, tzinfo=ZONE).timestamp() + GRACE_S


def _next_month(day: date) -> date:
    return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
