"""Distances on foot."""

from __future__ import annotations

import pytest

from services.parking.domain.geo import distance_m, is_near, reach_m, walk_minutes

LONDON, BIRMINGHAM = (515_074_000, -1_278_000), (524_862_000, -18_904_000)


def test_distances() -> None:
    assert distance_m(LONDON, LONDON) == 0
    assert distance_m(LONDON, BIRMINGHAM) == distance_m(BIRMINGHAM, LONDON) == pytest.approx(162_700, rel=0.005)
    assert distance_m((0, 0), (10_000_000, 0)) == pytest.approx(111_195, abs=1)
    assert distance_m((0, 1_799_999_999), (0, -1_799_999_999)) == 0


def test_minutes_on_foot_are_rounded_up_and_count_the_way_around() -> None:
    assert [walk_minutes(metres) for metres in (0, 1, 60, 61, 600)] == [0, 1, 1, 2, 10]


def test_the_quick_look_leaves_out_only_what_is_out_of_reach() -> None:
    reach = reach_m(10)
    for step in range(0, 80_000, 7):
        place = (BIRMINGHAM[0] + step, BIRMINGHAM[1])
        if walk_minutes(distance_m(BIRMINGHAM, place)) <= 10:
            assert is_near(BIRMINGHAM, place, reach)
    assert not is_near(LONDON, BIRMINGHAM, reach)
