"""Validation and estimation (VEE), method `profile-v1`: what a slot without a reading that counts is taken to be.

The rule, in integers and only from measured values of the same meter point, first that gives a value:
1. the lower median of the same local weekday and half hour in the 4 weeks before;
2. the lower median of the same local half hour in the 7 days before;
3. the neighbours: the nearest measured slot before and after (each within 7 days): their mean, rounded down; or the only one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from services.metering.domain.slots import DAY_S, WEEK_S, Offsets

METHOD = "profile-v1"
WEEKS, DAYS = 4, 7
NEIGHBOUR_S = 7 * DAY_S


class Estimator:
    """Estimates slots of one meter point from its measured values (slot start -> Wh)."""

    def __init__(self, measured: Mapping[int, int], offsets: Offsets) -> None:
        self._measured = measured
        self._offsets = offsets
        self._times = sorted(measured)

    def estimate(self, slot: int) -> int | None:
        """Wh of the slot, or None where nothing near was measured."""
        for values in (self._same_wall_time(slot, WEEK_S, WEEKS), self._same_wall_time(slot, DAY_S, DAYS)):
            if values:
                return lower_median(values)
        return self._neighbours(slot)

    def _same_wall_time(self, slot: int, step_s: int, count: int) -> list[int]:
        times = (self._back(slot, step_s * number) for number in range(1, count + 1))
        return [self._measured[time] for time in times if time in self._measured]

    def _back(self, slot: int, seconds: int) -> int:
        """The instant whose local wall time is `seconds` of wall time before that of `slot`."""
        earlier = slot - seconds
        return earlier + self._offsets.at(slot) - self._offsets.at(earlier)

    def _neighbours(self, slot: int) -> int | None:
        position = bisect_left(self._times, slot)
        near = [time for time in self._times[max(0, position - 1) : position + 1] if abs(time - slot) <= NEIGHBOUR_S]
        values = [self._measured[time] for time in near]
        return sum(values) // len(values) if values else None


def lower_median(values: Sequence[int]) -> int:
    """The middle value; of an even number the lower of the two."""
    return sorted(values)[(len(values) - 1) // 2]
