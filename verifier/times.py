"""Times and weeks: UTC text, local clocks, and which band of a tariff a minute belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from verifier.canonical import Failure, fields

DAY_MINUTES, WEEK_DAYS = 1_440, 7
TIME_MAX = 253_402_300_799
"""The last second of the year 9999, after which there is no UTC text."""
_FORM = "%Y-%m-%dT%H:%M:%SZ"


def seconds_of(text: Any, where: str) -> int:
    """Unix seconds of UTC text in its one form, `2016-11-08T00:00:00Z`."""
    try:
        found = datetime.strptime(text, _FORM).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        raise Failure(f"{where} is no time in UTC ({text!r})") from None
    if found.strftime(_FORM) != text:
        raise Failure(f"{where} is not in the one form of a time ({text!r})")
    return int(found.timestamp())


def text_of(time: int) -> str:
    """UTC text of unix seconds, for messages."""
    return datetime.fromtimestamp(time, UTC).strftime(_FORM)


def day_of(text: Any, where: str) -> date:
    """The date of `2016-11-08`."""
    try:
        return date.fromisoformat(text)
    except (ValueError, TypeError):
        raise Failure(f"{where} is no date") from None


def zone_of(name: str) -> ZoneInfo:
    """The time zone; local days and bands cannot be found without it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Failure(
            f"the time zone {name} is not in this computer's database; install tzdata and check again"
        ) from None


def week_of(bands: Sequence[Any]) -> list[int]:
    """The band of each minute of the week, Monday first.

    Args:
        bands: each with its list `windows` of {days, from_minute, to_minute}.

    Raises:
        Failure: a minute is in two bands, or in none.
    """
    week = [-1] * (WEEK_DAYS * DAY_MINUTES)
    for number, band in enumerate(bands):
        for window in band["windows"]:
            for minute in _minutes(fields(window, "a window", days=list, from_minute=int, to_minute=int)):
                if week[minute] != -1:
                    raise Failure(f"the tariff puts minute {minute} of the week in two bands")
                week[minute] = number
    if -1 in week:
        raise Failure(f"the tariff puts minute {week.index(-1)} of the week in no band")
    return week


def _minutes(window: Any) -> list[int]:
    start, end = window["from_minute"], window["to_minute"]
    if (
        not 0 <= start < end <= DAY_MINUTES
        or len(window["days"]) > WEEK_DAYS
        or not all(type(day) is int and 0 <= day < WEEK_DAYS for day in window["days"])
    ):
        raise Failure("a window of the tariff is not inside a day")
    return [day * DAY_MINUTES + minute for day in window["days"] for minute in range(start, end)]
