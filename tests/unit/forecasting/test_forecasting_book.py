"""The book of observations: what a snapshot holds, what is let go, and the bytes it is handed over in."""

from __future__ import annotations

from array import array
from math import isnan, nan

from services.forecasting.app.book import Book
from services.forecasting.app.snapshot import Snapshot

SLOT = 1_800
START = 1_475_535_600  # midnight in London, an hour before midnight UTC
DAY = 48


def numbers(data: bytes) -> list[float | None]:
    found = array("f")
    found.frombytes(data)
    return [None if isnan(value) else value for value in found]


def put(book: Book, series: str, slot: int, value: float, capacity: float = nan) -> None:
    book.put(series, START + slot * SLOT, value, capacity)


def test_a_snapshot_has_the_series_side_by_side_with_gaps_and_ends_where_it_is_asked_to() -> None:
    book = Book("Europe/London", 120 * DAY)
    put(book, "city/b", 3, 30)
    put(book, "city/a", 1, 10)
    put(book, "city/a", 4, 40)
    put(book, "city/a", 0, 5)
    found = book.snapshot(["city/a", "city/b"], START + 4 * SLOT)
    assert (found.names, found.length, found.capacity) == (("city/a", "city/b"), 4, b"")
    assert numbers(found.values) == [5, 10, None, None, None, None, None, 30]
    assert book.names("city/") == ["city/a", "city/b"] and book.count("city/a") == 3
    assert book.span(["city/a", "city/b"], START + 4 * SLOT) == 4
    assert book.last_time == {"city/a": START + 4 * SLOT, "city/b": START + 3 * SLOT}


def test_a_count_is_of_the_half_hour_it_is_nearest_to() -> None:
    book = Book("Europe/London", 120 * DAY)
    for after, value in ((4 * 60, 1), (SLOT - 3 * 60, 2), (3 * SLOT - 14 * 60, 4)):
        book.put("parking/a", START + after, value, nan)
    assert numbers(book.snapshot(["parking/a"], START + 4 * SLOT).values) == [1, 2, None, 4]


def test_capacities_go_along_where_there_are_any() -> None:
    book = Book("Europe/London", 120 * DAY)
    put(book, "city/a", 0, 1, 100)
    put(book, "city/a", 2, 3)
    put(book, "city/b", 1, 2)
    put(book, "city/a", -1, 0, 90)
    found = book.snapshot(["city/a", "city/b"], START + 3 * SLOT)
    assert numbers(found.capacity) == [90, 100, None, None, None, None, None, None]


def test_a_value_said_again_replaces_the_first_and_is_another_version() -> None:
    book = Book("Europe/London", 120 * DAY)
    put(book, "city/a", 0, 1)
    before = book.version("city/a")
    put(book, "city/a", 0, 2)
    assert (book.count("city/a"), book.version("city/a")) == (1, before + 1)
    assert numbers(book.snapshot(["city/a"], START + SLOT).values) == [2]


def test_history_is_bounded() -> None:
    book = Book("Europe/London", history_slots=10)
    for slot in range(100):
        put(book, "city/a", slot, slot)
    put(book, "city/a", -100, 1)
    found = book.snapshot(["city/a"], START + 100 * SLOT)
    assert numbers(found.values) == list(range(90, 100)) and book.count("city/a") <= 20
    put(book, "city/a", 1_000_000, 7)
    assert book.count("city/a") == 1, (
        "a sensor that wakes after years starts anew, and does not fill memory with its sleep"
    )
    assert len(book.snapshot(["city/a"], START + 1_000_001 * SLOT).values) == 4


def test_a_snapshot_before_everything_is_empty() -> None:
    book = Book("Europe/London", 120 * DAY)
    put(book, "city/a", 50, 1)
    assert book.snapshot(["city/a"], START) == Snapshot(
        ("city/a",), book.snapshot(["city/a"], START).first, 0, b"", b""
    )


def test_the_hour_that_clocks_leave_out_is_a_gap_and_the_hour_seen_twice_keeps_its_later_value() -> None:
    book = Book("Europe/London", 120 * DAY)
    back = 1_477_785_600  # 00:00 UTC: 01:00 in London, for the first time
    for half_hour in range(4):
        book.put("city/a", back + half_hour * SLOT, half_hour, nan)
    assert numbers(book.snapshot(["city/a"], back + 4 * SLOT).values) == [2, 3]
    forward = 1_490_490_000
    for half_hour in (-1, 0):
        book.put("city/b", forward + half_hour * SLOT, half_hour, nan)
    assert numbers(book.snapshot(["city/b"], forward + SLOT).values) == [-1, None, None, 0]
    targets = dict(book.target_columns(0, forward - SLOT, 2))
    assert targets[forward] - targets[forward - SLOT] == 3
