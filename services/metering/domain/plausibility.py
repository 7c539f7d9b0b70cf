"""Is a reading believable? Judged at the on-ramp against the meter's physical limit and its own weekly profile; integers only.

A reading that is not believable is set aside with a reason; it is stored and provable, but does not count until an appeal is granted.
Readings set aside never change the profile they are judged by. The rules, in this order:

out-of-range  below 0 Wh, or above the physical limit of the meter point.
rate          differs from the slot before by more than RATE_PERCENT of the physical limit.
stuck         the same value of STUCK_MIN_WH or more STUCK_RUN times in a row where the profile says that it should have moved (the standby of a home
              may repeat for hours at a time of day when it always does), or STUCK_ALWAYS times in a row whatever the profile says.
spike         more than SPIKE_PEAK times the highest value that counted so far, SPIKE_PROFILE times the profile around this time of the
              week, and SPIKE_FLOOR_PERCENT of the limit; after a week of history.
unexpected    outside the 95 % band that was forecast for its slot by more than EXPECTED_WIDTHS times the band's width and
              EXPECTED_FLOOR_PERCENT of the limit; only where there is a forecast, which learns from far more than this page remembers.
drift         both the day's sum and its standby (the LOW_RANKth lowest slot) left what the three weeks before had, in the same
              direction: beyond every one of those days by BEYOND_PERCENT for BEYOND_DAYS complete days in a row, or FAR_PERCENT of
              their median for FAR_DAYS. A home that is empty, or full of guests, changes its sum but not its standby. The device
              stays in quarantine until somebody decides.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.metering.domain.slots import DAY_S, SLOT_S, SLOTS_PER_WEEK, Offsets, week_slot

OUT_OF_RANGE, RATE, STUCK, SPIKE, UNEXPECTED, DRIFT = "out-of-range", "rate", "stuck", "spike", "unexpected", "drift"
REASONS = (OUT_OF_RANGE, RATE, STUCK, SPIKE, UNEXPECTED, DRIFT)

RATE_PERCENT = 85
STUCK_RUN, STUCK_ALWAYS, STUCK_SPREAD_PERCENT, STUCK_MIN_WH = 12, 48, 30, 10
SPIKE_PEAK, SPIKE_PROFILE, SPIKE_FLOOR_PERCENT = 2, 6, 15
EXPECTED_WIDTHS, EXPECTED_FLOOR_PERCENT = 3, 25
HISTORY_MIN = SLOTS_PER_WEEK
BEYOND_DAYS, BEYOND_PERCENT, BEYOND_MIN_WH = 3, 110, 10
FAR_DAYS, FAR_PERCENT, FAR_MIN_WH = 5, 180, 15
LOW_RANK = 5
BASE_DAYS, BASE_MIN, DAY_SLOTS_MIN = 21, 14, 40
_DAYS_KEPT = BASE_DAYS + FAR_DAYS
_SCALE = 16  # the profile keeps sixteenths of a Wh
_WEIGHT = 4  # a new value counts a quarter of the profile's
_NO_DAY = -1


@dataclass(slots=True)
class Meter:
    """What is remembered of one meter between packages: bounded, rebuilt from stored readings at start.

    Attributes:
        week: profile of the 336 half hours of the local week, sixteenths of a Wh; -1 where nothing came yet.
        days: (sum, standby) of complete days, oldest first, at most 26.
        open: reason for which every new reading is held, or empty.
    """

    max_slot_wh: int
    week: array[int] = field(default_factory=lambda: array("i", [-1]) * SLOTS_PER_WEEK)
    seen: int = 0
    peak: int = 0
    last_slot: int = -1
    last_wh: int = -1
    run: int = 0
    day: int = _NO_DAY
    day_values: list[int] = field(default_factory=list)
    days: list[tuple[int, int]] = field(default_factory=list)
    open: str = ""


Band = tuple[int, int]
"""Low and high of what was forecast for a slot, Wh."""
BandOf = Callable[[int], Band | None]


def unforecast(slot: int) -> Band | None:
    """There is no forecast: no reading is unexpected."""
    return None


def judge(
    meter: Meter, readings: Sequence[tuple[int, int]], offsets: Offsets, band_of: BandOf = unforecast
) -> list[str]:
    """Reasons ("" counts) of `readings`, (slot start, Wh) in order of time; `meter` moves on past them."""
    return [_judge_one(meter, slot, wh, offsets.local(slot), band_of) for slot, wh in readings]


def is_unexpected(wh: int, band: Band | None, max_slot_wh: int) -> bool:
    """Whether a reading lies so far outside its band that neither a cold day nor guests explain it."""
    if band is None:
        return False
    low, high = band
    beyond = max(low - wh, wh - high)
    return beyond > EXPECTED_WIDTHS * (high - low) and beyond * 100 > max_slot_wh * EXPECTED_FLOOR_PERCENT


def copied(meter: Meter) -> Meter:
    """A copy that can be judged with and thrown away when the readings are not stored after all."""
    return Meter(
        meter.max_slot_wh, meter.week[:], meter.seen, meter.peak, meter.last_slot, meter.last_wh, meter.run,
        meter.day, meter.day_values.copy(), meter.days.copy(), meter.open,
    )  # fmt: skip


def released(meter: Meter) -> None:
    """Starts the device's history anew after somebody found its readings right."""
    meter.open, meter.run, meter.last_slot = "", 0, -1
    meter.days.clear()
    meter.day_values.clear()


def _judge_one(meter: Meter, slot: int, wh: int, local: int, band_of: BandOf) -> str:
    if wh < 0 or wh > meter.max_slot_wh:
        return OUT_OF_RANGE
    if slot <= meter.last_slot:  # filled in later: the profile and the days are past it
        return meter.open
    index = week_slot(local)
    follows = meter.last_slot + SLOT_S == slot
    meter.run = meter.run + 1 if follows and wh == meter.last_wh and wh >= STUCK_MIN_WH else 1
    jump = abs(wh - meter.last_wh) * 100 > meter.max_slot_wh * RATE_PERCENT if follows else False
    reason = RATE if jump else _against_profile(meter, index, wh)
    if not reason and is_unexpected(wh, band_of(slot), meter.max_slot_wh):
        reason = UNEXPECTED
    if reason not in (RATE, SPIKE, UNEXPECTED):
        meter.last_slot, meter.last_wh = slot, wh
    if local // DAY_S != meter.day:
        _close_day(meter, local // DAY_S)
    reason = reason or meter.open
    if reason in ("", DRIFT):
        meter.day_values.append(wh)
    if not reason:
        _learn(meter, index, wh)
    return reason


def _against_profile(meter: Meter, index: int, wh: int) -> str:
    if meter.run >= STUCK_RUN and _is_stuck(meter, index):
        meter.run = max(meter.run, STUCK_ALWAYS)  # once found it stays so until the value changes
        return STUCK
    if wh > meter.peak * SPIKE_PEAK and meter.seen >= HISTORY_MIN and _is_spike(meter, index, wh):
        return SPIKE
    return ""


def _is_stuck(meter: Meter, index: int) -> bool:
    if meter.run >= STUCK_ALWAYS:
        return True
    expected = [meter.week[(index - back) % SLOTS_PER_WEEK] for back in range(STUCK_RUN)]
    low, high = min(expected), max(expected)
    return low >= 0 and (high - low) * 100 > high * STUCK_SPREAD_PERCENT


def _is_spike(meter: Meter, index: int, wh: int) -> bool:
    around = max(meter.week[(index + step) % SLOTS_PER_WEEK] for step in (-1, 0, 1))
    above_profile = wh * _SCALE > around * SPIKE_PROFILE
    return above_profile and wh * 100 > meter.max_slot_wh * SPIKE_FLOOR_PERCENT


def _learn(meter: Meter, index: int, wh: int) -> None:
    before = meter.week[index]
    meter.week[index] = wh * _SCALE if before < 0 else before + (wh * _SCALE - before) // _WEIGHT
    meter.seen += 1
    meter.peak = max(meter.peak, wh)


def _close_day(meter: Meter, day: int) -> None:
    values = sorted(meter.day_values)
    meter.day_values.clear()
    meter.day = day
    if len(values) < DAY_SLOTS_MIN:
        return
    meter.days.append((sum(values), values[LOW_RANK - 1]))
    del meter.days[:-_DAYS_KEPT]
    if not meter.open and _drifts(meter.days):
        meter.open = DRIFT


def _drifts(days: Sequence[tuple[int, int]]) -> bool:
    return _beyond_all(days[-BASE_DAYS - BEYOND_DAYS : -BEYOND_DAYS], days[-BEYOND_DAYS:]) or _far_from_median(
        days[:-FAR_DAYS], days[-FAR_DAYS:]
    )


def _beyond_all(base: Sequence[tuple[int, int]], recent: Sequence[tuple[int, int]]) -> bool:
    if len(base) < BASE_MIN:
        return False
    sums, lows = [total for total, _ in base], [low for _, low in base]
    above, below = (max(sums), max(lows)), (min(sums), min(lows))
    return _all_apart(recent, above, below, BEYOND_PERCENT, BEYOND_MIN_WH)


def _far_from_median(base: Sequence[tuple[int, int]], recent: Sequence[tuple[int, int]]) -> bool:
    if len(base) < BASE_MIN:
        return False
    usual = (_median([total for total, _ in base]), _median([low for _, low in base]))
    return _all_apart(recent, usual, usual, FAR_PERCENT, FAR_MIN_WH)


def _all_apart(
    recent: Sequence[tuple[int, int]], above: tuple[int, int], below: tuple[int, int], percent: int, min_wh: int
) -> bool:
    """Whether sum and standby of all the days exceed `above`, or all fall short of `below`, by the percentage."""
    over = all(
        _exceeds(total, above[0], percent, 0) and _exceeds(low, above[1], percent, min_wh) for total, low in recent
    )
    return over or all(
        _exceeds(below[0], total, percent, 0) and _exceeds(below[1], low, percent, min_wh) for total, low in recent
    )


def _exceeds(value: int, usual: int, percent: int, by: int) -> bool:
    return value * 100 > usual * percent and value - usual >= by


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]
