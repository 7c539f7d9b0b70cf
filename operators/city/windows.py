"""When a rollout may begin: windows in local time, summer time included, and freezes. Pure; called by the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from operators.city.model import Freeze, Window

_DAYS_AHEAD = 8
"""Every window opens once a week at least."""
_DAYS_BACK = 2
"""A window of a whole day that began the day before, seen from another zone."""


def is_open(windows: Iterable[Window], now: datetime) -> bool:
    """Whether `now` is in one of the windows."""
    return any(begins <= now < ends for window in windows for begins, ends in _spans(window, now))


def next_opening(windows: Iterable[Window], now: datetime) -> tuple[datetime, str] | None:
    """When the next window opens, in its own local time, and its zone; None: there are no windows."""
    ahead = [(begins, window.zone) for window in windows for begins, _ in _spans(window, now) if begins > now]
    if not ahead:
        return None
    begins, zone = min(ahead)
    return begins.astimezone(ZoneInfo(zone)), zone


def _spans(window: Window, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """(begin, end) around `now`. The start is what clocks show; the length is time that passes, so it is the same when clocks change.

    A start that clocks skip in spring is as long after the jump as it would have been; of one they show twice in autumn, the first counts.
    """
    zone, start = ZoneInfo(window.zone), time.fromisoformat(window.start)
    today = now.astimezone(zone).date()
    for number in range(-_DAYS_BACK, _DAYS_AHEAD + 1):
        day = today + timedelta(days=number)
        if day.weekday() in window.days:
            begins = datetime.combine(day, start, zone).astimezone(UTC)
            yield begins, begins + timedelta(minutes=window.minutes)


def freeze_at(freezes: Iterable[Freeze], now: datetime) -> Freeze | None:
    """The freeze that holds now and ends last."""
    holding = [one for one in freezes if one.begins <= now < one.ends]
    return max(holding, key=lambda one: one.ends, default=None)
