"""Where a meter's true energy comes from: the measured home, or a simulated one. Pure functions of seed, home and slot; integers in Wh."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from zoneinfo import ZoneInfo

from simulation.calendar import Shift, clock_reading
from simulation.household import HalfHours

Energy = Callable[[int], int | None]
"""Slot -> Wh, or None where the source has no value."""

# Share of a day's energy in each half hour, per mille, of a working day and of a day off.
_WORKDAY = (
    11, 10, 9, 9, 8, 8, 8, 8, 9, 10, 13, 17, 24, 30, 32, 29, 24, 20, 18, 17, 17, 17, 18, 19,
    20, 19, 18, 17, 17, 18, 20, 24, 30, 37, 43, 46, 46, 44, 41, 38, 35, 32, 29, 26, 23, 19, 16, 13,
)  # fmt: skip
_DAY_OFF = (
    13, 12, 11, 10, 9, 9, 8, 8, 8, 8, 9, 11, 14, 18, 22, 26, 29, 31, 31, 30, 29, 28, 29, 31,
    32, 30, 28, 26, 25, 25, 26, 28, 31, 35, 38, 40, 39, 37, 35, 33, 31, 29, 27, 25, 22, 20, 17, 15,
)  # fmt: skip
_SATURDAY = 5
_DAILY_WH_LOW, _DAILY_WH_SPAN = 4_500, 9_000


def measured(series: HalfHours, shift: Shift, zone: ZoneInfo) -> Energy:
    """The measured home on the city's clock."""
    return lambda slot: series.at(shift.source_reading(slot, zone)[0])


def simulated(seed: int, home: str, zone: ZoneInfo) -> Energy:
    """A home whose day has a shape, a size, an hour of its own, weather and chance."""
    daily_wh = _DAILY_WH_LOW + _chance(seed, home, "size", _DAILY_WH_SPAN)
    lag = _chance(seed, home, "lag", 5) - 2

    def energy(slot: int) -> int:
        reading = clock_reading(slot, zone)
        shape = _DAY_OFF if reading.weekday() >= _SATURDAY else _WORKDAY
        share = shape[(reading.hour * 2 + reading.minute // 30 - lag) % 48]
        weather = 900 + _chance(seed, "weather", str(slot // 86_400), 201)
        chance = 700 + _chance(seed, home, str(slot), 601)
        standby = 12 + _chance(seed, home, f"standby{slot}", 9)
        return standby + daily_wh * share * weather * chance // (sum(shape) * 1_000_000)

    return energy


def _chance(seed: int, *what: str | int) -> int:
    """A number below the last argument, the same for the same arguments."""
    *name, below = what
    digest = blake2b(f"{seed}/{'/'.join(map(str, name))}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % int(below)
