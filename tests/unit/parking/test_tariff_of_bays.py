"""Parking tariffs: what can be one."""

from __future__ import annotations

from typing import Any

import pytest

from services.parking.domain.errors import TariffInvalid
from services.parking.domain.tariff import moment, parse_tariff
from tests.unit.parking.tariffs import band, tariff, window


def test_every_minute_of_the_week_has_its_band() -> None:
    found = parse_tariff(tariff())
    assert [found.bands[number].name for number in (found.week[479], found.week[480], found.week[1_080])] == [
        "night", "day", "night",
    ]  # fmt: skip
    assert found.overstay_max_minor == 8 * 150
    assert moment(1_440 + 7 * 60 + 30) == "Tuesday 07:30"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bands": [band("day", 60, 480, 1_440)]}, "Monday 00:00 is in no band"),
        ({"bands": [band("day", 60, 0, 450), band("late", 20, 451, 1_440)]}, "Monday 07:30 is in no band"),
        ({"bands": [band("day", 60, 0, 1_440), band("late", 20, 1_380, 1_440)]}, "Monday 23:00 is in two bands: day and late"),
        ({"cap_minor_per_day": 10_000_001}, "cap_minor_per_day is an integer from 0 to 10000000"),
        ({"cap_minor_per_day": 2**70}, "cap_minor_per_day is an integer"),
        ({"grace_minutes": True}, "grace_minutes is an integer"),
        ({"step_minutes": 0}, "step_minutes is an integer from 1"),
        ({"currency": "pounds"}, "three capital letters"),
        ({"currency": "gbp"}, "three capital letters"),
        ({"id": ""}, "texts of 1 to 64"),
        ({"zone": 1}, "texts of 1 to 64"),
        ({"valid_from": "2016-13-01"}, "valid_from is a date"),
        ({"valid_from": "20161001"}, "valid_from is a date"),
        ({"more": 1}, "exactly the fields"),
        ({"bands": []}, "1 to 50 bands"),
        ({"bands": "day"}, "1 to 50 bands"),
        ({"bands": [1]}, "1 to 50 bands"),
        ({"bands": [{**band("day", 60, 0, 1_440), "more": 1}]}, "a band has name"),
        ({"bands": [{**band("day", 60, 0, 1_440), "name": 1}]}, "a band has name"),
        ({"bands": [band("day", -1, 0, 1_440)]}, "price_minor_per_step is an integer"),
        ({"bands": [{**band("day", 60, 0, 1_440), "price_minor_per_step": 1.5}]}, "price_minor_per_step is an integer"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": None}]}, "windows is a list"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": [{}]}]}, "a window has days"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": ["x"]}]}, "a window has days"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": [window(0, 1_441)]}]}, "days are 0"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": [window(0, 1_440, [7])]}]}, "days are 0"),
        ({"bands": [{**band("day", 60, 0, 1_440), "windows": [{**window(0, 1_440), "days": 1}]}]}, "days are 0"),
    ],
)  # fmt: skip
def test_a_tariff_that_cannot_be_one_says_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TariffInvalid, match=said):
        parse_tariff(tariff(**changes))
