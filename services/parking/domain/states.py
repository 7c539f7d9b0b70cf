"""How full a lot is now, from what its sensors say: who is believed, how far, and when nothing is known. Each rule is a function.

| quality | when |
|---|---|
| counted | sensors that are heard and agree |
| stale | the newest word is older than half of the silence |
| disputed | sensors contradict each other, or the only one is stuck |
| unknown | nobody was heard within the silence |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from services.parking.domain.lots import Lot

COUNTED, STALE, DISPUTED, UNKNOWN = "counted", "stale", "disputed", "unknown"
QUALITIES = (COUNTED, STALE, DISPUTED, UNKNOWN)
BAYS = "bays"
"""Stands for all bay sensors of a lot where a sensor is named."""
HALF_HOUR_S = 1_800
DAY_S = 86_400
STUCK_S = 10_800
"""The same value for so long is looked at: three hours, six counts of the open data."""
HISTORY_DAYS = 7
_DAYS_MIN = 2
_AGREE_PCT, _MOVED_PCT, _MOVED_CARS = 5, 3, 3
_BAYS_HEARD_PCT = 95
_AGREED_PCT, _ALONE_PCT, _DISPUTED_PCT, _STALE_PCT, _STUCK_PCT = 99, 90, 50, 30, 10


@dataclass(frozen=True, slots=True)
class Count:
    """What one sensor said last.

    Attributes:
        since: since when it has said the same without a break.
        stuck: it should have moved (`is_stuck`) and is not believed.
    """

    device: str
    time: int
    occupied: int
    since: int
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class LotState:
    """How full a lot is; `occupied` None where nothing is known.

    Attributes:
        time: unix seconds of the count; 0 where there never was one.
        confidence_pct: how far the count is believed.
    """

    lot: str
    time: int
    occupied: int | None
    capacity: int
    quality: str
    confidence_pct: int

    @property
    def shown(self) -> int | None:
        """The number that may be shown and published: a disputed one is not."""
        return self.occupied if self.quality in (COUNTED, STALE) else None


def is_possible(value: int, most: int) -> bool:
    """Whether a sensor can have counted that: cars are not negative, and no more than there are bays."""
    return 0 <= value <= most


def said(before: Count | None, device: str, time: int, occupied: int, silence_s: int) -> Count:
    """A sensor's newest word. It goes on saying the same only where it was heard without a break."""
    same = before is not None and before.occupied == occupied and time - before.time <= silence_s
    since = before.since if before is not None and same else time
    return Count(device, time, occupied, since)


def is_stuck(lot: Lot, one: Count, others: Sequence[Count], history: Mapping[int, int]) -> bool:
    """A sensor that says the same for hours in which it should have moved.

    Args:
        others: the newest words of the lot's other sensors.
        history: half hour (unix seconds of its start) -> cars counted, of the days before.
    """
    full = one.occupied >= lot.capacity  # a lot that is full stays full for longer
    if one.time - one.since < STUCK_S * (2 if full else 1):
        return False
    left = any(other.since > one.since and not _agree(lot, other.occupied, one.occupied) for other in others)
    return left or usual_move(history, one.since, one.time) >= moved_cars(lot)


def usual_move(history: Mapping[int, int], since: int, until: int) -> int:
    """By how many cars the same hours of the days before moved, in the median; 0 where fewer than two days are known.

    Days are 24 hours: over a change of the clocks the hours compared are one off, which is little against three.
    """
    spreads = []
    for day in range(1, HISTORY_DAYS + 1):
        start = (since - day * DAY_S) // HALF_HOUR_S * HALF_HOUR_S
        found = [history[slot] for slot in range(start, until - day * DAY_S + 1, HALF_HOUR_S) if slot in history]
        if len(found) > 1:
            spreads.append(max(found) - min(found))
    return median_low(spreads) if len(spreads) >= _DAYS_MIN else 0


def moved_cars(lot: Lot) -> int:
    """How many cars are a move and no trembling."""
    return max(_MOVED_CARS, lot.capacity * _MOVED_PCT // 100)


def of_bays(lot: Lot, bays: Sequence[Count], now: int, silence_s: int) -> Count | None:
    """The sum of the bays' sensors as one word on the lot; None unless every bay has one and nearly all were heard.

    The few that are silent count as the others do on average.
    """
    heard = [one for one in bays if now - one.time <= silence_s]
    if len(lot.bay_sensors) != lot.capacity or len(heard) * 100 < _BAYS_HEARD_PCT * lot.capacity:
        return None
    occupied = (2 * sum(one.occupied for one in heard) * lot.capacity + len(heard)) // (2 * len(heard))
    newest = max(one.time for one in heard)
    return Count(BAYS, newest, occupied, newest)


def fused(lot: Lot, counts: Sequence[Count], bays: Sequence[Count], now: int, silence_s: int) -> LotState:
    """What all sensors of a lot say together.

    Args:
        counts: of the sensors that count the lot, the newest of each, any age; bays: of its bay sensors.
        silence_s: age after which a sensor's word is no longer trusted.
    """
    heard = [one for one in counts if now - one.time <= silence_s]
    believed = [one for one in heard if not one.stuck]
    summed = of_bays(lot, bays, now, silence_s)
    if summed is not None:
        believed.append(summed)
    if not believed:
        return _unbelieved(lot, heard, [*counts, *bays])
    best = summed or sorted(believed, key=lambda one: one.occupied)[len(believed) // 2]
    if not _all_agree(lot, believed) or not _fits(lot, best, bays, now, silence_s):
        return LotState(lot.id, best.time, best.occupied, lot.capacity, DISPUTED, _DISPUTED_PCT)
    return _aged(lot, best, len(believed), now, silence_s)


def _unbelieved(lot: Lot, heard: Sequence[Count], ever: Sequence[Count]) -> LotState:
    """Only stuck sensors were heard, or none at all."""
    if heard:
        newest = max(heard, key=lambda one: one.time)
        return LotState(lot.id, newest.time, newest.occupied, lot.capacity, DISPUTED, _STUCK_PCT)
    return LotState(lot.id, max((one.time for one in ever), default=0), None, lot.capacity, UNKNOWN, 0)


def _aged(lot: Lot, best: Count, sources: int, now: int, silence_s: int) -> LotState:
    """Confidence from agreement and age: half of it is gone when the silence is over."""
    age = max(0, now - best.time)
    sure = (_AGREED_PCT if sources > 1 else _ALONE_PCT) - age * 50 // max(1, silence_s)
    if 2 * age > silence_s:
        return LotState(lot.id, best.time, best.occupied, lot.capacity, STALE, min(_STALE_PCT, sure))
    return LotState(lot.id, best.time, best.occupied, lot.capacity, COUNTED, sure)


def _all_agree(lot: Lot, believed: Sequence[Count]) -> bool:
    values = [one.occupied for one in believed]
    return _agree(lot, max(values), min(values))


def _agree(lot: Lot, a: int, b: int) -> bool:
    return abs(a - b) * 100 <= _AGREE_PCT * lot.capacity or abs(a - b) <= 1


def _fits(lot: Lot, best: Count, bays: Sequence[Count], now: int, silence_s: int) -> bool:
    """Whether the count leaves room for what single bays say: no fewer cars than they see, no more than they leave free."""
    heard = [one.occupied for one in bays if now - one.time <= silence_s]
    most = lot.capacity - heard.count(0)
    return _agree(lot, best.occupied, min(max(best.occupied, sum(heard)), most))
