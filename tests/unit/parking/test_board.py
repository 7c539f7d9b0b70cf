"""The board proposes and refuses; where it is wrong, the table decides."""

from __future__ import annotations

from dataclasses import replace

from services.parking.app.board import Board, Proposal
from services.parking.domain.lots import ALWAYS, Lot
from services.parking.domain.reservation import Reservation
from services.parking.store.reservations import Promise

NINE, HOUR = 1_478_595_600, 3_600
SLOTS = range(NINE // 900, NINE // 900 + 4)
LOT = Lot("lot", "Lot", "city", 10, 0, 0, ALWAYS, "bays", ("bay-1", "bay-2"), (), "lock-1")


def taken(number: int, slots: range = SLOTS) -> Promise:
    return Promise(f"reservation-{number}", "lot", f"bay-{number}", slots)


def one(number: int, state: str, hold_until: int = NINE) -> Reservation:
    return Reservation(
        f"reservation-{number}",
        "ada",
        "lot",
        f"bay-{number}",
        NINE,
        NINE + HOUR,
        hold_until,
        1,
        "GBP",
        "bays",
        1,
        state=state,
    )


def full(hold_until: int = NINE) -> Board:
    board = Board()
    assert board.load([taken(1), taken(2)], {"reservation-1": hold_until, "reservation-2": hold_until}, 0)
    return board


def test_it_refuses_what_is_full_and_counts_what_is_free() -> None:
    board = full()
    assert board.propose(LOT, SLOTS, NINE) is None
    assert (board.free(LOT, SLOTS), board.free(LOT, range(SLOTS.stop, SLOTS.stop + 1))) == (0, 2)
    assert board.propose(LOT, range(SLOTS.stop - 1, SLOTS.stop + 1), NINE) is None


def test_holds_whose_time_is_up_are_no_hindrance() -> None:
    board = full()
    assert board.propose(LOT, SLOTS, NINE + 1) == Proposal("bay-1", ("reservation-1",))
    assert board.propose(LOT, range(SLOTS.stop, SLOTS.stop + 1), NINE + 1) == Proposal("bay-1")
    board.put(one(1, "confirmed"))
    assert board.propose(LOT, SLOTS, NINE + 1) == Proposal("bay-2", ("reservation-2",))
    board.put(one(2, "active"))
    assert board.propose(LOT, SLOTS, NINE + 1) is None


def test_a_bay_that_is_being_promised_is_not_proposed_again() -> None:
    board = full()
    board.mark("reservation-3", "lot", "bay-1", SLOTS)
    assert board.propose(LOT, SLOTS, NINE + 1) == Proposal("bay-2", ("reservation-2",))
    board.put(one(1, "expired"))
    board.sure("reservation-3", NINE + HOUR)
    assert board.propose(LOT, SLOTS, NINE + 1) == Proposal("bay-2", ("reservation-2",))
    board.mark("reservation-4", "lot", "bay-1", SLOTS)
    board.mark("reservation-5", "lot", "bay-1", SLOTS)
    for number in (3, 4):
        board.drop(f"reservation-{number}")
        assert board.free(LOT, SLOTS) == 0
    board.drop("reservation-5")
    assert board.free(LOT, SLOTS) == 1


def test_it_learns_what_the_table_says_against_it() -> None:
    board = Board()
    board.mark("reservation-3", "lot", "bay-1", SLOTS)
    board.drop("reservation-3")
    board.learn(taken(1))
    assert board.propose(LOT, SLOTS, NINE) == Proposal("bay-2")
    board.mark("reservation-2", "lot", "bay-2", SLOTS)
    board.learn(taken(2, range(0, 1)))
    assert board.propose(LOT, SLOTS, NINE) is None


def test_it_is_made_anew_only_where_nothing_moved_meanwhile() -> None:
    board = full()
    changes = board.changes
    board.put(one(1, "cancelled"))
    assert not board.load([taken(1), taken(2)], {}, changes)
    assert board.free(LOT, SLOTS) == 1
    board.mark("reservation-3", "lot", "bay-1", SLOTS)
    assert not board.load([], {}, board.changes)
    board.put(replace(one(3, "held"), bay="bay-1"))
    assert board.load([taken(2)], {}, board.changes)
    assert board.free(LOT, SLOTS) == 1


def test_a_lots_bays_can_change() -> None:
    board = full()
    more = replace(LOT, bays=("bay-2", "bay-3"))
    assert board.propose(more, SLOTS, NINE) == Proposal("bay-3")
    assert board.free(replace(LOT, bays=()), SLOTS) == 0
