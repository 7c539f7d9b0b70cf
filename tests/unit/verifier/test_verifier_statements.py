"""The verifier on statements and receipts made from docs/PROOFS.md alone (statementmaker.py): whole ones hold, each change is named."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.verifier import sessionmaker, statementmaker
from tests.unit.verifier.bundlebytes import DeviceKey, canonical, package, senml, trust
from tests.unit.verifier.bundlemaker import Recipe, bill_bundle, package_bundle
from tests.unit.verifier.checking import Change, changed, check, failed, flip, put, swap
from tests.unit.verifier.statementmaker import BOOKS, CLEARING, FROM_TIME, PARKING, TO_TIME, Books, bundle_of, statement
from verifier.bundle import check_bundle
from verifier.trust import read_trust

WHOLE = statement(statementmaker.busy())
"""before: posting 2; sets of postings 3; 4 and 5; 6; 7; 8; 9; 10."""


@pytest.mark.parametrize(("name", "words"), [
    ("busy", "postings 3 to 10; posted in minor units GBP 665 debit, 1600 credit"),
    ("from the first", "postings 1 to 10;"),
    ("quiet", "no posting; posted in minor units GBP 666 debit"),
])  # fmt: skip
def test_a_whole_statement_holds(name: str, words: str) -> None:
    report = check(statement(BOOKS[name](3)), 3)
    assert failed(report) == ("", "")
    assert [step.name for step in report.steps][-3:] == ["inclusion", "consistency", "statement"]
    assert words in report.steps[-1].detail


def test_a_statement_says_what_is_held_and_that_more_may_follow() -> None:
    books = Books(from_time=FROM_TIME - statementmaker.DAY)
    books.move(FROM_TIME - 9, ("posted", "credit", 400, 0, CLEARING), ("pending", "debit", 300, 0, PARKING))
    notes = check(statement(books)).notes
    assert "GBP 300 in minor units is held and not yet decided" in notes
    assert any("the next statement's first number tells" in note for note in notes)


@pytest.mark.parametrize("rule", ["free", "credits-within-debits"])
def test_other_accounts_hold_as_well(rule: str) -> None:
    books = Books(rule=rule)
    books.move(FROM_TIME, ("posted", "debit", 500, 0, "payer/1"), ("pending", "credit", 500, 0, "payer/2"))
    books.move(FROM_TIME + 1, ("post-pending", "credit", 0, 500, "payer/2"))
    assert failed(check(statement(books))) == ("", "")
    over = Books(rule="credits-within-debits").move(FROM_TIME, ("pending", "credit", 1, 0, "payer/2"))
    assert failed(check(statement(over)))[1].endswith(
        "credits of 1 exceed posted debits of 0; the rule is credits-within-debits"
    )


# --- changes after the signing ----------------------------------------------------------------------------

_SALTED = ("sets", 1, "postings", 0)


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (lambda b: b.pop("closing"), "bundle-format", "lacks closing"),
        (put("before", value=[]), "bundle-format", "before is not of the right kind"),
        (put("from_time", value="0"), "bundle-format", "from_time"),
        (put("sets", 1, "index", value=3), "commitments", "entry 3 is in the bundle twice"),
        (put("sets", 0, "index", value=0), "inclusion", "not for the checkpoint's size"),
        (put("sets", 0, "salt", value=flip), "inclusion", "was changed"),
        (put(*_SALTED, "salt", value=flip), "inclusion", "was changed"),
        (put(*_SALTED, "document", "amount_minor", value=501), "inclusion", "was changed"),
        (put("before", "postings", 0, "document", "number", value=1), "inclusion", "was changed"),
        (put("sets", 1, "postings", value=swap), "inclusion", "was changed"),
        (put(*_SALTED, "more", value=1), "commitments", "nothing vouches for: more"),
        (put("sets", 0, "proof", "size", value=3), "commitments", "two postings a transfer"),
        (put("sets", 1, "proof", "indexes", value=swap), "commitments", "not in order"),
        (put("sets", 1, "proof", "indexes", value=[1, True]), "commitments", "not in order"),
        (put("sets", 1, "proof", "indexes", value=[1]), "commitments", "holds 2 postings and a proof for 1"),
        (put("sets", 1, "proof", "hashes", value=[]), "commitments", "lacks hashes"),
        (put("sets", 1, "postings", value=[]), "commitments", "holds 0 postings"),
        (lambda b: b["sets"].pop(3), "inclusion", "not for the checkpoint's size"),
        (put("sets", value=swap), "statement", "posting 4 (t-004) follows posting 2"),
        (put("account", value="payer/other"), "statement", "has account payer/3f9a; the statement is of payer/other"),
        (put("currency", value="EUR"), "statement", "has currency GBP"),
        (put("from_time", value=FROM_TIME + 1), "statement", "not of whole days"),
        (put("to_time", value=TO_TIME - 1), "statement", "not of whole days"),
        (put("to_time", value=FROM_TIME), "statement", "not of whole days"),
        (put("from_time", value=FROM_TIME - 86_400), "statement", "not before the range"),
        (put("from_time", value=FROM_TIME + 86_400), "statement", "outside the range"),
        (put("to_time", value=TO_TIME - 86_400), "statement", "outside the range"),
        (put("closing", "number", value=11), "statement", "closing is after posting 11; the last is 10"),
        (
            put("closing", "balance", "debits_posted_minor", value=664),
            "statement",
            "is 664; after posting 10 it is 665",
        ),
        (put("closing", "balance", "more", value=0), "statement", "nothing vouches for: more"),
        (put("closing", "balance", "debits_posted_minor", value=-1), "statement", "is negative"),
    ],
)
def test_a_change_is_found_by_the_step_whose_matter_it_is(change: Change, step: str, words: str) -> None:
    name, detail = failed(check(changed(WHOLE, change)))
    assert (name, words in detail) == (step, True), detail


def test_every_byte_of_a_statement_counts() -> None:
    good, source = canonical(WHOLE), random.Random(5)
    for at in source.sample(range(len(good)), 400):
        assert _found(good, at, good[at] ^ source.randrange(1, 256)), f"byte {at}"


@pytest.mark.parametrize("name", ["from_time", "to_time"])
def test_every_digit_of_the_range_counts(name: str) -> None:
    """No posting is tied to the range's exact ends; that they are whole days of UTC is what ties them."""
    good = canonical(WHOLE)
    start = good.index(f'"{name}":'.encode()) + len(name) + 3
    for at in range(start, start + 10):
        for digit in set(b"0123456789-") - {good[at]}:
            assert _found(good, at, digit), f"digit {at - start} to {chr(digit)}"


def _found(good: bytes, at: int, byte: int) -> bool:
    return not check_bundle(good[:at] + bytes([byte]) + good[at + 1 :], read_trust(trust(1))).ok


# --- what a city that signs everything itself could try ----------------------------------------------------


def _cheat(change: Change) -> tuple[str, str]:
    """The honest parts of the busy statement, changed, then signed, logged and anchored again."""
    books = statementmaker.busy()
    parts: dict[str, Any] = {"before": books.before(), "sets": books.within()}
    parts = changed(parts, change)
    return failed(check(bundle_of(books, **parts)))


def _posting(number: int, /, **changes: Any) -> Change:
    """Changes the posting of this number alone."""

    def change(parts: Any) -> None:
        for one in parts["sets"]:
            for _, document in one:
                if document["number"] == number:
                    document.update(changes)

    return change


def _drop(place: int) -> Change:
    return lambda parts: parts["sets"].pop(place)


def _drop_and_renumber(parts: Any) -> None:
    """Leaves the refund of posting 9 out and counts on."""
    parts["sets"].pop(5)
    parts["sets"][-1][0][1]["number"] -= 1


def _end_twice(parts: Any) -> None:
    """The hold of 300 is captured again, from the other holds' money, with a balance that adds up."""
    place, document = parts["sets"][0][0]
    again = {**document, "number": 6, "transfer": "t-006b", "time": "2016-10-26T00:09:00Z"}
    before = parts["sets"][1][1][1]["balance"]
    pending, posted = before["debits_pending_minor"] - 300, before["debits_posted_minor"] + 260
    again["balance"] = {**before, "debits_pending_minor": pending, "debits_posted_minor": posted}
    parts["sets"] = [*parts["sets"][:2], [(place, again)]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop(2), "posting 7 (t-007) follows posting 5: postings are left out"),
        (_drop(0), "posting 4 (t-004) follows posting 2"),
        (lambda p: p["sets"].insert(1, p["sets"][0]), "posting 3 (t-003) follows posting 3"),
        (lambda p: p.update(sets=swap(p["sets"])), "posting 4 (t-004) follows posting 2"),
        (lambda p: p.update(before=None), "posting 3 (t-003) follows posting 0"),
        (_drop_and_renumber, "posting 9 (t-010): credits_posted_minor is 1600; the balance before and the posting make 1500"),
        (_end_twice, "ends a hold of 300 with payee/parking that is not open"),
        (_posting(3, amount_minor=300), "debits_posted_minor is 260; the balance before and the posting make 300"),
        (_posting(3, amount_minor=301), "a post-pending cannot be of 301 with 300 held"),
        (_posting(7, amount_minor=1), "a void-pending cannot be of 1"),
        (_posting(7, held_minor=0), "a void-pending cannot be of 0 with 0 held"),
        (_posting(9, amount_minor=0), "a posted cannot be of 0"),
        (_posting(9, held_minor=5), "a posted cannot be of 100 with 5 held"),
        (_posting(9, side="debit"), "is a debit, but stands at the place of a credit"),
        (_posting(9, kind="gift"), "kind is 'gift'"),
        (_posting(9, side="left"), "side is 'left'"),
        (_posting(9, rule="none"), "rule is 'none'"),
        (_posting(9, rule="free"), "the account's rule was debits-within-credits, and is free here"),
        (_posting(9, format="city.posting.v2"), "format is 'city.posting.v2'"),
        (_posting(9, counter=statementmaker.ACCOUNT), "from the account to itself"),
        (_posting(9, account="payer/other"), "has account payer/other"),
        (_posting(9, currency="EUR"), "has currency EUR"),
        (_posting(9, transfer="t-004"), "the transfer t-004 was posted to the account before"),
        (_posting(9, time="2016-10-26T23:59:59Z"), "before posting 8"),
        (_posting(9, time="2016-10-25T23:59:59Z"), "outside the range"),
        (_posting(9, time="2016-10-32T00:00:00Z"), "no time in UTC"),
        (_posting(9, time=1_477_440_000), "time is not of the right kind"),
        (_posting(9, number=10), "follows posting 8"),
        (_posting(9, extra=1), "nothing vouches for: extra"),
        (_posting(9, balance={}), "balance lacks debits_pending_minor"),
        (_posting(9, balance=dict.fromkeys(statementmaker.NOTHING, -1)), "is negative (-1)"),
        (_posting(6, counter="payee/metering"), "ends a hold of 360 with payee/parking that is not open"),
        (lambda p: p["before"].append((2, p["before"][0][1])), "before holds 2 postings"),
        (lambda p: p["before"][0][1].update(number=0), "counted from 1"),
        (lambda p: p["before"][0][1].update(time="2016-10-26T00:00:00Z"), "not before the range"),
        (lambda p: p["before"][0][1].update(account="payer/other"), "has account payer/other"),
        (lambda p: p["before"][0][1]["balance"].update(debits_posted_minor=800), "debits of 1100 exceed posted credits of 1000"),
    ],
)  # fmt: skip
def test_what_a_cheating_city_signs_again_is_still_found(change: Change, words: str) -> None:
    name, detail = _cheat(change)
    assert (name, words in detail) == ("statement", True), detail


def test_a_balance_beyond_the_account_s_rule_is_found() -> None:
    books = (
        Books()
        .move(FROM_TIME, ("posted", "credit", 100, 0, CLEARING))
        .move(FROM_TIME, ("pending", "debit", 101, 0, PARKING))
    )
    assert failed(check(statement(books))) == (
        "statement",
        "posting 2 (t-002): debits of 101 exceed posted credits of 100; the rule is debits-within-credits",
    )


def test_a_statement_that_shows_nothing_is_refused() -> None:
    name, detail = failed(check(bundle_of(Books(), before=None, sets=[])))
    assert (name, "shows no posting" in detail) == ("commitments", True), detail


def test_postings_in_another_log_are_refused() -> None:
    books = statementmaker.busy()
    bundle = bundle_of(books, before=books.before(), sets=books.within(), log="payments.events")
    name, detail = failed(check(bundle))
    assert (name, "of the log provable.city/example/payments.transfers" in detail) == ("statement", True), detail


# --- receipts and packages by themselves -------------------------------------------------------------------


BILL = sessionmaker.receipt(
    "bill/bill-2016-10-29-0123456789abcdef", FROM_TIME, ("authorised", 900), ("captured", 900), payee="metering"
)


def test_a_receipt_by_itself_is_checked_and_said() -> None:
    report = check(sessionmaker.receipt_bundle(BILL))
    assert failed(report) == ("", "")
    assert report.steps[-1].name == "receipt"
    assert (
        "to metering for bill/bill-2016-10-29-0123456789abcdef: captured, GBP 900 captured of 900"
        in report.steps[-1].detail
    )
    assert report.notes == ["this is version 2 of the receipt; a later change of the payment has a later version"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"captured_minor": 901}, "says 901 was captured; its changes make 900"),
        ({"state": "authorised"}, "says the payment is authorised"),
        ({"version": 1}, "is version 1 and holds 2 changes"),
        ({"version": True}, "version is not of the right kind"),
        ({"more": 1}, "nothing vouches for: more"),
        ({"time": "2016-10-26T00:00:00Z"}, "is dated"),
        ({"changes": [{"change": "authorised", "amount_minor": 900, "time": "2016-10-26T00:00:00Z"}]}, "lacks reason"),
    ],
)
def test_a_receipt_that_does_not_add_up_is_found(changes: dict[str, Any], words: str) -> None:
    name, detail = failed(check(sessionmaker.receipt_bundle(BILL | changes)))
    assert (name, words in detail) == ("receipt", True), detail


def test_a_receipt_in_another_log_is_found() -> None:
    assert failed(check(sessionmaker.receipt_bundle(BILL, log="payments.transfers")))[0] == "receipt"


@pytest.mark.parametrize(
    ("measure", "words"),
    [("occupied", "3 counts of cars"), ("entry", "3 entries a lock opened for"), ("exit", "3 exits a lock opened for")],
)
def test_packages_of_other_measures_hold_and_say_what_they_are(measure: str, words: str) -> None:
    report = check(package_bundle(Recipe(), {1: _counts(measure)}))
    assert failed(report) == ("", "")
    assert report.steps[-1].detail == words


def test_an_instruction_to_a_lock_is_never_logged() -> None:
    name, detail = failed(check(package_bundle(Recipe(), {1: _counts("unlock")})))
    assert (name, "measures unlock, which is never logged" in detail) == ("senml", True), detail


def test_a_bundle_of_packages_may_mix_measures_and_a_bill_may_not() -> None:
    recipe, first = Recipe(), _counts("occupied")
    second = package(DeviceKey(1), 2, sha256(first).digest(), senml([(FROM_TIME, 150)]))
    assert check(package_bundle(recipe, {1: first, 2: second})).steps[-1].detail == "1 readings in Wh, 3 counts of cars"
    name, detail = failed(
        check({**bill_bundle(recipe), **package_bundle(recipe, {1: first, 2: second}), "kind": "bill"})
    )
    assert (name, detail) == ("senml", "the packages measure energy, occupied, not energy alone")


def _counts(measure: str) -> bytes:
    pack = senml([(FROM_TIME, 71), (FROM_TIME + 300, 74), (FROM_TIME + 600, 70)], measure=measure, unit="count")
    return package(DeviceKey(1), 1, bytes(32), pack)
