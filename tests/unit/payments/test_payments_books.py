"""The rules of the books: balances, rules, holds, ids, form; postings byte by byte."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from citykit import canonical
from services.payments.domain.books import (
    BALANCE_MAX,
    CREDITS_WITHIN_DEBITS,
    DEBITS_WITHIN_CREDITS,
    FREE,
    PENDING,
    POST_PENDING,
    POSTED,
    VOID_PENDING,
    Account,
    Balance,
    Books,
    Movement,
    Transfer,
    post,
    require_same,
    same_again,
    sums,
)
from services.payments.domain.errors import Invalid, Missing, Refused, Reused, RuleBroken, Unbalanced
from services.payments.domain.form import (
    AMOUNT_MAX,
    TIMEOUT_MAX_S,
    require_accounts,
    require_amount,
    require_currency,
    require_transfers,
)
from services.payments.domain.posting import documents, posting_salts, set_documents, set_salt

NOW = 1_000


def books(*accounts: Account) -> Books:
    chosen = accounts or (
        Account("a", "GBP", FREE),
        Account("b", "GBP", DEBITS_WITHIN_CREDITS),
        Account("c", "GBP", FREE),
    )
    return Books({account.id: account for account in chosen})


def posted(id_: str, debit: str, credit: str, amount: int, currency: str = "GBP") -> Transfer:
    return Transfer(id_, POSTED, debit, credit, amount, currency)


def held(id_: str, debit: str, credit: str, amount: int, timeout_s: int = 0) -> Transfer:
    return Transfer(id_, PENDING, debit, credit, amount, "GBP", timeout_s=timeout_s)


def test_a_transfer_moves_both_sides() -> None:
    there = books()
    first, second = post(there, [posted("1", "a", "b", 50), posted("2", "b", "c", 20)], NOW)
    assert first.debit_balance == Balance(0, 50, 0, 0)
    assert (second.debit_number, second.debit_balance) == (2, Balance(0, 20, 0, 50))
    assert sums(there.accounts.values()) == {"GBP": 0}


def test_a_hold_is_taken_in_part_and_the_rest_let_go() -> None:
    there = books()
    post(there, [posted("1", "a", "b", 50), held("h", "b", "c", 50)], NOW)
    assert there.accounts["b"].balance() == Balance(50, 0, 0, 50)
    ended = post(there, [Transfer("e", POST_PENDING, pending="h", amount_minor=30)], NOW)[0]
    assert (ended.amount_minor, ended.held_minor, ended.currency, ended.debit) == (30, 50, "GBP", "b")
    assert there.accounts["c"].balance() == Balance(0, 0, 0, 30)
    post(there, [held("g", "b", "c", 20)], NOW)
    whole = post(there, [Transfer("f", POST_PENDING, "b", "c", 0, "GBP", "g")], NOW)[0]
    assert whole.amount_minor == 20


def test_a_hold_is_voided_or_expires() -> None:
    there = books()
    post(there, [held("h", "a", "b", 5, timeout_s=10), held("g", "a", "b", 7)], NOW)
    assert there.holds["h"].expires_at == NOW + 10
    with pytest.raises(Refused) as late:
        post(there, [Transfer("e", POST_PENDING, pending="h")], NOW + 10)
    assert late.value.reason == "hold-expired"
    void = post(there, [Transfer("v", VOID_PENDING, pending="h")], NOW + 10)[0]
    assert (void.amount_minor, void.held_minor) == (0, 5)
    with pytest.raises(Refused) as twice:
        post(there, [Transfer("w", VOID_PENDING, pending="h")], NOW)
    assert twice.value.reason == "hold-ended"
    assert there.accounts["a"].debits_pending == 7


@pytest.mark.parametrize(
    ("transfer", "kind", "reason"),
    [
        (posted("1", "x", "b", 1), Missing, "not-found"),
        (posted("1", "a", "x", 1), Missing, "not-found"),
        (posted("1", "a", "b", 1, "EUR"), Refused, "currency-mix"),
        (posted("1", "b", "a", 1), Refused, "debits-exceed-credits"),
        (held("1", "b", "a", 1), Refused, "debits-exceed-credits"),
        (posted("1", "a", "d", 1), Refused, "credits-exceed-debits"),
        (posted("1", "e", "a", 1), Refused, "overflow"),
        (posted("1", "a", "f", 1), Refused, "overflow"),
        (Transfer("1", POST_PENDING, pending="none"), Missing, "not-found"),
        (Transfer("1", POST_PENDING, pending="h", amount_minor=6), Refused, "over-hold"),
        (Transfer("1", POST_PENDING, debit="c", pending="h"), Refused, "hold-differs"),
    ],
)
def test_what_the_books_do_not_allow(transfer: Transfer, kind: type[RuleBroken], reason: str) -> None:
    there = books(
        *books().accounts.values(),
        Account("d", "GBP", CREDITS_WITHIN_DEBITS),
        Account("e", "GBP", FREE, debits_posted=BALANCE_MAX),
        Account("f", "GBP", FREE, credits_posted=BALANCE_MAX),
    )
    post(there, [held("h", "a", "b", 5)], NOW)
    with pytest.raises(kind) as found:
        post(there, [transfer], NOW)
    assert found.value.reason == reason
    assert found.value.field.startswith("transfers.")


def test_credits_stay_within_debits() -> None:
    there = books(Account("a", "GBP", FREE), Account("d", "GBP", CREDITS_WITHIN_DEBITS))
    post(there, [posted("1", "d", "a", 5), posted("2", "a", "d", 5)], NOW)
    with pytest.raises(Refused):
        post(there, [posted("3", "a", "d", 1)], NOW)


def test_a_step_that_would_not_balance_is_stopped() -> None:
    with pytest.raises(Unbalanced, match="would be"):
        require_same({"GBP": 0}, {"GBP": 1})


def test_the_same_transfer_again_and_another_under_its_id() -> None:
    there = books()
    first, hold = post(there, [posted("1", "a", "b", 5), held("h", "a", "b", 9, 60)], NOW)
    taken = post(there, [Transfer("e", POST_PENDING, pending="h", amount_minor=9)], NOW)[0]
    same_again(posted("1", "a", "b", 5), first)
    same_again(held("h", "a", "b", 9, 60), hold)
    same_again(Transfer("e", POST_PENDING, pending="h"), taken)
    for asked, before in (
        (posted("1", "a", "b", 6), first),
        (posted("1", "a", "c", 5), first),
        (held("h", "a", "b", 9), hold),
        (Transfer("e", POST_PENDING, pending="h", amount_minor=8), taken),
        (Transfer("1", POSTED, "a", "b", 5, "GBP", reference="other"), first),
    ):
        with pytest.raises(Reused):
            same_again(asked, before)


GOOD = posted("1", "a", "b", 5)


@pytest.mark.parametrize(
    ("transfer", "field"),
    [
        (GOOD._replace(id=""), "transfers.id"),
        (GOOD._replace(id="x" * 101), "transfers.id"),
        (GOOD._replace(id="a\nb"), "transfers.id"),
        (GOOD._replace(id="system/1"), "transfers.id"),
        (GOOD._replace(reference="x" * 101), "transfers.reference"),
        (GOOD._replace(reference="a\x00"), "transfers.reference"),
        (GOOD._replace(kind=""), "transfers.kind"),
        (GOOD._replace(amount_minor=0), "transfers.amount_minor"),
        (GOOD._replace(amount_minor=AMOUNT_MAX + 1), "transfers.amount_minor"),
        (GOOD._replace(amount_minor=-5), "transfers.amount_minor"),
        (GOOD._replace(currency="gbp"), "transfers.currency"),
        (GOOD._replace(credit="a"), "transfers.credit_account"),
        (GOOD._replace(pending="h"), "transfers.pending"),
        (GOOD._replace(timeout_s=1), "transfers.timeout_s"),
        (held("1", "a", "b", 5, TIMEOUT_MAX_S + 1), "transfers.timeout_s"),
        (held("1", "a", "b", 5, -1), "transfers.timeout_s"),
        (Transfer("1", POST_PENDING), "transfers.pending"),
        (Transfer("1", POST_PENDING, pending="h", timeout_s=1), "transfers.timeout_s"),
        (Transfer("1", POST_PENDING, pending="h", amount_minor=-1), "transfers.amount_minor"),
        (Transfer("1", VOID_PENDING, pending="h", amount_minor=1), "transfers.amount_minor"),
    ],
)
def test_a_transfers_form(transfer: Transfer, field: str) -> None:
    with pytest.raises(Invalid) as found:
        require_transfers([transfer])
    assert found.value.field == field


def test_forms_that_hold() -> None:
    require_transfers([GOOD, held("2", "a", "b", 1, 60), Transfer("3", VOID_PENDING, pending="2")])
    require_transfers([Transfer("3", POST_PENDING, pending="2", amount_minor=1)])
    require_accounts([Account("fund/a-1.b", "GBP", FREE)])
    assert require_amount(AMOUNT_MAX) == AMOUNT_MAX
    require_currency("EUR", "currency")
    for wrong in ([], [GOOD, GOOD], [GOOD._replace(id=str(n)) for n in range(1_001)]):
        with pytest.raises(Invalid):
            require_transfers(wrong)


@pytest.mark.parametrize(
    "accounts",
    [
        [],
        [Account("a", "GBP", FREE)] * 2,
        [Account("A", "GBP", FREE)],
        [Account("payee/parking", "GBP", FREE)],
        [Account("a", "pounds", FREE)],
        [Account("a", "GBP", "")],
    ],
)
def test_an_accounts_form(accounts: list[Account]) -> None:
    with pytest.raises(Invalid) as found:
        require_accounts(accounts)
    assert found.value.field.startswith("accounts")


def test_postings_are_the_canonical_bytes() -> None:
    there = books()
    moved = post(there, [GOOD._replace(id='t"\\1é', reference="bill/1 “x”")], NOW)[0]
    rules = {"a": FREE, "b": DEBITS_WITHIN_CREDITS}
    debit, credit = documents(moved, rules, "2016-10-04T00:00:00Z")
    for text, side, number in ((debit, "debit", 1), (credit, "credit", 1)):
        found = canonical.decode(text)
        assert (found["side"], found["number"], found["transfer"]) == (side, number, 't"\\1é')
    assert json.loads(debit) == {
        "account": "a", "amount_minor": 5, "counter": "b", "currency": "GBP", "format": "city.posting.v1", "held_minor": 0,
        "kind": "posted", "number": 1, "reference": "bill/1 “x”", "rule": "free", "side": "debit",
        "time": "2016-10-04T00:00:00Z", "transfer": 't"\\1é',
        "balance": {
            "debits_pending_minor": 0, "debits_posted_minor": 5, "credits_pending_minor": 0, "credits_posted_minor": 0,
        },
    }  # fmt: skip
    assert set_documents([moved], rules, "2016-10-04T00:00:00Z") == [debit, credit]


def test_salts_differ_and_come_from_the_seed() -> None:
    salts = [*posting_salts(b"1" * 32, 4), set_salt(b"1" * 32), *posting_salts(b"2" * 32, 4)]
    assert len(set(salts)) == 9
    assert {len(salt) for salt in salts} == {32}
    assert posting_salts(b"1" * 32, 2) == salts[:2]


def test_movements_are_rows() -> None:
    moved = post(books(), [GOOD], NOW)[0]
    assert Movement._make(list(moved)) == moved
    assert replace(books().accounts["a"], number=1).number == 1
