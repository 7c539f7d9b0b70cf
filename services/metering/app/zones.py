"""Offsets of a zone from the time zone database, and local periods; handed to the pure domain. Called by the other use cases."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from citykit.errors import InvalidArgument
from services.metering.domain.slots import DAY_S, Offsets, Period

_FIRST_YEAR, _LAST_YEAR = 2000, 2100


@lru_cache(maxsize=64)
def zone_offsets(zone: str) -> Offsets:
    """Offsets from 2000 to 2100.

    Raises:
        InvalidArgument: no such IANA zone.
    """
    rules = _zone(zone)
    start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (_FIRST_YEAR, _LAST_YEAR))
    entries = [(start, _offset(rules, start))]
    for day in range(start, end, DAY_S):
        after = _offset(rules, day + DAY_S)
        if after != entries[-1][1]:
            entries.append((_change(rules, day, day + DAY_S), after))
    return Offsets(tuple(entries))


def local_midnight(zone: str, day: date) -> int:
    """Unix seconds at which the local day begins."""
    return int(datetime.combine(day, time(), _zone(zone)).timestamp())


def local_date(zone: str, seconds: int) -> date:
    """The local calendar date at a unix time."""
    return datetime.fromtimestamp(seconds, _zone(zone)).date()


def period_of(zone: str, from_day: date, to_day: date) -> Period:
    """The period of whole local days [from_day, to_day)."""
    start, end = local_midnight(zone, from_day), local_midnight(zone, to_day)
    return Period(from_day, to_day, start, end, zone, zone_offsets(zone).clipped(start, end))


def year_offsets(zone: str, seconds: int) -> Offsets:
    """The offsets of the local calendar year around a unix time, the day before it included."""
    year = local_date(zone, seconds).year
    start = local_midnight(zone, date(year, 1, 1) - timedelta(days=1))
    return zone_offsets(zone).clipped(start, local_midnight(zone, date(year + 1, 1, 1)))


def _zone(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(
            f"{zone!r} is no zone of the IANA database; give one like Europe/London", field="zone"
        ) from None


def _offset(rules: ZoneInfo, seconds: int) -> int:
    offset = datetime.fromtimestamp(seconds, rules).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _change(rules: ZoneInfo, low: int, high: int) -> int:
    """The first second in (low, high] with the offset of `high`."""
    target = _offset(rules, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(rules, middle) == target else (middle, high)
    return high
