"""A reservation's life: which change is allowed when, and what it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from services.parking.domain import reservation as life
from services.parking.domain.errors import AmountInvalid, SpanInvalid, WrongState
from services.parking.domain.reservation import Reservation, Use

NINE = 1_478_595_600
HOUR, QUARTER = 3_600, 900
USE = Use(7, "lock-1", 3)


def held(**changes: object) -> Reservation:
    one = Reservation(
        "reservation-1", "ada", "lot", "bay-1", NINE, NINE + HOUR, NINE - 600, 240, "GBP", "bays", 1
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]  # names of its own fields


def test_the_usual_life() -> None:
    one = life.confirming(held(), "mandate", NINE - 1_200)
    assert (one.state, one.version, one.hold_until) == ("confirming", 2, NINE + 600)
    one = life.settled(one, authorised=True)
    one = life.extended(one, NINE + 2 * HOUR, 480)
    one = life.entered(one, NINE + 60, USE)
    one = life.left(one, NINE + HOUR + 60, Use(8, "lock-1", 4), 300)
    assert (one.state, one.version, one.price_minor, one.promised) == ("ended", 6, 300, False)
    assert (one.entry_time, one.exit_time, one.access) == (NINE + 60, NINE + HOUR + 60, Use(8, "lock-1", 4))
    assert life.used_until(one) == NINE + HOUR + QUARTER
    assert life.refunded(one, 100).price_minor == 200
    assert list(held().slots) == list(range(NINE // 900, NINE // 900 + 4))


def test_the_wait_for_an_answer_is_never_shorter_than_the_hold_and_the_start() -> None:
    assert life.confirming(held(hold_until=NINE + 9_000), "", NINE).hold_until == NINE + 9_000
    assert life.confirming(held(hold_until=NINE + 9_000), "", NINE + 8_000).hold_until == NINE + 9_800


@pytest.mark.parametrize(
    ("act", "allowed"),
    [
        (lambda one: life.confirming(one, "mandate", NINE - 900), {"held"}),
        (lambda one: life.settled(one, authorised=False), {"confirming"}),
        (lambda one: life.extended(one, NINE + 2 * HOUR, 1), {"confirmed", "active"}),
        (lambda one: life.entered(one, NINE, USE), {"confirmed"}),
        (lambda one: life.left(one, NINE, USE, 1), {"active"}),
        (lambda one: life.cancelled(one, 0), {"held", "confirmed"}),
        (lambda one: life.not_come(one, 0), {"confirmed"}),
        (life.expired, {"held", "confirming"}),
        (lambda one: life.refunded(one, 1), {"ended", "cancelled", "no-show"}),
        (lambda one: life.expected_act(one, "", had_entry=True), {"confirmed", "active"}),
    ],
)
def test_each_change_is_allowed_in_its_states_only(act: Callable[[Reservation], object], allowed: set[str]) -> None:
    for state in (*sorted(life.OPEN), *sorted(life.OVER)):
        one = held(state=state, price_minor=5)
        if state in allowed:
            act(one)
        else:
            with pytest.raises(WrongState, match=f"that is {state}; only one that is"):
                act(one)


def test_a_hold_that_has_ended_is_not_confirmed() -> None:
    with pytest.raises(WrongState, match="hold a bay again"):
        life.confirming(held(), "mandate", NINE - 599)


@pytest.mark.parametrize(
    ("from_time", "to_time", "said"),
    [
        (NINE + 1, NINE + HOUR, "whole quarters"),
        (NINE, NINE + HOUR + 1, "whole quarters"),
        (NINE, NINE, "a quarter of an hour to a day"),
        (NINE, NINE + 86_400 + QUARTER, "a quarter of an hour to a day"),
        (NINE - 2 * QUARTER, NINE + HOUR, "within 30 days"),
        (NINE + 31 * 86_400, NINE + 31 * 86_400 + HOUR, "within 30 days"),
    ],
)
def test_a_span_that_cannot_be_reserved(from_time: int, to_time: int, said: str) -> None:
    with pytest.raises(SpanInvalid, match=said):
        life.require_span(from_time, to_time, NINE)


def test_a_span_may_have_begun_in_this_quarter() -> None:
    life.require_span(NINE - QUARTER, NINE + QUARTER, NINE)
    with pytest.raises(SpanInvalid):
        life.require_span(NINE - QUARTER, NINE, NINE)


@pytest.mark.parametrize("to_time", [NINE + HOUR, NINE + 2 * HOUR + 1, NINE + 86_400 + QUARTER])
def test_an_extension_ends_later_within_a_day(to_time: int) -> None:
    with pytest.raises(SpanInvalid, match="later whole quarter"):
        life.extended(held(state="confirmed"), to_time, 1)


@pytest.mark.parametrize("amount", [-1, 0, 301, 2**63])
def test_a_refund_is_above_zero_and_at_most_the_price(amount: int) -> None:
    with pytest.raises(AmountInvalid, match="1 to 300"):
        life.refunded(held(state="ended", price_minor=300), amount)


def test_what_the_next_document_is_for() -> None:
    confirmed, active = held(state="confirmed"), held(state="active")
    assert life.expected_act(confirmed, "", had_entry=False) == "entry"
    assert life.expected_act(active, "", had_entry=True) == "exit"
    assert life.expected_act(confirmed, "exit", had_entry=True) == "exit"
    with pytest.raises(WrongState, match="nobody has been let in"):
        life.expected_act(confirmed, "exit", had_entry=False)
    with pytest.raises(WrongState, match="the car is in"):
        life.expected_act(active, "entry", had_entry=True)
    with pytest.raises(SpanInvalid, match="entry, exit or empty"):
        life.expected_act(active, "open", had_entry=True)


def test_a_clock_that_runs_behind_ends_no_session_before_it_began() -> None:
    one = held(state="active", entry_time=NINE + 100)
    assert life.left(one, NINE + 50, USE, 1).exit_time == NINE + 100
    assert life.used_until(one) == NINE + HOUR
