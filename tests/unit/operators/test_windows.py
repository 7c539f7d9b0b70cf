"""Windows in local time when clocks change, over midnight and from another zone; freezes; and the order of services."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from operators.city.model import Freeze, Window
from operators.city.order import dependencies_first, find_cycle
from operators.city.windows import freeze_at, is_open, next_opening

EVERY = (0, 1, 2, 3, 4, 5, 6)
BERLIN = Window(EVERY, "02:30", 60, "Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "at", "opened"),
    [
        (BERLIN, "2026-12-01T01:30", True),  # 02:30, winter
        (BERLIN, "2026-12-01T01:29", False),
        (BERLIN, "2026-12-01T02:29", True),
        (BERLIN, "2026-12-01T02:30", False),
        (BERLIN, "2026-07-01T00:30", True),  # 02:30, summer
        (BERLIN, "2026-07-01T01:30", False),
        # 29 March 2026: clocks go from 02:00 to 03:00, there is no 02:30; it opens half an hour after the jump, at 03:30 = 01:30 UTC
        (BERLIN, "2026-03-29T01:29", False),
        (BERLIN, "2026-03-29T01:30", True),
        (BERLIN, "2026-03-29T02:29", True),
        (BERLIN, "2026-03-29T02:30", False),
        # 25 October 2026: clocks go from 03:00 back to 02:00; of the two 02:30 the first counts, and an hour is an hour
        (BERLIN, "2026-10-25T00:30", True),
        (BERLIN, "2026-10-25T01:29", True),
        (BERLIN, "2026-10-25T01:30", False),
        # over midnight: it belongs to the day it began on (1 December 2026 is a Tuesday)
        (Window((1,), "23:00", 120), "2026-12-02T00:59", True),
        (Window((1,), "23:00", 120), "2026-12-01T00:59", False),
        (Window((1,), "23:00", 1_440), "2026-12-02T22:59", True),
        (Window((), "23:00", 120), "2026-12-01T23:00", False),
        # 14 hours ahead of UTC: Wednesday there while it is Tuesday here
        (Window((2,), "00:00", 60, "Pacific/Kiritimati"), "2026-12-01T10:00", True),
    ],
)
def test_when_a_window_is_open(window: Window, at: str, opened: bool) -> None:
    assert is_open((window,), utc(at)) is opened
    assert is_open((Window((), "00:00", 1), window), utc(at)) is opened


def test_when_the_next_one_opens() -> None:
    now = utc("2026-12-01T12:00")
    found = next_opening((Window((0,), "02:00", 60), BERLIN), now)
    assert found is not None
    assert (found[0].isoformat(), found[1]) == ("2026-12-02T02:30:00+01:00", "Europe/Berlin")
    week = next_opening((Window((1,), "11:00", 60),), now)
    assert week is not None and week[0] == utc("2026-12-08T11:00"), "a week ahead at most"
    assert next_opening((), now) is None
    assert next_opening((Window((), "00:00", 1),), now) is None


def test_of_several_freezes_the_last_to_end_is_told() -> None:
    now, hour = utc("2026-12-01T12:00"), timedelta(hours=1)
    past, short, long = Freeze(now - hour, now, "a"), Freeze(now, now + hour, "b"), Freeze(now, now + 2 * hour, "c")
    assert freeze_at((past, long, short), now) == long
    assert freeze_at((past,), now) is None
    assert freeze_at((), now) is None


# --- order ------------------------------------------------------------------------------------------------


def test_dependencies_come_first_and_otherwise_the_order_stays() -> None:
    depends = {"a": ["c"], "c": ["d"], "b": []}
    assert dependencies_first(["a", "b", "c", "d"], depends) == ("b", "d", "c", "a")
    assert dependencies_first(["a", "b"], {"a": ["elsewhere"]}) == ("a", "b"), "what is not there holds nothing up"
    assert find_cycle(["a", "b", "c", "d"], depends) == ()
    assert dependencies_first([], {}) == ()


def test_a_cycle_is_named_without_what_only_depends_on_it() -> None:
    depends = {"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a"], "d": []}
    assert dependencies_first(["x", "a", "b", "c", "d"], depends) == ("d", "x", "a", "b", "c")
    assert find_cycle(["x", "a", "b", "c", "d"], depends) == ("a", "b", "c", "a")
    assert find_cycle(["a"], {"a": ["a"]}) == ("a", "a")
