"""The price of a session, by hand-computed examples: bands, caps, permits, overstay, the change of the clocks."""

from __future__ import annotations

import pytest

from services.parking.domain.errors import AmountInvalid
from services.parking.domain.price import (
    Line,
    cancel_lines,
    no_show_lines,
    overstay_lines,
    quote_lines,
    quote_minor,
    refund_line,
    session_lines,
    shares,
    total,
)
from tests.unit.parking.tariffs import at, parsed

NINE = at("2016-11-08T09:00")
HOUR, MINUTE = 3_600, 60


def test_started_steps_at_the_price_of_their_start() -> None:
    lines = quote_lines(parsed(), at("2016-11-08T17:30"), at("2016-11-08T18:45"), 10_000)
    assert lines == [Line("stay", "2016-11-08", "day", 1, 60), Line("stay", "2016-11-08", "night", 2, 40)]


def test_a_day_is_capped_and_the_next_begins_anew() -> None:
    lines = quote_lines(parsed(), at("2016-11-08T08:00"), at("2016-11-09T01:00"), 10_000)
    assert lines == [
        Line("stay", "2016-11-08", "day", 20, 1_200),
        Line("stay", "2016-11-08", "night", 12, 240),
        Line("stay", "2016-11-09", "night", 2, 40),
        Line("cap", "2016-11-08", "", 0, -540),
    ]
    assert quote_minor(parsed(cap_minor_per_day=0), at("2016-11-08T08:00"), at("2016-11-08T18:00")) == 1_200


def test_steps_follow_real_time_when_the_clocks_change() -> None:
    """The night of 30 October has 25 hours: one that is reserved until 08:00 has two half hours more."""
    assert quote_minor(parsed(), at("2016-10-30T00:00"), at("2016-10-30T08:00")) == 18 * 20
    assert quote_minor(parsed(), at("2016-11-08T00:00"), at("2016-11-08T08:00")) == 16 * 20
    assert quote_minor(parsed(valid_from="2016-01-01"), at("2016-03-27T00:00"), at("2016-03-27T08:00")) == 14 * 20


@pytest.mark.parametrize(("basis_points", "left"), [(10_000, 60), (5_000, 30), (0, 0), (3_333, 20), (9_917, 60)])
def test_a_permit_leaves_a_share_half_up(basis_points: int, left: int) -> None:
    lines = quote_lines(parsed(), NINE, NINE + 30 * MINUTE, basis_points)
    assert total(lines) == left
    assert len(lines) == (1 if left == 60 else 2)


@pytest.mark.parametrize(
    ("late_s", "steps"), [(0, 0), (600, 0), (601, 1), (600 + 1_800, 1), (600 + 1_801, 2), (86_400, 8), (-HOUR, 0)]
)
def test_overstay_begins_after_the_grace_and_is_capped(late_s: int, steps: int) -> None:
    lines = overstay_lines(parsed(), NINE, NINE + late_s)
    assert lines == ([Line("overstay", "", "", steps, 150 * steps)] if steps else [])


def test_a_session_is_the_span_and_the_overstay() -> None:
    lines = session_lines(parsed(), NINE, NINE + HOUR, NINE + 2 * HOUR, 5_000)
    assert [line.kind for line in lines] == ["stay", "permit", "overstay"]
    assert total(lines) == 60 + 2 * 150


def test_fees_are_never_more_than_the_quote() -> None:
    assert no_show_lines(parsed(), 120) == [Line("no-show", "", "", 0, 120)]
    assert no_show_lines(parsed(), 500) == [Line("no-show", "", "", 0, 200)]
    assert cancel_lines(parsed(), 500, NINE, NINE - HOUR) == []
    assert cancel_lines(parsed(), 500, NINE, NINE - HOUR + 1) == [Line("cancelled", "", "", 0, 100)]
    assert refund_line(30).amount_minor == -30


def test_shares_fill_one_payment_after_the_other() -> None:
    assert shares(150, [100, 200, 50]) == [100, 50, 0]
    assert shares(0, []) == []
    for amount in (-1, 351):
        with pytest.raises(AmountInvalid, match="0 to 350"):
            shares(amount, [100, 200, 50])
