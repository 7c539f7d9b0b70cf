"""Who is believed about how full a lot is: each rule by an example."""

from __future__ import annotations

from typing import Any

from services.parking.domain.states import (
    COUNTED,
    DISPUTED,
    STALE,
    UNKNOWN,
    Count,
    LotState,
    fused,
    is_possible,
    is_stuck,
    moved_cars,
    of_bays,
    said,
    usual_move,
)
from tests.unit.parking.sensing import DAY, HOUR, MINUTE, NINE, a_lot

SILENCE = 5_400
HALF = 1_800


def count(occupied: int, age: int = 0, device: str = "s-1", since: int | None = None, stuck: bool = False) -> Count:
    time = NINE - age
    return Count(device, time, occupied, time if since is None else since, stuck)


def state(*counts: Count, bays: tuple[Count, ...] = (), **changes: Any) -> LotState:
    return fused(a_lot(**changes), counts, bays, NINE, SILENCE)


def bays(free: int, taken: int, age: int = 0) -> tuple[Count, ...]:
    return tuple(count(n >= free, age, f"b-{n}") for n in range(free + taken))


def watched(number: int) -> tuple[tuple[str, str], ...]:
    return tuple((f"b-{n}", f"bay-{n}") for n in range(number))


def test_possible_counts() -> None:
    assert [is_possible(value, 200) for value in (-1, 0, 200, 201)] == [False, True, True, False]


def test_a_sensor_alone_is_counted_and_believed_less_with_age() -> None:
    fresh, older = state(count(80)), state(count(80, 30 * MINUTE))
    assert (fresh.quality, fresh.occupied, fresh.confidence_pct) == (COUNTED, 80, 90)
    assert (older.quality, older.confidence_pct) == (COUNTED, 74)


def test_a_word_older_than_half_the_silence_is_stale_and_older_than_it_unknown() -> None:
    assert [state(count(80, age)).quality for age in (2_700, 2_701, 5_400, 5_401)] == [COUNTED, STALE, STALE, UNKNOWN]
    stale, unknown = state(count(80, 3_600)), state(count(80, 5_401))
    assert (stale.shown, stale.confidence_pct) == (80, 30)
    assert (unknown.shown, unknown.occupied, unknown.confidence_pct) == (None, None, 0)
    assert unknown.time == NINE - 5_401


def test_a_lot_nobody_ever_counted_is_unknown() -> None:
    nothing = state()
    assert (nothing.quality, nothing.time, nothing.shown) == (UNKNOWN, 0, None)


def test_sensors_that_agree_are_believed_more() -> None:
    agreed = state(count(80), count(84, device="s-2"), count(88, device="s-3"))
    assert (agreed.quality, agreed.occupied, agreed.confidence_pct) == (COUNTED, 84, 99)


def test_sensors_that_contradict_each_other_show_no_number() -> None:
    disputed = state(count(80), count(120, device="s-2"))
    assert (disputed.quality, disputed.shown, disputed.confidence_pct) == (DISPUTED, None, 50)


def test_a_silent_sensor_leaves_the_other_to_speak() -> None:
    assert state(count(80, 6_000), count(120, device="s-2")).occupied == 120


def test_a_stuck_sensor_is_not_believed() -> None:
    alone = state(count(80, stuck=True))
    assert (alone.quality, alone.shown, alone.confidence_pct) == (DISPUTED, None, 10)
    assert state(count(80, stuck=True), count(120, device="s-2")).quality == COUNTED


def test_the_sum_of_all_bays_is_the_state() -> None:
    summed = state(bays=bays(4, 6), capacity=10, bay_sensors=watched(10), sensors=())
    assert (summed.quality, summed.occupied, summed.confidence_pct) == (COUNTED, 6, 90)
    both = state(count(6), bays=bays(4, 6), capacity=10, bay_sensors=watched(10))
    assert (both.occupied, both.confidence_pct) == (6, 99)
    against = state(count(2), bays=bays(4, 6), capacity=10, bay_sensors=watched(10))
    assert (against.quality, against.shown) == (DISPUTED, None)


def test_few_silent_bays_count_as_the_others_do_and_many_make_the_sum_unknown() -> None:
    lot = a_lot(capacity=40, bay_sensors=watched(40))
    found = of_bays(lot, bays(20, 19), NINE, SILENCE)
    assert found is not None
    assert found.occupied == 19
    assert of_bays(lot, bays(20, 15), NINE, SILENCE) is None
    assert of_bays(lot, bays(20, 20, age=6_000), NINE, SILENCE) is None
    assert of_bays(a_lot(bay_sensors=watched(40)), bays(20, 20), NINE, SILENCE) is None


def test_single_bays_contradict_a_count_that_leaves_them_no_room() -> None:
    some = watched(100)
    assert state(count(95), bays=bays(0, 100), bay_sensors=some).quality == COUNTED
    assert state(count(80), bays=bays(0, 100), bay_sensors=some).quality == DISPUTED
    assert state(count(130), bays=bays(100, 0), bay_sensors=some).quality == DISPUTED
    assert state(count(100), bays=bays(100, 0), bay_sensors=some).quality == COUNTED


def test_only_some_bays_watched_and_no_count_is_unknown() -> None:
    assert state(bays=bays(1, 1), bay_sensors=watched(2), sensors=()).quality == UNKNOWN


def test_a_word_goes_on_only_without_a_break() -> None:
    first = said(None, "s-1", NINE, 80, SILENCE)
    again = said(first, "s-1", NINE + HALF, 80, SILENCE)
    assert (first.since, again.since) == (NINE, NINE)
    assert said(again, "s-1", NINE + 2 * HALF, 81, SILENCE).since == NINE + 2 * HALF
    assert said(again, "s-1", NINE + 5 * HALF, 80, SILENCE).since == NINE + 5 * HALF


def week(move: int, days: int = 7) -> dict[int, int]:
    """Counts of the mornings before, from 06:00 to 09:00, that rise by `move`."""
    return {NINE - day * DAY - n * HALF: 100 + move * (6 - n) // 6 for day in range(1, days + 1) for n in range(7)}


def test_a_sensor_is_stuck_where_its_own_week_moves() -> None:
    same = count(100, since=NINE - 3 * HOUR)
    assert is_stuck(a_lot(), same, [], week(40))
    assert not is_stuck(a_lot(), same, [], week(2))
    assert not is_stuck(a_lot(), same, [], week(40, days=1))
    assert not is_stuck(a_lot(), count(100, since=NINE - 3 * HOUR + 1), [], week(40))


def test_a_full_lot_may_stay_full_for_longer() -> None:
    assert not is_stuck(a_lot(), count(200, since=NINE - 5 * HOUR), [], week(40))
    assert is_stuck(a_lot(), count(200, since=NINE - 6 * HOUR), [], week(40))


def test_a_sensor_is_stuck_where_the_others_left_it_behind() -> None:
    same = count(100, since=NINE - 3 * HOUR)
    assert is_stuck(a_lot(), same, [count(140, device="s-2")], {})
    assert not is_stuck(a_lot(), same, [count(104, device="s-2")], {})
    assert not is_stuck(a_lot(), same, [count(140, device="s-2", since=NINE - 4 * HOUR)], {})


def test_closed_hours_do_not_make_a_sensor_stuck() -> None:
    """At night the days before did not move either."""
    still = {NINE - day * DAY - n * HALF: 3 for day in range(1, 8) for n in range(7)}
    assert not is_stuck(a_lot(), count(3, since=NINE - 3 * HOUR), [], still)


def test_the_usual_move_is_the_median_day_s() -> None:
    odd = week(40) | {NINE - DAY: 1_000}
    assert usual_move(odd, NINE - 3 * HOUR, NINE) == 40
    assert usual_move({}, NINE - 3 * HOUR, NINE) == 0
    assert (moved_cars(a_lot()), moved_cars(a_lot(capacity=10))) == (6, 3)


def test_a_changed_clock_does_not_make_a_moving_sensor_stuck() -> None:
    """On 2016-10-30 clocks went back: the same hours of the days before lie an hour apart, and still the word changes."""
    change = 1_477_818_000  # 09:00 that Sunday
    history = {change - day * DAY - n * HALF: 100 - 5 * n for day in range(1, 8) for n in range(10)}
    moving = Count("s-1", change, 97, change - HALF)
    assert not is_stuck(a_lot(), moving, [], history)
    assert is_stuck(a_lot(), Count("s-1", change, 97, change - 3 * HOUR), [], history)
