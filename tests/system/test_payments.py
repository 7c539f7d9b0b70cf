"""Payments over real gRPC against the sandbox provider: the whole path, refusals, receipts, statements, days."""

from __future__ import annotations

import json
import time
from pathlib import Path

from city.identity.v1 import events_pb2 as identity_events
from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit import canonical
from citykit.bus.events import cloud_event
from citykit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from citykit.package import commitment
from citykit.webhooks import sign
from services.testing import embedded_city
from tests.system.payments_city import ADA, BOB, NOON, SECRET, STATE, moving, payments_city, refusal

DAY_S = 86_400


async def test_authorise_capture_refund_and_what_the_books_say(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        held = await there.authorise(mandate, "reservation/1", 1_000)
        assert (held.state, held.authorised_minor, held.payee) == (STATE.PAYMENT_STATE_AUTHORISED, 1_000, "parking")
        clearing = await there.account("provider/clearing")
        assert (clearing.debits_pending_minor, clearing.debits_posted_minor) == (1_000, 0)
        taken = await there.capture(held.id, 700)
        assert (taken.state, taken.captured_minor) == (STATE.PAYMENT_STATE_CAPTURED, 700)
        payee = await there.account("payee/parking")
        assert (payee.credits_posted_minor, payee.debits_posted_minor) == (700, 0)
        back = await there.refund(held.id, 200, "goodwill")
        assert back.refunded_minor == 200
        assert (await there.account("payee/parking")).debits_posted_minor == 200
        receipt = await there.receipt(held.id)
        assert [change["change"] for change in receipt["changes"]] == ["authorised", "captured", "refunded"]
        assert (receipt["version"], receipt["state"]) == (3, "captured")
        assert (receipt["captured_minor"], receipt["refunded_minor"]) == (700, 200)
        books = await there.books()
        assert (books.sum_minor, books.captured, books.captured_minor, books.refunded_minor) == (0, 1, 700, 200)
        assert there.provider.books.moved_minor("capture") == 700
        assert there.provider.books.moved_minor("refund") == 200


async def test_a_void_lets_everything_go(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        held = await there.authorise(await there.mandate(), "reservation/1")
        gone = await there.void(held.id)
        assert gone.state == STATE.PAYMENT_STATE_VOIDED
        clearing = await there.account("provider/clearing")
        assert (clearing.debits_pending_minor, clearing.debits_posted_minor) == (0, 0)
        assert (await refusal(there.capture(held.id, 1))).reason == "payment-voided"


async def test_a_declined_card_and_a_new_try(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        declined = await there.authorise(await there.mandate(method="pm_declined"), "reservation/1")
        assert (declined.state, declined.reason) == (STATE.PAYMENT_STATE_DECLINED, "declined")
        assert (await there.receipt(declined.id))["authorised_minor"] == 0
        again = await there.authorise(await there.mandate(), "reservation/1")
        assert again.state == STATE.PAYMENT_STATE_AUTHORISED
        assert (await there.books()).declined == 1


async def test_what_is_refused_and_why(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate(limit=1_500)
        held = await there.authorise(mandate, "reservation/1", 1_000)
        other = there.service("metering")
        for call, kind, reason in (
            (there.authorise(mandate, "reservation/2", 600), FailedPrecondition, "mandate-limit"),
            (there.authorise("mandate-none", "reservation/2"), NotFound, "not-found"),
            (there.authorise(mandate, "reservation/1", 100), AlreadyExists, "reference-paid"),
            (there.authorise(mandate, "reservation/2", 0), InvalidArgument, "amount"),
            (there.authorise(mandate, ""), InvalidArgument, "invalid-argument"),
            (there.capture(held.id, 1_001), FailedPrecondition, "over-authorised"),
            (there.capture(held.id, -1), InvalidArgument, "amount"),
            (there.refund(held.id, 1), FailedPrecondition, "payment-authorised"),
            (
                there.service().Authorise(there.authorising(mandate, "r", 1, "EUR")),
                FailedPrecondition,
                "currency-mix",
            ),
            (other.Authorise(there.authorising(mandate, "r", 1)), FailedPrecondition, "mandate-payee"),
            (other.GetPayment(pb.GetPaymentRequest(payment=held.id)), NotFound, "not-found"),
            (there.stub("resident", BOB).GetPayment(pb.GetPaymentRequest(payment=held.id)), NotFound, "not-found"),
        ):
            found = await refusal(call)
            assert (type(found), found.reason) == (kind, reason)
        await there.capture(held.id, 1_000)
        for amount, reason in ((-5, "amount"), (0, "amount"), (1_001, "over-captured")):
            assert (await refusal(there.refund(held.id, amount))).reason == reason
        assert (await refusal(there.refund(held.id, 1, "x" * 101))).field == "reason"
        assert (await there.books()).sum_minor == 0


async def test_a_mandate_ends_and_never_holds_a_card_number(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        there.city.clock.advance_to(NOON + DAY_S)
        assert (await refusal(there.authorise(mandate, "reservation/1"))).reason == "mandate-ended"
        assert (await refusal(there.mandate(method="4111 1111 1111 1111"))).field == "payment_method"


async def test_the_same_request_acts_once(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        request = there.authorising(mandate, "reservation/1")
        first, second = (
            (await there.service().Authorise(request)).payment,
            (await there.service().Authorise(request)).payment,
        )
        assert first.id == second.id
        request.amount_minor = 5
        assert (await refusal(there.service().Authorise(request))).reason == "request-id-reused"
        taking = pb.CaptureRequest(request_id="take", payment=first.id, amount_minor=10)
        await there.service().Capture(taking)
        assert (await there.service().Capture(taking)).payment.captured_minor == 10
        assert there.provider.books.moved_minor("capture") == 10


async def test_refunds_need_the_payees_money(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        held = await there.authorise(await there.mandate(), "reservation/1")
        await there.capture(held.id, 1_000)
        await there.open("bank/parking")
        await there.transfer(moving("payout", "payee/parking", "bank/parking", 900))
        assert (await refusal(there.refund(held.id, 101))).reason == "debits-exceed-credits"
        assert there.provider.books.moved_minor("refund") == 0
        assert (await there.refund(held.id, 100)).refunded_minor == 100


async def test_transfers_linked_pending_and_idempotent(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        await there.open("fund/a", "fund/b")
        await there.open("purse/c", rule=pb.BALANCE_RULE_DEBITS_WITHIN_CREDITS)
        await there.open("euro/d", currency="EUR")
        good, bad = moving("t-1", "fund/a", "purse/c", 50), moving("t-2", "purse/c", "fund/b", 51)
        assert (await refusal(there.transfer(good, bad))).reason == "debits-exceed-credits"
        assert (await there.books()).transfers == 0
        await there.transfer(good)
        await there.transfer(good)
        assert (await there.books()).transfers == 1
        other = moving("t-1", "fund/a", "purse/c", 51)
        for call, kind, reason in (
            (there.transfer(other), AlreadyExists, "transfer-id-reused"),
            (there.transfer(moving("t-3", "fund/a", "euro/d", 1)), FailedPrecondition, "currency-mix"),
            (there.transfer(moving("t-3", "fund/a", "fund/x", 1)), NotFound, "not-found"),
            (there.transfer(moving("t-3", "fund/a", "fund/b", -1)), InvalidArgument, "amount"),
            (there.transfer(moving("t-3", "payee/metering", "fund/b", 1)), PermissionDenied, "account-not-yours"),
            (there.transfer(moving("t-3", "fund/a", "payer/1", 1)), PermissionDenied, "account-not-yours"),
            (there.open("payee/x"), InvalidArgument, "invalid-argument"),
            (there.open("fund/a", currency="EUR"), AlreadyExists, "already-exists"),
            (there.account("fund/none"), NotFound, "not-found"),
        ):
            found = await refusal(call)
            assert (type(found), found.reason) == (kind, reason)
        hold = moving("h-1", "purse/c", "fund/b", 40, kind=pb.TRANSFER_KIND_PENDING)
        await there.transfer(hold)
        assert (await refusal(there.transfer(moving("t-4", "purse/c", "fund/b", 11)))).reason == "debits-exceed-credits"
        await there.transfer(pb.Transfer(id="h-2", kind=pb.TRANSFER_KIND_POST_PENDING, pending="h-1", amount_minor=30))
        assert (await there.account("purse/c")).debits_posted_minor == 30
        assert (await there.account("purse/c")).debits_pending_minor == 0


async def test_amounts_that_overflow_are_refused(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        await there.open("fund/a", "fund/b")
        for number in range(9):
            await there.transfer(moving(f"t-{number}", "fund/a", "fund/b", 10**15))
        assert (await refusal(there.transfer(moving("t-9", "fund/a", "fund/b", 10**15)))).reason == "overflow"
        assert (await there.account("fund/b")).credits_posted_minor == 9 * 10**15


async def test_holds_expire(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        await there.open("fund/a", "fund/b")
        await there.transfer(moving("h-1", "fund/a", "fund/b", 40, kind=pb.TRANSFER_KIND_PENDING, timeout_s=60))
        there.city.clock.advance_to(NOON + 60)
        ending = pb.Transfer(id="h-2", kind=pb.TRANSFER_KIND_POST_PENDING, pending="h-1")
        assert (await refusal(there.transfer(ending))).reason in ("hold-expired", "hold-ended")
        await there.job("expire-holds")
        assert (await there.account("fund/a")).debits_pending_minor == 0
        assert (await refusal(there.transfer(ending))).reason == "hold-ended"


async def test_a_receipts_bundle_leads_to_the_ledger(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        held = await there.authorise(await there.mandate(), "reservation/1")
        await there.capture(held.id, 400)
        await there.city.settle()
        resident = there.stub("resident", ADA)
        bundle = json.loads((await resident.GetReceiptBundle(pb.GetReceiptBundleRequest(payment=held.id))).bundle_json)
        assert (bundle["kind"], bundle["event"]["payment"], bundle["event"]["version"]) == ("event", held.id, 2)
        answer = await resident.GetReceipt(pb.GetReceiptRequest(payment=held.id))
        assert commitment(answer.salt, answer.document) == answer.commitment
        assert canonical.encode(bundle["event"]) == answer.document
        assert (await there.verified(bundle)).ok
        bundle["event"]["captured_minor"] -= 1
        assert not (await there.verified(bundle)).ok


async def test_a_statement_can_be_computed_again(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        first = await there.authorise(mandate, "reservation/1", 1_000)
        await there.capture(first.id, 600)
        there.city.clock.advance_to(NOON + DAY_S)
        await there.refund(first.id, 100)
        await there.city.settle()
        resident = there.stub("resident", ADA)
        request = pb.GetStatementBundleRequest()
        request.from_time.seconds, request.to_time.seconds = NOON + DAY_S - 50, NOON + DAY_S + 50
        bundle = json.loads((await resident.GetStatementBundle(request)).bundle_json)
        assert (bundle["from_time"] % DAY_S, bundle["to_time"] - bundle["from_time"]) == (0, DAY_S)
        postings = [item["document"] for one in bundle["sets"] for item in one["postings"]]
        assert [item["kind"] for item in postings] == ["pending", "post-pending", "posted"]
        before = bundle["before"]["postings"][0]["document"]
        numbers = [item["number"] for item in (before, *postings)]
        assert numbers == list(range(before["number"], before["number"] + 4))
        assert bundle["closing"] == {"number": postings[-1]["number"], "balance": postings[-1]["balance"]}
        assert bundle["closing"]["balance"]["debits_posted_minor"] == 700
        assert len(bundle["log"]["proof"]["indexes"]) == 3
        assert (await there.verified(bundle)).ok
        bundle["sets"][0]["postings"][0]["document"]["amount_minor"] += 1
        assert not (await there.verified(bundle)).ok
        request.to_time.seconds = request.from_time.seconds
        assert (await refusal(resident.GetStatementBundle(request))).field == "from_time"
        assert (await refusal(there.stub("resident", BOB).GetStatementBundle(pb.GetStatementBundleRequest(
            from_time={"seconds": 1}, to_time={"seconds": 2},  # type: ignore[arg-type]
        )))).reason == "no-account"  # fmt: skip


async def test_residents_list_their_own_payments(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        ids = [(await there.authorise(mandate, f"reservation/{n}", 10)).id for n in range(3)]
        resident = there.stub("resident", ADA)
        page = await resident.ListPayments(pb.ListPaymentsRequest(page_size=2))
        rest = await resident.ListPayments(pb.ListPaymentsRequest(page_size=2, page_token=page.next_page_token))
        assert sorted(item.id for item in (*page.payments, *rest.payments)) == sorted(ids)
        assert not (await there.stub("resident", BOB).ListPayments(pb.ListPaymentsRequest())).payments
        assert (await refusal(resident.ListPayments(pb.ListPaymentsRequest(page_token="x.y")))).field == "page_token"
        assert (await refusal(resident.ListPayments(pb.ListPaymentsRequest(page_size=101)))).field == "page_size"


async def test_callbacks_need_the_providers_signature(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        held = await there.authorise(await there.mandate(method="pm_later"), "reservation/1")
        body = json.dumps({"key": f"{held.id}-authorise", "outcome": "refused", "reason": "forged"}).encode()
        now = int(time.time())
        stranger = there.stub("nobody")
        for signature, reason in (
            (sign(b"another key", body, now), "signature"),
            (sign(SECRET, body + b" ", now), "signature"),
            (sign(SECRET, body, now - 301), "signature-old"),
            ("v1=00", "signature-malformed"),
        ):
            call = stranger.ReceiveCallback(pb.ReceiveCallbackRequest(body=body, signature=signature))
            found = await refusal(call)
            assert (type(found), found.reason) == (PermissionDenied, reason)
        junk = b"[]"
        call = stranger.ReceiveCallback(pb.ReceiveCallbackRequest(body=junk, signature=sign(SECRET, junk, now)))
        assert (await refusal(call)).field == "body"
        big = b" " * 16_385
        call = stranger.ReceiveCallback(pb.ReceiveCallbackRequest(body=big, signature=sign(SECRET, big, now)))
        assert (await refusal(call)).field == "body"
        assert (await there.certain(held.id)).state == STATE.PAYMENT_STATE_AUTHORISED


async def test_erasure_cuts_the_link_and_the_books_stay(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        mandate = await there.mandate()
        held = await there.authorise(mandate, "reservation/1", 50)
        await there.capture(held.id, 50)
        event = identity_events.SubjectErased(audience="payments", subject=ADA)
        other = identity_events.SubjectErased(audience="metering", subject=BOB)
        messages = [
            cloud_event(
                topic="city.identity.events.v1", key=item.subject, event=item, source="identity", id=f"erased-{item.subject}",
                time=NOON, commitment=bytes(32),
            )
            for item in (event, other)
        ]  # fmt: skip
        await there.city.bus.publish(messages)
        await there.city.settle(anchored=False)
        resident = there.stub("resident", ADA)
        assert not (await resident.ListPayments(pb.ListPaymentsRequest())).payments
        assert (await refusal(resident.GetPayment(pb.GetPaymentRequest(payment=held.id)))).reason == "not-found"
        assert (await refusal(there.authorise(mandate, "reservation/2"))).reason == "not-found"
        assert (await there.payment(held.id)).captured_minor == 50
        assert (await there.refund(held.id, 20)).refunded_minor == 20
        assert (await there.books()).sum_minor == 0


async def test_without_a_provider_only_transfers_work(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=["payments"]) as city:
        stub = PaymentsServiceStub(city.process.dial("parking", "payments"))
        request = pb.AuthoriseRequest(request_id="1", mandate="m", amount_minor=1, currency="GBP", reference="r")
        assert (await refusal(stub.Authorise(request))).reason == "no-provider"
        assert (await refusal(stub.ReceiveCallback(pb.ReceiveCallbackRequest(body=b"{}")))).reason == "no-provider"
        accounts = [pb.Account(id=name, currency="GBP", rule=pb.BALANCE_RULE_FREE) for name in ("fund/a", "fund/b")]
        await stub.CreateAccounts(pb.CreateAccountsRequest(request_id="2", accounts=accounts))
        moved = pb.CreateTransfersRequest(request_id="3", transfers=[moving("t", "fund/a", "fund/b", 1)])
        first, second = await stub.CreateTransfers(moved), await stub.CreateTransfers(moved)
        assert first.time == second.time
        assert (await stub.GetBooks(pb.GetBooksRequest())).transfers == 1
