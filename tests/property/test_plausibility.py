"""Plausibility: no rule depends on how packages cut the stream, ordinary homes pass, faults are found."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.metering.domain.plausibility import (
    DRIFT,
    EXPECTED_FLOOR_PERCENT,
    EXPECTED_WIDTHS,
    OUT_OF_RANGE,
    RATE,
    REASONS,
    SPIKE,
    STUCK,
    UNEXPECTED,
    Meter,
    copied,
    is_unexpected,
    judge,
    released,
)
from services.metering.domain.slots import SLOT_S, Offsets

LIMIT = 11_500
UTC = Offsets(((0, 0),))
MONDAY = 4 * 86_400
Series = list[tuple[int, int]]


def home(days: int, seed: int = 1) -> Series:
    """A home with a morning and an evening, standby that moves a little, and a now and then of cooking."""
    dice = random.Random(seed)
    values = []
    for slot in range(days * 48):
        hour = slot % 48 / 2
        base = 60 + dice.randrange(25) + (220 if 7 <= hour < 9 else 480 if 17 <= hour < 22 else 0)
        values.append(base + (dice.randrange(1_500) if dice.random() < 0.04 else 0))
    return [(MONDAY + n * SLOT_S, value) for n, value in enumerate(values)]


def changed(series: Series, from_day: int, change: object) -> Series:
    return [(slot, change(n - from_day * 48, wh) if n >= from_day * 48 else wh) for n, (slot, wh) in enumerate(series)]  # type: ignore[operator]


readings = st.lists(st.integers(-50, LIMIT + 50), min_size=1, max_size=200).map(
    lambda values: [(MONDAY + n * SLOT_S, value) for n, value in enumerate(values)]
)


@given(readings, st.integers(1, 50))
def test_the_verdicts_do_not_depend_on_the_cut(series: Series, size: int) -> None:
    whole = judge(Meter(LIMIT), series, UTC)
    meter = Meter(LIMIT)
    parts = [reason for at in range(0, len(series), size) for reason in judge(meter, series[at : at + size], UTC)]
    assert parts == whole
    assert set(whole) <= {"", *REASONS}


@given(readings)
def test_a_copy_is_judged_without_moving_the_original(series: Series) -> None:
    meter = Meter(LIMIT)
    judge(meter, series, UTC)
    before = copied(meter)
    judge(copied(meter), [(slot + len(series) * SLOT_S, wh) for slot, wh in series], UTC)
    assert meter == before


@given(st.integers())
def test_what_lies_outside_of_the_range_never_counts(value: int) -> None:
    verdict = judge(Meter(LIMIT), [(MONDAY, value)], UTC)
    assert (verdict == [OUT_OF_RANGE]) == (not 0 <= value <= LIMIT)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_ordinary_homes_pass(seed: int) -> None:
    assert set(judge(Meter(LIMIT), home(45, seed), UTC)) == {""}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n, wh: 421, STUCK),
        (lambda n, wh: 9_000 if n == 100 else wh, SPIKE),
        (lambda n, wh: 11_400 if n == 100 else wh, RATE),
        (lambda n, wh: wh * 2, DRIFT),
        (lambda n, wh: wh * (100 + 10 * (n // 48)) // 100, DRIFT),
        (lambda n, wh: wh // 3, DRIFT),
        (lambda n, wh: -wh, OUT_OF_RANGE),
    ],
)
def test_each_fault_is_found(change: object, reason: str) -> None:
    series = changed(home(49), 28, change)
    verdicts = judge(Meter(LIMIT), series, UTC)
    assert set(verdicts[: 28 * 48]) == {""}
    assert reason in verdicts[28 * 48 :]


def test_a_standby_that_repeats_at_its_usual_hours_is_not_stuck() -> None:
    series = [(MONDAY + n * SLOT_S, 50 if n % 48 < 20 else 300 + n % 7) for n in range(30 * 48)]
    assert set(judge(Meter(LIMIT), series, UTC)) == {""}
    empty = [(MONDAY + n * SLOT_S, 4) for n in range(30 * 48)]
    assert set(judge(Meter(LIMIT), empty, UTC)) == {""}


def test_a_meter_stuck_from_its_first_day_is_found() -> None:
    verdicts = judge(Meter(LIMIT), [(MONDAY + n * SLOT_S, 421) for n in range(100)], UTC)
    assert verdicts[:47] == [""] * 47
    assert set(verdicts[47:]) == {STUCK}


def test_a_drift_holds_everything_until_released() -> None:
    meter = Meter(LIMIT)
    judge(meter, changed(home(40), 28, lambda n, wh: wh * 2), UTC)
    assert meter.open == DRIFT
    after = MONDAY + 40 * 86_400
    assert judge(meter, [(after, 100)], UTC) == [DRIFT]
    assert judge(meter, [(MONDAY, 100)], UTC) == [DRIFT]
    released(meter)
    assert judge(meter, [(after + SLOT_S, 100)], UTC) == [""]


def test_late_readings_are_judged_by_their_range_only() -> None:
    meter = Meter(LIMIT)
    judge(meter, home(10), UTC)
    before = copied(meter)
    assert judge(meter, [(MONDAY, LIMIT), (MONDAY, LIMIT + 1)], UTC) == ["", OUT_OF_RANGE]
    assert meter == before


def test_days_with_holes_do_not_count_for_drift() -> None:
    meter = Meter(LIMIT)
    judge(meter, [reading for n, reading in enumerate(home(30)) if n % 48 < 30], UTC)
    assert meter.days == []


def test_a_reading_far_outside_its_forecast_is_unexpected_and_does_not_count() -> None:
    meter = Meter(LIMIT)
    series = home(20)
    judge(meter, series, UTC)
    profile, after = meter.week[:], series[-1][0] + SLOT_S
    peak = max(wh for _, wh in series)
    assert judge(copied(meter), [(after, 3_300)], UTC, lambda slot: (0, 3_300)) == [""]
    assert judge(meter, [(after, 3_300)], UTC, lambda slot: (50, 350)) == [UNEXPECTED]
    assert (meter.week, meter.last_slot) == (profile, series[-1][0])
    assert judge(meter, [(after + SLOT_S, peak)], UTC, lambda slot: (50, 1_500)) == [""]


@given(st.integers(0, LIMIT), st.integers(0, LIMIT), st.integers(0, LIMIT))
def test_nothing_within_the_floor_or_the_widths_is_unexpected(wh: int, low: int, width: int) -> None:
    high = low + width
    found = is_unexpected(wh, (low, high), LIMIT)
    assert found == (max(low - wh, wh - high) > max(EXPECTED_WIDTHS * width, LIMIT * EXPECTED_FLOOR_PERCENT // 100))
    assert not is_unexpected(wh, None, LIMIT)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_an_ordinary_home_is_never_unexpected_under_an_honest_band(seed: int) -> None:
    """The band of a home: what nineteen in twenty of its slots at this time of day lie in."""
    series = home(45, seed)
    by_time: dict[int, list[int]] = {}
    for n, (_, wh) in enumerate(series):
        by_time.setdefault(n % 48, []).append(wh)
    bands = {place: (sorted(v)[len(v) // 40], sorted(v)[-1 - len(v) // 40]) for place, v in by_time.items()}
    verdicts = judge(Meter(LIMIT), series, UTC, lambda slot: bands[(slot - MONDAY) // SLOT_S % 48])
    assert set(verdicts) == {""}
