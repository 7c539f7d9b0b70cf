"""What holds of advice whatever the numbers: bounds, direction, order, fairness to those who ask later."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.parking.app.advising import Sent
from services.parking.domain.advice import PROBABILITY_MIN_MILLI, Option, expected_cars, least_cost_minor, ranked
from services.parking.domain.availability import LEAST_MILLI, MOST_MILLI, Expectation, Outlook, outlook
from services.parking.domain.calibration import bins, brier_micro, scored
from services.parking.domain.lots import Lot
from services.parking.domain.states import COUNTED, DISPUTED, QUALITIES, STALE, UNKNOWN, Count, LotState, fused
from tests.unit.parking.sensing import HOUR, NINE, a_lot

HALF = 1_800
quick = settings(deadline=None, max_examples=60, derandomize=True)
LOT = a_lot(capacity=100)
CARS = st.integers(0, 100)
STATES = st.builds(
    lambda cars, age, quality: LotState("x", NINE - age, None if quality == UNKNOWN else cars, 100, quality, 50),
    CARS, st.integers(-HALF, 3 * HOUR), st.sampled_from([COUNTED, STALE, DISPUTED, UNKNOWN]),
)  # fmt: skip
AHEAD = st.lists(st.tuples(st.floats(-20, 150), st.floats(0, 60)), max_size=12).map(
    lambda values: [Expectation(NINE + n * HALF, mean, half) for n, (mean, half) in enumerate(values)]
)
COUNTS = st.lists(
    st.builds(Count, st.sampled_from(["s-1", "s-2", "s-3"]), st.integers(NINE - 4 * HOUR, NINE), CARS, st.just(0), st.booleans()),
    max_size=4, unique_by=lambda one: one.device,
)  # fmt: skip


@quick
@given(STATES, AHEAD, st.integers(0, 8 * HOUR), st.floats(0, 50), st.floats(0, 50))
def test_more_cars_never_make_a_free_bay_likelier(
    state: LotState, ahead: list[Expectation], wait: int, few: float, more: float
) -> None:
    one, two = (outlook(LOT, state, ahead, NINE, NINE + wait, cars) for cars in (few, few + more))
    if one.probability_milli is None:
        assert two.probability_milli is None
        return
    assert two.probability_milli is not None
    assert LEAST_MILLI <= two.probability_milli <= one.probability_milli <= MOST_MILLI
    assert 0 <= one.occupied <= two.occupied <= LOT.capacity


@quick
@given(STATES, AHEAD, st.integers(0, 8 * HOUR))
def test_something_is_said_only_where_something_is_known(state: LotState, ahead: list[Expectation], wait: int) -> None:
    found = outlook(LOT, state, ahead, NINE, NINE + wait, 0.0)
    known = wait // HALF < len(ahead) or state.quality in (COUNTED, STALE)
    assert (found.probability_milli is not None) == known


OPTIONS = st.lists(
    st.builds(
        lambda lot, milli, walk, price: Option(
            a_lot(f"lot-{lot}"), LotState("x", 0, None, 200, UNKNOWN, 0), Outlook(milli), walk, price, 0.0, 0, False, NINE
        ),
        st.integers(0, 99), st.none() | st.integers(0, 1_000), st.integers(0, 60), st.integers(0, 5_000),
    ),
    max_size=20, unique_by=lambda one: one.lot.id,
)  # fmt: skip


@quick
@given(OPTIONS, st.integers(1, 10))
def test_the_best_come_first_and_nothing_better_is_left_out(options: list[Option], count: int) -> None:
    fair = [one for one in options if one.probability_milli >= PROBABILITY_MIN_MILLI]
    best = sorted(fair, key=lambda one: (one.cost_minor, one.lot.id))[:count]
    assert _ranked(options, count) == best == _ranked(options[::-1], count)


def _ranked(options: list[Option], count: int) -> list[Option]:
    least = [(least_cost_minor(one.price_minor, one.walk_minutes), one) for one in options]
    return ranked(sorted(least, key=lambda one: one[0]), lambda one: one, count)


@quick
@given(st.integers(2, 5), st.integers(1, 40), st.integers(88, 99))
def test_those_who_ask_are_spread_over_equal_lots(lots: int, asked: int, cars: int) -> None:
    """Of lots that are not surely free, none is sent a car more than another."""
    places = [a_lot(f"lot-{number}", capacity=100) for number in range(lots)]
    ahead, sent = [Expectation(NINE, float(cars), 8.0)], Sent()
    for _ in range(asked):
        for rank, option in enumerate(_ranked([_equal(lot, ahead, sent) for lot in places], 3)):
            sent.add(option.lot, expected_cars(rank), NINE, NINE)
    coming = [sent.until(lot, NINE, NINE) for lot in places]
    assert max(coming) - min(coming) <= 1


def _equal(lot: Lot, ahead: list[Expectation], sent: Sent) -> Option:
    state = LotState(lot.id, 0, None, 100, UNKNOWN, 0)
    found = outlook(lot, state, ahead, NINE, NINE, sent.until(lot, NINE, NINE))
    return Option(lot, state, found, 5, 100, 0.0, 0, False, NINE)


@quick
@given(COUNTS, st.lists(st.booleans(), max_size=6), st.integers(60, 2 * HOUR))
def test_a_state_shows_a_possible_number_or_none(counts: list[Count], taken: list[bool], silence_s: int) -> None:
    watched = tuple((f"b-{n}", f"bay-{n}") for n in range(len(taken)))
    lot = a_lot(capacity=100, sensors=("s-1", "s-2", "s-3"), bay_sensors=watched)
    bays = [Count(f"b-{n}", NINE, int(one), NINE) for n, one in enumerate(taken)]
    state = fused(lot, counts, bays, NINE, silence_s)
    assert state.quality in QUALITIES
    assert 0 <= state.confidence_pct <= 99
    assert state.shown is None or 0 <= state.shown <= 100
    assert (state.quality == UNKNOWN) == all(NINE - one.time > silence_s for one in counts)
    assert fused(lot, counts[::-1], bays, NINE, silence_s).quality == state.quality


@quick
@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(1, 50), st.booleans()), max_size=30))
def test_calibration_loses_nobody(said: list[tuple[int, int, bool]]) -> None:
    tallies = scored(said)
    assert sum(one.advices for one in tallies) == sum(times for _, times, _ in said)
    assert all(one.from_milli <= one.said_milli <= one.from_milli + 100 for one in bins(tallies))
    assert all(0 <= one.came_milli <= 1_000 for one in bins(tallies))
    assert 0 <= brier_micro(tallies) <= 1_000_000
    sure = [(1_000 * came, times, came) for _, times, came in said]
    assert brier_micro(scored(sure)) == 0


@quick
@given(CARS, CARS)
def test_a_state_does_not_depend_on_who_is_asked_first(a: int, b: int) -> None:
    lot = a_lot(capacity=100, sensors=("s-1", "s-2"))
    one, two = Count("s-1", NINE, a, NINE), Count("s-2", NINE, b, NINE)
    assert fused(lot, [one, two], [], NINE, HOUR) == fused(lot, [two, one], [], NINE, HOUR)
    assert fused(lot, [replace(one, stuck=True), two], [], NINE, HOUR).occupied == b
