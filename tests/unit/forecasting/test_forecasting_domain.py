"""Rules of forecasting: grids, reading and cleaning rows, origins, the wall clock, groups, words, cards and their contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citykit.ids import seeded_randomness
from citykit.ledger.local import LocalLedger
from citykit.ledger.port import ContractRefused
from citykit.settings import LedgerSettings
from services.forecasting.contract import CONTRACTS
from services.forecasting.domain import observations as rows_
from services.forecasting.domain.grid import Grid, GridError, frequency_s, week_grid
from services.forecasting.domain.groups import GROUPS, group_of, may_see
from services.forecasting.domain.observations import Observation, RowError, gather, read_rows
from services.forecasting.domain.origins import (
    Origins,
    OriginsError,
    calibration_step,
    known_before,
    rolling_origins,
    training_interval,
)
from services.forecasting.domain.wall import wall_slot
from services.forecasting.domain.words import explained

HALF_HOUR = Grid(1_800, 336)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30min", 1_800), ("1h", 3_600), ("H", 3_600), ("1d", 86_400), ("7d", 604_800), ("1s", 1)]
)
def test_frequencies_are_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert frequency_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "8d", "0min", "30 min", "fortnight", "-1h"])
def test_other_frequencies_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(GridError, match="30min, 1h, 1d"):
        frequency_s(text)


def test_times_snap_to_the_nearest_slot_and_a_grid_knows_its_day() -> None:
    assert [HALF_HOUR.slot(seconds) for seconds in (0, 899, 900, 1_782, 2_699, 2_700)] == [0, 0, 1, 1, 1, 2]
    assert (HALF_HOUR.day, Grid(86_400, 7).day, Grid(604_800, 4).day) == (48, 1, 1)
    assert week_grid(1_800) == HALF_HOUR and HALF_HOUR.time(3) == 5_400


def test_rows_are_read_whatever_their_order_with_and_without_capacity_and_with_a_byte_order_mark() -> None:
    text = [
        "\ufeffSeries, time ,value,capacity\r\n",
        "a,2016-10-04 08:00:00,5,10\r\n",
        "\r\n",
        "b,2016-10-04T07:30,,\r\n",
    ]
    assert list(read_rows(text)) == [
        Observation("a", 1_475_568_000, 5.0, 10.0),
        Observation("b", 1_475_566_200, None, None),
    ]
    assert list(read_rows(["series,time,value\n", "a,2016-10-04T08:00:00+01:00,nan\n"])) == [
        Observation("a", 1_475_564_400, None, None)
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: the header is ''"),
        (["series,when,value\n"], "line 1: the header"),
        (["series,time,value\n", "a,2016-10-04,1\n", "series,time,value\n"], "line 3: time 'time'"),
        (["series,time,value\n", "a,2016-10-04\n"], "line 2: 2 fields where the header has 3"),
        (["series,time,value\n", "a,2016-13-04,1\n"], "line 2: time '2016-13-04'"),
        (["series,time,value\n", "a,2016-10-04,one\n"], "line 2: value 'one' is no number"),
        (["series,time,value\n", "a,2016-10-04,inf\n"], "line 2: value 'inf' is not finite"),
        (["series,time,value,capacity\n", "a,2016-10-04,1,x\n"], "line 2: capacity 'x' is no number"),
        (["series,time,value\n", ",2016-10-04,1\n"], "line 2: a series' name has 1 to 200 characters"),
        (["series,time,value\n", "a,2016-10-04,1\n", "a,2016-10-04T00:00Z,1\n"], "line 3: times with and without"),
        (["series,time,value\n", '"a,2016-10-04,1\n'], "line 2: unexpected end of data"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(RowError) as caught:
        list(read_rows(lines))
    assert str(caught.value).startswith(message)


def test_a_file_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_, "ROWS_MAX", 1)
    with pytest.raises(RowError, match="line 3: a file holds at most 1 rows"):
        list(read_rows(["series,time,value\n", "a,2016-10-04,1\n", "a,2016-10-05,1\n"]))


def test_impossible_values_are_cleaned_and_counted_and_of_several_the_nearest_counts() -> None:
    seen = [
        Observation("b", 1_800, 7, 10),
        Observation("a", 1_790, 5, 10),
        Observation("a", 1_800, 6),
        Observation("a", 1_810, 8, 10),
        Observation("a", 3_600, -1),
        Observation("a", 5_400, 11, 10),
        Observation("a", 7_200, 11),
        Observation("c", 7_200, None, 10),
    ]
    series, cleaned = gather(seen, HALF_HOUR)
    assert list(series) == ["a", "b", "c"]
    assert series["a"].values == {1: 6, 4: 11} and series["a"].capacities == {}
    assert series["b"].values == {1: 7} and series["b"].capacities == {1: 10}
    assert series["c"].values == {}
    assert (cleaned.negative, cleaned.above_capacity, cleaned.duplicate, cleaned.total) == (1, 1, 2, 4)


def test_of_two_values_as_near_the_earlier_counts_and_of_two_at_once_the_smaller() -> None:
    pair = [Observation("a", 1_810, 1), Observation("a", 1_790, 2)]
    for order in (pair, pair[::-1]):
        assert gather(order, HALF_HOUR)[0]["a"].values == {1: 2}
    twins = [Observation("a", 1_800, 3), Observation("a", 1_800, 2)]
    for order in (twins, twins[::-1]):
        assert gather(order, HALF_HOUR)[0]["a"].values == {1: 2}


def test_the_last_origin_lies_one_horizon_before_the_end_and_calibration_goes_before_the_first() -> None:
    found = rolling_origins(length=1_000, season=7, horizon=28, step=14, count=3, window=46, day=1)
    assert found.test == (944, 958, 972)
    assert len(found.calibration) == 46 and found.calibration[-1] == 930 and found.calibration[0] == 944 - 46 * 14
    assert found.all == found.calibration + found.test


def test_a_short_history_puts_calibrating_origins_closer_down_to_a_day() -> None:
    found = rolling_origins(length=336 * 11, season=336, horizon=336, step=336, count=4, window=46, day=48)
    assert found.test[0] == 336 * 7 and found.calibration[-1] == 336 * 7 - 48 and found.calibration[0] == 336 * 4
    assert len(found.calibration) == 21
    assert calibration_step(room=46 * 96, step=336, window=46, day=48) == 96
    assert calibration_step(room=10, step=6, window=46, day=48) == 6


def test_four_seasons_before_the_first_origin_are_just_enough_and_less_is_refused() -> None:
    assert rolling_origins(28 + 7 + 7, 7, 7, 7, 2, 46, 1) == Origins((), (28, 35))
    with pytest.raises(OriginsError, match="need 42"):
        rolling_origins(41, 7, 7, 7, 2, 46, 1)
    with pytest.raises(OriginsError, match="at least 1"):
        rolling_origins(100, 7, 0, 7, 2, 46, 1)


def test_only_origins_whose_truth_has_come_are_known() -> None:
    assert known_before((0, 10, 20, 30), 3, horizon=15, window=46) == [0, 1]
    assert known_before((0, 10, 20, 30), 3, horizon=10, window=2) == [1, 2]
    assert training_interval((0, 100), 7) == 9 and training_interval((0, 10), 7) == 7


def test_slots_are_of_the_citys_own_clock() -> None:
    back, forward = 1_477_789_200, 1_490_490_000  # 01:00 UTC of the days clocks change in London
    before = wall_slot("Europe/London", back - 3_600)
    assert wall_slot("Europe/London", back) == before, "the hour seen twice"
    assert wall_slot("Europe/London", forward) - wall_slot("Europe/London", forward - 1_800) == 3, "the hour left out"


def test_a_group_says_who_may_see_its_series() -> None:
    assert group_of("parking/mill") is GROUPS["parking"]
    assert group_of("parking") is None and group_of("trams/7") is None
    assert may_see(GROUPS["metering"], "service:metering") and not may_see(GROUPS["metering"], "service:gateway")
    assert may_see(GROUPS["parking"], "operator-1")


def test_a_forecast_is_told_in_words() -> None:
    causes = [("the newest values", -30_400), ("trend and season", 9_600), ("nothing to speak of", 300)]
    assert explained(120_000, 99_500, causes) == (
        "Usually 120 at this time of the week; -30 for the newest values, +10 for trend and season; so 100 is expected."
    )
    assert explained(120_000, 120_000, []) == "Usually 120 at this time of the week; nothing moves it this time."


CARD: dict[str, Any] = {
    "format": "city.model.v1",
    "model": "parking-1-00",
    "version": "2",
    "group": "parking",
    "trained_at": "2016-10-04T00:00:00Z",
    "data": {"log": "parking.states", "size": 4, "root": "00" * 32},
    "series": 3,
    "origins": 7,
    "mase_micro": {"choice": 700_000},
    "coverage_micro": {"80": 800_000},
    "parameters": "ab" * 32,
}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    opened = await LocalLedger.open(
        tmp_path,
        contracts=CONTRACTS,
        clock=lambda: 0,
        randomness=seeded_randomness(1),
        settings=LedgerSettings(block_wait_ms=0),
    )
    yield opened
    await opened.close()


async def register(ledger: LocalLedger, card: dict[str, Any], submitter: str = "forecasting") -> None:
    request_id = f"r{await ledger.height()}"
    await ledger.submit("models", "register", {"card": card}, submitter=submitter, request_id=request_id)


async def test_a_card_is_registered_once_and_never_changes(ledger: LocalLedger) -> None:
    await register(ledger, CARD)
    await register(ledger, CARD)
    assert await ledger.evaluate("models", "get", {"model": CARD["model"]}) == CARD
    assert await ledger.evaluate("models", "get", {"model": "none"}) is None
    with pytest.raises(ContractRefused) as caught:
        await register(ledger, {**CARD, "series": 4})
    assert caught.value.reason == "model-registered"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": "city.model.v2"}, "city.model.v1"),
        ({"more": 1}, "fields"),
        ({"model": ""}, "id"),
        ({"model": 7}, "id"),
        ({"data": {"log": "x"}}, "log, size and root"),
        ({"data": "x"}, "log, size and root"),
        ({"parameters": "AB" * 32}, "hash"),
        ({"parameters": "ab"}, "hash"),
        ({"parameters": 5}, "hash"),
    ],
)
async def test_a_card_that_says_too_little_is_refused(ledger: LocalLedger, change: dict[str, Any], word: str) -> None:
    with pytest.raises(ContractRefused) as caught:
        await register(ledger, {**CARD, **change})
    assert caught.value.reason == "card-invalid" and word in str(caught.value)


async def test_only_forecasting_registers_models(ledger: LocalLedger) -> None:
    with pytest.raises(ContractRefused):
        await register(ledger, CARD, submitter="parking")
