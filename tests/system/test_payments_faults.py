"""Payments when the provider is away, slow, wrong or repeats itself, and when the city dies in between."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from city.payments.v1 import payments_service_pb2 as pb
from citykit.webhooks import sign
from simulation.provider_faults import EVERY_FAULT, ProviderFaults
from tests.system.payments_city import NOON, SECRET, STATE, PaymentsCity, payments_city, refusal

DAY, DAY_S = "2016-10-04", 86_400
FAULTS = {
    "refused-calls": ProviderFaults(refuse_calls=0.4),
    "fails-after-acting": ProviderFaults(fail_after=1.0, lose_callbacks=1.0),
    "drops-after-acting-and-callbacks-twice": ProviderFaults(drop_after=1.0, double_callbacks=1.0),
    "late-and-reordered-callbacks": ProviderFaults(
        delay_callbacks=0.5, hold_callbacks=0.4, drop_after=0.5, late_s=0.05
    ),
    "everything": replace(EVERY_FAULT, late_s=0.05),
}


async def _life(there: PaymentsCity, number: int) -> None:
    """Authorise, capture, refund."""
    held = await there.authorise(await there.mandate(f"resident-{number}"), f"reservation/{number}", 100 + number)
    assert held.state == STATE.PAYMENT_STATE_AUTHORISED
    assert (await there.capture(held.id, 50 + number)).captured_minor == 50 + number
    assert (await there.refund(held.id, 10)).refunded_minor == 10


@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_goes_wrong_both_books_agree(tmp_path: Path, name: str) -> None:
    async with payments_city(tmp_path, faults=FAULTS[name], seed=3) as there:
        for number in range(3):
            await _life(there, number)
        books = await there.books()
        assert (books.sum_minor, books.captured_minor, books.refunded_minor) == (0, 153, 30)
        assert there.provider.books.moved_minor("capture") == 153
        assert there.provider.books.moved_minor("refund") == 30
        report = await _reconciled(there)
        assert (report.captured_minor, report.provider_captured_minor) == (153, 153)
        assert (report.refunded_minor, report.provider_refunded_minor) == (30, 30)
        assert not report.differences
        assert not report.waiting


async def test_an_hour_without_the_provider_loses_nothing(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        held = await there.authorise(mandate, "reservation/1", 500)
        there.provider.outage = True
        taking = pb.CaptureRequest(request_id="take", payment=held.id, amount_minor=400)
        taken = (await there.service().Capture(taking)).payment
        assert (taken.state, taken.waiting_for) == (STATE.PAYMENT_STATE_AUTHORISED, "capture")
        asked = (await there.service().Authorise(there.authorising(mandate, "reservation/2", 300))).payment
        assert (asked.state, asked.waiting_for) == (STATE.PAYMENT_STATE_UNKNOWN, "authorise")
        assert (
            await refusal(there.service().GetReceipt(pb.GetReceiptRequest(payment=asked.id)))
        ).reason == "payment-waiting"
        assert (await refusal(there.void(held.id))).reason == "payment-waiting"
        assert (await refusal(_report(there, DAY))).reason == "provider-away"
        there.city.clock.advance_to(NOON + 3_600)
        assert (await there.books()).unknown == 1
        there.provider.outage = False
        assert (await there.certain(held.id)).captured_minor == 400
        assert (await there.certain(asked.id)).state == STATE.PAYMENT_STATE_AUTHORISED
        assert (await there.service().Capture(taking)).payment.captured_minor == 400
        assert there.provider.books.moved_minor("capture") == 400


async def test_the_city_dies_between_the_intent_and_the_answer(tmp_path: Path) -> None:
    faults = ProviderFaults(drop_after=1.0, lose_callbacks=1.0)
    async with payments_city(tmp_path, faults=faults, retry_s=60.0) as there:
        request = there.authorising(await there.mandate(), "reservation/1", 500)
        lost = (await there.service().Authorise(request)).payment
        assert lost.state == STATE.PAYMENT_STATE_UNKNOWN
        books = there.provider.books
        assert books.operations[f"{lost.id}-authorise"].outcome == "done"
        there.provider.outage = True
        never = (await there.service().Authorise(there.authorising(await there.mandate(), "reservation/2", 70))).payment
        assert f"{never.id}-authorise" not in books.operations
    async with payments_city(tmp_path, books=books) as there:
        assert (await there.certain(lost.id)).authorised_minor == 500
        assert (await there.certain(never.id)).authorised_minor == 70
        assert (await there.service().Authorise(request)).payment.id == lost.id
        clearing = await there.account("provider/clearing")
        assert clearing.debits_pending_minor == 570
        assert (await there.books()).sum_minor == 0


async def test_callbacks_alone_settle_and_change_nothing_twice(tmp_path: Path) -> None:
    faults = ProviderFaults(fail_after=1.0, lose_callbacks=1.0)
    async with payments_city(tmp_path, faults=faults, retry_s=60.0) as there:
        held = (await there.service().Authorise(there.authorising(await there.mandate(), "r/1", 500))).payment
        key = f"{held.id}-authorise"
        await _call_back(there, {"key": key, "outcome": "pending"})
        assert (await there.payment(held.id)).waiting_for == "authorise"
        for outcome in ("done", "done", "refused"):
            await _call_back(there, {"key": key, "outcome": outcome, "reason": "late"})
        found = await there.payment(held.id)
        assert (found.state, found.reason) == (STATE.PAYMENT_STATE_AUTHORISED, "")
        await _call_back(there, {"key": "nobody's", "outcome": "done"})
        taking = pb.CaptureRequest(request_id="take", payment=held.id, amount_minor=20)
        await there.service().Capture(taking)
        await _call_back(there, {"key": f"{held.id}-capture", "outcome": "refused", "reason": "hold expired"})
        found = await there.payment(held.id)
        assert (found.state, found.reason, found.captured_minor) == (STATE.PAYMENT_STATE_VOIDED, "hold expired", 0)
        assert [change["change"] for change in (await there.receipt(held.id))["changes"]] == ["authorised", "voided"]
        assert (await there.account("provider/clearing")).debits_pending_minor == 0


async def test_a_refused_refund_leaves_the_money_where_it_is(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        held = await there.authorise(await there.mandate(), "reservation/1", 500)
        await there.capture(held.id, 500)
        there.provider.books.standings[held.id].captured = 0
        found = await there.refund(held.id, 100)
        assert (found.refunded_minor, found.reason) == (0, "over-captured")
        payee = await there.account("payee/parking")
        assert (payee.debits_pending_minor, payee.debits_posted_minor) == (0, 0)
        there.provider.books.standings[held.id].captured = 500
        found = await there.refund(held.id, 100)
        assert (found.refunded_minor, found.reason) == (100, "")


async def test_a_payment_decided_only_later(tmp_path: Path) -> None:
    async with payments_city(tmp_path, retry_s=60.0) as there:
        held = await there.authorise(await there.mandate(method="pm_later"), "reservation/1", 500)
        assert held.state == STATE.PAYMENT_STATE_AUTHORISED
        assert there.provider.callbacks == 1


async def test_a_day_is_reconciled_and_closed_on_the_ledger(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        await _life(there, 1)
        live = await _report(there, DAY)
        assert (live.captured_minor, live.refunded_minor, live.made_at.seconds) == (51, 10, NOON)
        there.city.clock.advance_to(NOON + 2 * DAY_S)
        await there.job("close-days")
        assert await there.city.ledger.evaluate("payments-days", "get", {"day": "2016-10-05"}) is not None
        first = await there.city.ledger.evaluate("payments-days", "get", {"day": DAY})
        assert first == {"captured_minor": 51, "refunded_minor": 10, "transfers_size": 4}
        operation = there.provider.books.operations
        key = next(name for name in operation if name.endswith("-capture"))
        operation[key] = replace(operation[key], amount_minor=52)
        kept = await _report(there, DAY)
        assert (kept.provider_captured_minor, kept.made_at.seconds) == (51, NOON + 2 * DAY_S)
        for day, field in (("2016-10-06", ""), ("2016-10-07", "day"), ("4 October", "day")):
            if field:
                assert (await refusal(_report(there, day))).field == field
            else:
                assert (await _report(there, day)).captured_minor == 0


async def test_a_difference_is_named(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        await _life(there, 1)
        operation = there.provider.books.operations
        key = next(name for name in operation if name.endswith("-capture"))
        operation[key] = replace(operation[key], amount_minor=52)
        found = (await _report(there, DAY)).differences
        assert [(item.what, item.ours_minor, item.theirs_minor) for item in found] == [("captured", 51, 52)]


async def _call_back(there: PaymentsCity, content: Any) -> None:
    body = json.dumps(content).encode()
    request = pb.ReceiveCallbackRequest(body=body, signature=sign(SECRET, body, int(time.time())))
    await there.stub("nobody").ReceiveCallback(request)


async def _report(there: PaymentsCity, day: str) -> Any:
    return await there.stub("auditor").GetReconciliation(pb.GetReconciliationRequest(day=day))


async def _reconciled(there: PaymentsCity) -> Any:
    """The provider may refuse the listing now and then, too."""
    there.provider.faults = ProviderFaults()
    return await _report(there, DAY)
