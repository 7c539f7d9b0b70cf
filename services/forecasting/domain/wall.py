"""Slots on the city's own clock: people park and cook by it, so patterns are learnt on it and not on UTC.

When clocks go back an hour is seen twice and the later one stays; when they go forward an hour is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

SLOT_S = 1_800


@lru_cache(maxsize=65_536)
def offset_s(zone: str, hour: int) -> int:
    """Seconds east of UTC in the hour that begins at unix hour `hour`."""
    offset = datetime.fromtimestamp(hour * 3_600, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def wall_slot(zone: str, seconds: int) -> int:
    """The half hour of the local clock that holds the unix time `seconds`."""
    return (seconds + offset_s(zone, seconds // 3_600)) // SLOT_S
