"""Lots: what they are and when they are open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.parking.domain.errors import LotInvalid

BAYS_MAX = 5_000
SENSORS_MAX = 50
NAME_MAX = 200
OPEN_HOURS_MAX = 50
DAY_MINUTES = 1_440
ALWAYS = tuple((weekday, 0, DAY_MINUTES) for weekday in range(7))
"""Open at all hours."""
_ID = re.compile(r"[a-z0-9-]{1,64}")
_ID_ALLOWED = "1 to 64 of a-z, 0-9 and hyphen"
_E7 = 10_000_000
_CAPACITY_MAX = 100_000


OpenMinutes = tuple[tuple[int, int, int], ...]
"""(weekday from Monday 0, from minute, to minute), local."""


@dataclass(frozen=True, slots=True)
class Lot:
    """A car park.

    Attributes:
        latitude_e7, longitude_e7: WGS 84, ten-millionths of a degree.
        open_minutes: (weekday from Monday 0, from minute, to minute), local.
        tariff: id of the tariff whose newest version in force prices it.
        bays: those that can be reserved.
        sensors: devices that count the lot; lock: the device at the reservable bays' barrier, empty for none.
        bay_sensors: (device, bay) of devices that watch one bay each.
    """

    id: str
    name: str
    operator: str
    capacity: int
    latitude_e7: int
    longitude_e7: int
    open_minutes: OpenMinutes
    tariff: str
    bays: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()
    lock: str = ""
    bay_sensors: tuple[tuple[str, str], ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device of the lot."""
        return (*self.sensors, *(device for device, _ in self.bay_sensors), *([self.lock] if self.lock else []))

    @property
    def counters(self) -> int:
        """How many sources say how full the lot is: each sensor, and the bays' sensors together where every bay has one."""
        return len(self.sensors) + (len(self.bay_sensors) == self.capacity)


def require_lot(lot: Lot) -> Lot:
    """The lot, if it can be one.

    Raises:
        LotInvalid: naming the field.
    """
    if not _ID.fullmatch(lot.id):
        raise LotInvalid("id", _ID_ALLOWED)
    if not 0 < len(lot.name) <= NAME_MAX or len(lot.operator) > NAME_MAX:
        raise LotInvalid("name", f"1 to {NAME_MAX} characters, of operator at most {NAME_MAX}")
    if not 0 < lot.capacity <= _CAPACITY_MAX:
        raise LotInvalid("capacity", f"1 to {_CAPACITY_MAX}")
    if abs(lot.latitude_e7) > 90 * _E7 or abs(lot.longitude_e7) > 180 * _E7:
        raise LotInvalid("latitude_e7, longitude_e7", "ten-millionths of a degree, WGS 84")
    if not _ID.fullmatch(lot.tariff):
        raise LotInvalid("tariff", f"id of a tariff, {_ID_ALLOWED}")
    _require_bays(lot)
    _require_devices(lot)
    _require_hours(lot.open_minutes)
    return lot


def _require_bays(lot: Lot) -> None:
    if len(lot.bays) > min(BAYS_MAX, lot.capacity) or len(set(lot.bays)) != len(lot.bays):
        raise LotInvalid("bays", f"each once, at most {BAYS_MAX} and no more than the capacity")
    if not all(map(_ID.fullmatch, lot.bays)):
        raise LotInvalid("bays", f"each of {_ID_ALLOWED}")


def _require_devices(lot: Lot) -> None:
    if len(lot.sensors) > SENSORS_MAX:
        raise LotInvalid("sensors", f"at most {SENSORS_MAX}")
    watched = [bay for _, bay in lot.bay_sensors]
    if len(watched) > min(BAYS_MAX, lot.capacity) or len(set(watched)) != len(watched):
        raise LotInvalid("bay_sensors", f"one a bay, at most {BAYS_MAX} and no more than the capacity")
    if not all(map(_ID.fullmatch, watched)):
        raise LotInvalid("bay_sensors.bay", _ID_ALLOWED)
    if not all(map(_ID.fullmatch, lot.devices)) or len(set(lot.devices)) != len(lot.devices):
        raise LotInvalid("sensors, bay_sensors, lock", f"each device once, its id {_ID_ALLOWED}")


def _require_hours(hours: Sequence[tuple[int, int, int]]) -> None:
    good = all(0 <= weekday < len(ALWAYS) and 0 <= start < end <= DAY_MINUTES for weekday, start, end in hours)
    if not good or len(hours) > OPEN_HOURS_MAX:
        raise LotInvalid(
            "open_hours", f"at most {OPEN_HOURS_MAX}; weekday 0 to 6, from_minute below to_minute, up to {DAY_MINUTES}"
        )


def is_open(open_minutes: OpenMinutes, weekday: int, minute: int) -> bool:
    """Whether a lot with these hours is open at a local minute."""
    return any(day == weekday and start <= minute < end for day, start, end in open_minutes)
