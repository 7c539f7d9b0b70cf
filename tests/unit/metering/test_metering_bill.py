"""Bills to the cent, local days, estimation and the chain rules: examples worked by hand."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from citykit import canonical
from citykit.errors import InvalidArgument
from services.metering.app.zones import period_of, year_offsets, zone_offsets
from services.metering.domain.billing import Gap, gaps_between, half_up, make_bill, step_energy
from services.metering.domain.errors import NotBillable, RuleBroken
from services.metering.domain.estimation import Estimator, lower_median
from services.metering.domain.slots import (
    DAY_S,
    SLOT_S,
    WEEK_S,
    Offsets,
    Period,
    local_day,
    parse_day,
    week_slot,
    weekday_minute,
)
from services.metering.domain.tariff import parse_tariff
from tests.unit.metering.homes import bill_input, october, tariff

GOLDEN = Path(__file__).parents[2] / "golden" / "metering"


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"), [(0, 10, 0), (4, 10, 0), (5, 10, 1), (15, 10, 2), (14, 10, 1)]
)
def test_half_up(numerator: int, denominator: int, rounded: int) -> None:
    assert half_up(numerator, denominator) == rounded


def test_the_month_of_the_clock_change_has_a_slot_pair_more() -> None:
    period = october()
    assert (period.days, len(period.slots)) == (31, 31 * 48 + 2)
    assert period.offsets.entries == ((1_475_535_600, 3_600), (1_477_789_200, 0))


def test_a_bill_worked_by_hand() -> None:
    period = october()
    bill = make_bill(bill_input(period, dict.fromkeys(period.slots, 1_000)), parse_tariff(tariff()))
    # Night: 31 x 14 slots and the two of the repeated hour; day: 31 x 34 slots, 248,000 Wh of them in the first step.
    night, first, second = 436 * 1_000, 248_000, 31 * 34 * 1_000 - 248_000
    amounts = [line["amount_minor"] for line in bill["lines"]]
    assert [line.get("energy_wh") for line in bill["lines"]] == [night, first, second, None, None]
    assert amounts == [3_135, 3_564, 12_912, 761, 1_019]
    assert (bill["subtotal_minor"], bill["vat_minor"], bill["total_minor"]) == (20_372, 1_019, 21_391)
    assert (bill["slots"], bill["measured"], bill["estimated"]) == (1_490, 1_490, [])
    assert (bill["due"], bill["dispute_until"]) == ("2016-11-22", "2016-12-06")


def test_the_bill_document_is_as_it_was() -> None:
    period = october()
    measured = {slot: 100 + slot // SLOT_S % 37 for slot in period.slots if slot // SLOT_S % 50}
    held = {slot: "spike" for slot in period.slots if slot // SLOT_S % 100 == 0}
    bill = make_bill(bill_input(period, measured, held), parse_tariff(tariff()))
    assert canonical.encode(bill) == (GOLDEN / "bill.json").read_bytes()


def test_slots_without_readings_are_estimated_and_say_why() -> None:
    period = october()
    slots = list(period.slots)
    measured = {slot: 500 for slot in slots[2:]}
    bill = make_bill(bill_input(period, measured, {slots[1]: "spike"}), parse_tariff(tariff()))
    assert [item["reason"] for item in bill["estimated"]] == ["missing", "quarantined:spike"]
    assert {item["method"] for item in bill["estimated"]} == {"profile-v1"}
    assert bill["measured"] + len(bill["estimated"]) == bill["slots"]


def test_what_cannot_be_billed_says_why() -> None:
    period = october()
    with pytest.raises(NotBillable, match="no reading"):
        make_bill(bill_input(period, {}), parse_tariff(tariff()))
    with pytest.raises(NotBillable, match="near enough"):
        make_bill(bill_input(period, {period.from_time: 5}), parse_tariff(tariff()))


def test_steps_share_the_energy() -> None:
    band = parse_tariff(tariff()).bands[1]
    assert step_energy(band, 7_999, 1) == [7_999, 0]
    assert step_energy(band, 8_001, 1) == [8_000, 1]
    assert step_energy(band, 20_000, 2) == [16_000, 4_000]


def test_gaps_between_sequences() -> None:
    assert gaps_between([1, 2, 5, 6, 9]) == (Gap(2, 5), Gap(6, 9))
    assert gaps_between([4]) == ()


def test_estimates_look_at_weeks_then_days_then_neighbours() -> None:
    offsets, slot = Offsets(((0, 0),)), 10 * WEEK_S
    weeks = {slot - WEEK_S: 10, slot - 2 * WEEK_S: 40, slot - 4 * WEEK_S: 30, slot - 5 * WEEK_S: 999}
    days = {slot - DAY_S: 7, slot - 3 * DAY_S: 9}
    near = {slot - SLOT_S: 4, slot + 2 * SLOT_S: 7}
    assert Estimator({**weeks, **days, **near}, offsets).estimate(slot) == 30
    assert Estimator({**days, **near}, offsets).estimate(slot) == 7
    assert Estimator(near, offsets).estimate(slot) == 5
    assert Estimator({slot + 3: 8}, offsets).estimate(slot) == 8
    assert Estimator({slot - 8 * DAY_S - 1: 8}, offsets).estimate(slot) is None
    assert lower_median([4, 1, 3, 2]) == 2


def test_estimates_follow_the_wall_clock_over_a_change() -> None:
    offsets = zone_offsets("Europe/London")
    after = 1_477_958_400  # 2016-11-01T00:00Z, 00:00 in London
    same_hour_before = after - WEEK_S - 3_600
    assert Estimator({same_hour_before: 77, after - WEEK_S: 11}, offsets).estimate(after) == 77


def test_local_time() -> None:
    assert weekday_minute(0) == (3, 0)
    assert week_slot(4 * DAY_S) == 0
    assert local_day(DAY_S) == date(1970, 1, 2)
    offsets = Offsets(((100, 1), (200, 2)))
    assert [offsets.at(time) for time in (0, 100, 199, 200, 999)] == [1, 1, 1, 2, 2]
    assert offsets.clipped(150, 300).entries == ((150, 1), (200, 2))
    assert year_offsets("Europe/London", 1_475_535_600).entries[1:] == ((1_459_040_400, 3_600), (1_477_789_200, 0))


@pytest.mark.parametrize("text", ["2016-02-30", "20160101", "today", "2016-W01-1"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(RuleBroken, match="2016-10-04"):
        parse_day(text, "from_date")


def test_offsets_and_periods_out_of_form_are_refused() -> None:
    for entries in ((), ((5, 0), (5, 1))):
        with pytest.raises(RuleBroken, match="growing order"):
            Offsets(entries)
    offsets = Offsets(((0, 0),))
    with pytest.raises(RuleBroken, match="1 to 400 days"):
        period_of("Europe/London", date(2016, 1, 2), date(2016, 1, 2))
    with pytest.raises(RuleBroken, match="half hour"):
        Period(date(2016, 1, 1), date(2016, 1, 2), 1, 2, "Europe/London", offsets)
    with pytest.raises(InvalidArgument, match="IANA"):
        zone_offsets("Europe/Atlantis")


def test_the_golden_bill_is_canonical() -> None:
    data = (GOLDEN / "bill.json").read_bytes()
    assert json.loads(data) == canonical.decode(data)
