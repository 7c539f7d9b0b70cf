"""A payment's life, its receipts, mandates and the reconciliation of a day."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.payments.domain import payment as rules
from services.payments.domain.errors import Invalid, Refused
from services.payments.domain.mandate import (
    LIFETIME_MAX_S,
    Mandate,
    require_charge,
    require_mandate,
    require_method,
    require_reference,
)
from services.payments.domain.payment import Change, Operation, Payment, Step
from services.payments.domain.receipt import receipt
from services.payments.domain.reconciliation import Difference, Item, reconcile

NEW = Payment("p", "parking", "reservation/1", "ada", "payer/1", "GBP", 1_000, method="pm_1")


def settled(step: Step, *, done: bool = True, reason: str = "") -> Step:
    assert step.operation is not None
    return rules.settled(step.payment, step.operation, done=done, reason=reason)


def authorised() -> Payment:
    return settled(rules.authorise(NEW)).payment


def captured(amount: int = 600) -> Payment:
    return settled(rules.capture(authorised(), amount)).payment


def test_an_authorisation_holds_in_the_books_and_forgets_the_method() -> None:
    step = rules.authorise(NEW)
    assert step.operation == Operation("p-authorise", "p", "authorise", 1_000)
    after = settled(step)
    assert (after.payment.state, after.payment.authorised_minor, after.payment.method) == ("authorised", 1_000, "")
    assert (after.payment.waiting_for, after.payment.version) == ("", 1)
    assert after.change == Change("authorised", 1_000)
    assert [(t.kind, t.debit, t.credit) for t in after.transfers] == [("pending", "provider/clearing", "payer/1")]
    assert after.operation is not None
    assert after.operation.state == "done"


def test_a_decline_moves_nothing() -> None:
    after = settled(rules.authorise(NEW), done=False, reason="no money")
    assert (after.payment.state, after.payment.reason, after.transfers) == ("declined", "no money", ())
    assert after.change == Change("declined", 1_000, "no money")


def test_a_capture_takes_and_pays() -> None:
    step = rules.capture(authorised(), 600)
    assert step.payment.waiting_for == "capture"
    after = settled(step)
    assert [(t.kind, t.amount_minor) for t in after.transfers] == [("post-pending", 600), ("posted", 600)]
    assert after.transfers[1].credit == "payee/parking"
    assert after.transfers[1].reference == "parking reservation/1"
    assert after.payment.captured_minor == 600


@pytest.mark.parametrize("refused", [True, False])
def test_a_void_and_a_refused_capture_let_go(refused: bool) -> None:
    step = rules.capture(authorised(), 600) if refused else rules.void(authorised())
    after = settled(step, done=not refused, reason="gone" if refused else "")
    assert (after.payment.state, after.payment.captured_minor) == ("voided", 0)
    assert [t.kind for t in after.transfers] == ["void-pending"]
    assert after.change == Change("voided", 1_000, "gone" if refused else "")


def test_a_refund_holds_first_then_goes_back() -> None:
    step = rules.refund(captured(), 200, "goodwill")
    assert [(t.kind, t.debit, t.credit) for t in step.transfers] == [("pending", "payee/parking", "payer/1")]
    after = settled(step)
    assert (after.payment.refunded_minor, after.change) == (200, Change("refunded", 200, "goodwill"))
    assert after.transfers[1].credit == "provider/clearing"
    second = rules.refund(after.payment, 400, "")
    assert second.operation is not None
    assert second.operation.id == "p-refund-2"
    kept = settled(second, done=False, reason="no")
    assert (kept.payment.refunded_minor, kept.payment.reason, kept.change) == (200, "no", None)
    assert [t.kind for t in kept.transfers] == ["void-pending"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda: rules.capture(NEW, 1), "payment-waiting"),
        (lambda: rules.void(NEW), "payment-waiting"),
        (lambda: rules.refund(NEW, 1, ""), "payment-waiting"),
        (lambda: rules.capture(authorised(), 1_001), "over-authorised"),
        (lambda: rules.capture(captured(), 1), "payment-captured"),
        (lambda: rules.void(captured()), "payment-captured"),
        (lambda: rules.refund(authorised(), 1, ""), "payment-authorised"),
        (lambda: rules.refund(captured(), 601, ""), "over-captured"),
    ],
)
def test_steps_that_are_refused(step: Any, reason: str) -> None:
    with pytest.raises(Refused) as found:
        step()
    assert found.value.reason == reason


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
def test_amounts_have_no_sign(amount: int) -> None:
    with pytest.raises(Invalid):
        rules.capture(authorised(), amount)
    with pytest.raises(Invalid):
        rules.refund(captured(), amount, "")


def test_receipts_grow_by_a_change() -> None:
    first = receipt(authorised(), Change("authorised", 1_000), None, "2016-10-04T10:00:00Z")
    second = receipt(captured(), Change("captured", 600), first, "2016-10-04T11:00:00Z")
    assert (second["version"], len(second["changes"]), second["time"]) == (2, 2, "2016-10-04T11:00:00Z")
    assert len(first["changes"]) == 1
    assert second["captured_minor"] == 600


GIVEN = Mandate("m", "ada", "parking", 1_000, "GBP", "pm_1", 5_000)


@pytest.mark.parametrize(
    ("mandate", "lifetime_s", "field"),
    [
        (replace(GIVEN, payee="Parking!"), 60, "payee"),
        (replace(GIVEN, limit_minor=0), 60, "limit_minor"),
        (replace(GIVEN, currency="£"), 60, "currency"),
        (replace(GIVEN, method=""), 60, "payment_method"),
        (replace(GIVEN, method="4111-1111-1111-1111"), 60, "payment_method"),
        (GIVEN, 0, "lifetime_s"),
        (GIVEN, LIFETIME_MAX_S + 1, "lifetime_s"),
    ],
)
def test_a_mandates_form(mandate: Mandate, lifetime_s: int, field: str) -> None:
    with pytest.raises(Invalid) as found:
        require_mandate(mandate, lifetime_s)
    assert found.value.field == field


def test_what_a_mandate_allows() -> None:
    require_mandate(GIVEN, LIFETIME_MAX_S)
    require_method("pm_1")
    require_reference("reservation/1")
    require_charge(GIVEN, "parking", 400, "GBP", 600, 4_999)
    for payee, amount, currency, now, reason in (
        ("metering", 1, "GBP", 0, "mandate-payee"),
        ("parking", 1, "GBP", 5_000, "mandate-ended"),
        ("parking", 1, "EUR", 0, "currency-mix"),
        ("parking", 401, "GBP", 0, "mandate-limit"),
    ):
        with pytest.raises(Refused) as found:
            require_charge(GIVEN, payee, amount, currency, 600, now)
        assert found.value.reason == reason
    for reference in ("", "x" * 65, "a\n"):
        with pytest.raises(Invalid):
            require_reference(reference)


def test_a_days_two_books() -> None:
    ours = [Item("p1", "capture", 10), Item("p1", "refund", 3), Item("p2", "capture", 5), Item("p4", "capture", 1)]
    theirs = [Item("p1", "capture", 10), Item("p1", "refund", 4), Item("p3", "capture", 7), Item("p5", "capture", 2)]
    report = reconcile(ours, theirs, ["p5", "p5"])
    assert (report.captured_minor, report.refunded_minor) == (16, 3)
    assert (report.provider_captured_minor, report.provider_refunded_minor) == (19, 4)
    assert report.differences == (
        Difference("p1", "refunded", 3, 4),
        Difference("p2", "captured", 5, 0),
        Difference("p3", "captured", 0, 7),
        Difference("p4", "captured", 1, 0),
    )
    assert report.waiting == ("p5",)
