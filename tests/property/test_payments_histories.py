"""Whatever happens to payments and transfers: everything sums to zero, rules hold, and the log of movements replays to the same balances."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from services.payments.domain import payment as rules
from services.payments.domain.books import (
    CREDITS_WITHIN_DEBITS,
    DEBITS_WITHIN_CREDITS,
    FREE,
    PENDING,
    POST_PENDING,
    POSTED,
    VOID_PENDING,
    Account,
    Books,
    Movement,
    Transfer,
    post,
    sums,
)
from services.payments.domain.errors import RuleBroken
from services.payments.domain.payment import Operation, Payment, Step

HISTORIES, STEPS_MAX, AMOUNT_MAX = 100_000, 4, 1_000
EFFECTS = {POSTED: (0, 1, 0), PENDING: (1, 0, 0), POST_PENDING: (0, 1, 1), VOID_PENDING: (0, 0, 1)}
"""kind -> (amount to pending, amount to posted, held off pending)."""


def replayed(movements: Sequence[Movement]) -> dict[str, list[int]]:
    """Account -> number and the four sums, from the log alone and without the rules."""
    found: dict[str, list[int]] = {}
    for moved in movements:
        to_pending, to_posted, off = EFFECTS[moved.kind]
        pending, posted = to_pending * moved.amount_minor - off * moved.held_minor, to_posted * moved.amount_minor
        for name, at in ((moved.debit, 1), (moved.credit, 3)):
            sides = found.setdefault(name, [0, 0, 0, 0, 0])
            sides[0] += 1
            sides[at] += pending
            sides[at + 1] += posted
    return found


def standing(books: Books) -> dict[str, list[int]]:
    return {a.id: [a.number, *a.balance()] for a in books.accounts.values() if a.number}


def new_books(number: int) -> Books:
    names = {
        f"payer/{number}": DEBITS_WITHIN_CREDITS,
        "payee/parking": DEBITS_WITHIN_CREDITS,
        "provider/clearing": FREE,
    }
    return Books({name: Account(name, "GBP", rule) for name, rule in names.items()})


def next_step(payment: Payment, dice: random.Random) -> Step:
    if payment.state == rules.CAPTURED:
        return rules.refund(payment, dice.randint(1, AMOUNT_MAX), "")
    if dice.random() < 0.2:
        return rules.void(payment)
    return rules.capture(payment, dice.randint(1, AMOUNT_MAX))


def settled(payment: Payment, operation: Operation, dice: random.Random) -> Step:
    return rules.settled(payment, operation, done=dice.random() < 0.8, reason="")


def history(number: int, dice: random.Random) -> tuple[Payment, Books, list[Movement]]:
    """One payment from its authorisation on; wrong steps are refused and change nothing."""
    books, movements = new_books(number), []
    amount = dice.randint(1, AMOUNT_MAX)
    step = rules.authorise(Payment("p", "parking", "r", "", f"payer/{number}", "GBP", amount))
    payment = step.payment
    for _ in range(dice.randint(1, STEPS_MAX)):
        movements += post(books, step.transfers, 0)
        assert step.operation is not None
        after = settled(step.payment, step.operation, dice)
        movements += post(books, after.transfers, 0)
        assert sums(books.accounts.values()) == {"GBP": 0}
        payment = after.payment
        try:
            step = next_step(payment, dice)
        except RuleBroken:
            break
    return payment, books, movements


def test_a_hundred_thousand_payment_histories_sum_to_zero_and_replay() -> None:
    dice = random.Random(4)
    captured = refunded = paid = 0
    for number in range(HISTORIES):
        payment, books, movements = history(number, dice)
        assert replayed(movements) == standing(books)
        payee = books.accounts["payee/parking"]
        assert payee.credits_posted - payee.debits_posted == payment.captured_minor - payment.refunded_minor
        assert 0 <= payment.refunded_minor <= payment.captured_minor <= payment.authorised_minor
        captured, refunded = captured + payment.captured_minor, refunded + payment.refunded_minor
        paid += payee.credits_posted - payee.debits_posted
    assert paid == captured - refunded
    assert captured > refunded > 0


NAMES = {"a": FREE, "b": DEBITS_WITHIN_CREDITS, "c": CREDITS_WITHIN_DEBITS, "d": FREE}
TRANSFERS = st.builds(
    Transfer,
    st.uuids().map(str),
    st.sampled_from([POSTED, POSTED, PENDING]),
    st.sampled_from(sorted(NAMES)),
    st.sampled_from(sorted(NAMES)),
    st.integers(1, 2**53),
    st.just("GBP"),
)
ENDS = st.tuples(st.sampled_from([POST_PENDING, VOID_PENDING]), st.integers(0, 30), st.integers(0, 20))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.lists(TRANSFERS, min_size=1, max_size=4), ENDS), max_size=25))
def test_linked_transfers_are_all_or_none_and_no_rule_is_broken(requests: list[object]) -> None:
    books = Books({name: Account(name, "GBP", rule) for name, rule in NAMES.items()})
    movements: list[Movement] = []
    for number, request in enumerate(requests):
        chosen = request if isinstance(request, list) else ending(books, number, request)
        before = copy.deepcopy(books)
        try:
            movements += post(books, chosen, 0)
        except RuleBroken:
            books = before
        assert sums(books.accounts.values()) == {"GBP": 0}
        for account in books.accounts.values():
            require_rule(account)
    assert replayed(movements) == standing(books)


def ending(books: Books, number: int, chosen: object) -> list[Transfer]:
    """The second half of some hold, if there is one."""
    assert isinstance(chosen, tuple)
    kind, amount, at = chosen
    pending = sorted(books.holds)[at % len(books.holds)] if books.holds else "none"
    return [Transfer(f"end-{number}", kind, amount_minor=0 if kind == VOID_PENDING else amount, pending=pending)]


def require_rule(account: Account) -> None:
    debits, credits_ = account.debits_pending + account.debits_posted, account.credits_pending + account.credits_posted
    assert min(account.balance()) >= 0
    assert max(debits, credits_) < 2**53
    assert account.rule != DEBITS_WITHIN_CREDITS or debits <= account.credits_posted
    assert account.rule != CREDITS_WITHIN_DEBITS or credits_ <= account.debits_posted
