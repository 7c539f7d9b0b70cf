"""Lots and what is known of them now."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.parking.domain.errors import LotInvalid

COUNTED, STALE, DISPUTED, UNKNOWN = "counted", "stale", "disputed", "unknown"
BAYS_MAX = 5_000
SENSORS_MAX = 50
_ID = re.compile(r"[a-z0-9-]{1,64}")
_E7 = 10_000_000
_WEEKDAYS, _DAY_MINUTES = 7, 1_440
_CAPACITY_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Lot:
    """A car park.

    Attributes:
        latitude_e7, longitude_e7: WGS 84, ten-millionths of a degree.
        open_minutes: (weekday from Monday 0, from minute, to minute), local.
        tariff: id of the tariff whose newest version in force prices it.
        bays: those that can be reserved.
        sensors: devices that count the lot; lock: the device at the reservable bays' barrier, empty for none.
    """

    id: str
    name: str
    operator: str
    capacity: int
    latitude_e7: int
    longitude_e7: int
    open_minutes: tuple[tuple[int, int, int], ...]
    tariff: str
    bays: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()
    lock: str = ""


@dataclass(frozen=True, slots=True)
class LotState:
    """The newest count of a lot; `occupied` None where nothing is known.

    Attributes:
        time: unix seconds of the count; 0 where there is none.
        confidence_pct: how far the count is believed.
    """

    lot: str
    time: int
    occupied: int | None
    capacity: int
    quality: str
    confidence_pct: int


@dataclass(frozen=True, slots=True)
class Count:
    """What one sensor said last."""

    device: str
    time: int
    occupied: int


def require_lot(lot: Lot) -> Lot:
    """The lot, if it can be one.

    Raises:
        LotInvalid: naming the field.
    """
    if not _ID.fullmatch(lot.id):
        raise LotInvalid("id", "1 to 64 of a-z, 0-9 and hyphen")
    if not 0 < lot.capacity <= _CAPACITY_MAX:
        raise LotInvalid("capacity", f"1 to {_CAPACITY_MAX}")
    if abs(lot.latitude_e7) > 90 * _E7 or abs(lot.longitude_e7) > 180 * _E7:
        raise LotInvalid("latitude_e7, longitude_e7", "ten-millionths of a degree, WGS 84")
    if len(lot.bays) > min(BAYS_MAX, lot.capacity) or len(set(lot.bays)) != len(lot.bays):
        raise LotInvalid("bays", f"each once, at most {BAYS_MAX} and no more than the capacity")
    if not all(_ID.fullmatch(bay) for bay in lot.bays):
        raise LotInvalid("bays", "each of 1 to 64 of a-z, 0-9 and hyphen")
    if len(lot.sensors) > SENSORS_MAX:
        raise LotInvalid("sensors", f"at most {SENSORS_MAX}")
    if not all(0 <= d < _WEEKDAYS and 0 <= a < b <= _DAY_MINUTES for d, a, b in lot.open_minutes):
        raise LotInvalid("open_hours", "weekday 0 to 6, from_minute below to_minute, up to 1440")
    return lot


def is_open(lot: Lot, weekday: int, minute: int) -> bool:
    """Whether the lot is open at a local minute."""
    return any(day == weekday and start <= minute < end for day, start, end in lot.open_minutes)


_AGREE_PCT = 5
_FRESH_PCT, _ALONE_PCT, _DISPUTED_PCT, _STALE_PCT = 99, 90, 50, 20


def fused(lot: Lot, counts: list[Count], now: int, silence_s: int) -> LotState:
    """The state several sensors agree on: the median of the fresh ones; confidence from agreement and silence.

    Args:
        counts: each sensor's newest, any age.
        silence_s: age after which a sensor's word is no longer trusted.
    """
    fresh = sorted((one for one in counts if now - one.time <= silence_s), key=lambda one: one.occupied)
    if not fresh:
        newest = max(counts, key=lambda one: one.time, default=None)
        if newest is None or now - newest.time > 4 * silence_s:
            return LotState(lot.id, newest.time if newest else 0, None, lot.capacity, UNKNOWN, 0)
        return LotState(lot.id, newest.time, newest.occupied, lot.capacity, STALE, _STALE_PCT)
    middle = fresh[len(fresh) // 2]
    spread = fresh[-1].occupied - fresh[0].occupied
    if spread * 100 > _AGREE_PCT * lot.capacity:
        return LotState(lot.id, middle.time, middle.occupied, lot.capacity, DISPUTED, _DISPUTED_PCT)
    sure = _FRESH_PCT if len(fresh) > 1 else _ALONE_PCT
    age_share = max(0, now - middle.time) * 100 // max(1, silence_s)
    return LotState(lot.id, middle.time, middle.occupied, lot.capacity, COUNTED, max(_STALE_PCT, sure - age_share // 2))
