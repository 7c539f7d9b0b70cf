"""The edge of payments: protobuf in, use case, protobuf out. Access rules stand in the proto."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceServicer
from citykit.access import caller
from citykit.once import Once
from citykit.package import commitment
from services.payments.app.bills import BillPayments
from services.payments.app.books import BookKeeping
from services.payments.app.bundles import Bundles
from services.payments.app.callbacks import Callbacks
from services.payments.app.overview import Overview
from services.payments.app.payments import Payments
from services.payments.app.reconciliation import Reconciliation
from services.payments.domain import books as rules
from services.payments.domain import payment as states
from services.payments.domain.books import Account, Transfer
from services.payments.domain.mandate import Mandate
from services.payments.domain.payment import Payment

_RULES = {
    pb.BALANCE_RULE_FREE: rules.FREE,
    pb.BALANCE_RULE_DEBITS_WITHIN_CREDITS: rules.DEBITS_WITHIN_CREDITS,
    pb.BALANCE_RULE_CREDITS_WITHIN_DEBITS: rules.CREDITS_WITHIN_DEBITS,
}
_RULE_NUMBERS = {name: number for number, name in _RULES.items()}
_KINDS = {
    pb.TRANSFER_KIND_POSTED: rules.POSTED,
    pb.TRANSFER_KIND_PENDING: rules.PENDING,
    pb.TRANSFER_KIND_POST_PENDING: rules.POST_PENDING,
    pb.TRANSFER_KIND_VOID_PENDING: rules.VOID_PENDING,
}
_STATES = {
    states.UNKNOWN: pb.PAYMENT_STATE_UNKNOWN,
    states.AUTHORISED: pb.PAYMENT_STATE_AUTHORISED,
    states.DECLINED: pb.PAYMENT_STATE_DECLINED,
    states.CAPTURED: pb.PAYMENT_STATE_CAPTURED,
    states.VOIDED: pb.PAYMENT_STATE_VOIDED,
}


@dataclass(frozen=True)
class Parts:
    """The use cases behind the servicer."""

    books: BookKeeping
    payments: Payments
    bills: BillPayments
    bundles: Bundles
    callbacks: Callbacks
    reconciliation: Reconciliation
    overview: Overview


class PaymentsServer(PaymentsServiceServicer):
    """One method per RPC of `city.payments.v1.PaymentsService`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def CreateAccounts(self, request: pb.CreateAccountsRequest, context: Any) -> pb.CreateAccountsResponse:
        accounts = [Account(item.id, item.currency, _RULES.get(item.rule, "")) for item in request.accounts]
        return await self._parts.books.create_accounts(Once.of(request, pb.CreateAccountsResponse), accounts)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.GetAccountResponse:
        return pb.GetAccountResponse(account=account_message(await self._parts.books.account(request.account)))

    async def CreateTransfers(self, request: pb.CreateTransfersRequest, context: Any) -> pb.CreateTransfersResponse:
        once = Once.of(request, pb.CreateTransfersResponse)
        return await self._parts.books.transfer(once, caller(), list(map(_transfer, request.transfers)))

    async def CreateMandate(self, request: pb.CreateMandateRequest, context: Any) -> pb.CreateMandateResponse:
        asked = Mandate(
            "", caller().subject, request.payee, request.limit_minor, request.currency, request.payment_method, 0
        )
        once = Once.of(request, pb.CreateMandateResponse)
        return await self._parts.payments.create_mandate(once, asked, request.lifetime_s)

    async def Authorise(self, request: pb.AuthoriseRequest, context: Any) -> pb.AuthoriseResponse:
        once = Once.of(request, pb.AuthoriseResponse)
        found = await self._parts.payments.authorise(
            once, caller(), request.mandate, request.amount_minor, request.currency, request.reference
        )
        return pb.AuthoriseResponse(payment=payment_message(found))

    async def Capture(self, request: pb.CaptureRequest, context: Any) -> pb.CaptureResponse:
        once = Once.of(request, pb.CaptureResponse)
        found = await self._parts.payments.capture(once, caller(), request.payment, request.amount_minor)
        return pb.CaptureResponse(payment=payment_message(found))

    async def VoidPayment(self, request: pb.VoidPaymentRequest, context: Any) -> pb.VoidPaymentResponse:
        once = Once.of(request, pb.VoidPaymentResponse)
        return pb.VoidPaymentResponse(
            payment=payment_message(await self._parts.payments.void(once, caller(), request.payment))
        )

    async def Refund(self, request: pb.RefundRequest, context: Any) -> pb.RefundResponse:
        once = Once.of(request, pb.RefundResponse)
        found = await self._parts.payments.refund(once, caller(), request.payment, request.amount_minor, request.reason)
        return pb.RefundResponse(payment=payment_message(found))

    async def PayBill(self, request: pb.PayBillRequest, context: Any) -> pb.PayBillResponse:
        once = Once.of(request, pb.PayBillResponse)
        found = await self._parts.bills.pay(once, caller(), request.bill, request.payment_method)
        return pb.PayBillResponse(payment=payment_message(found))

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Any) -> pb.GetPaymentResponse:
        found = await self._parts.payments.get(caller(), request.payment)
        return pb.GetPaymentResponse(payment=payment_message(found))

    async def ListPayments(self, request: pb.ListPaymentsRequest, context: Any) -> pb.ListPaymentsResponse:
        rows, token = await self._parts.payments.page(caller(), request.page_size, request.page_token)
        return pb.ListPaymentsResponse(payments=map(payment_message, rows), next_page_token=token)

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Any) -> pb.GetReceiptResponse:
        row = await self._parts.payments.receipt(caller(), request.payment)
        return pb.GetReceiptResponse(
            document=row.document, salt=row.salt, commitment=commitment(row.salt, row.document)
        )

    async def GetReceiptBundle(self, request: pb.GetReceiptBundleRequest, context: Any) -> pb.GetReceiptBundleResponse:
        return pb.GetReceiptBundleResponse(bundle_json=await self._parts.bundles.receipt(caller(), request.payment))

    async def GetStatementBundle(
        self, request: pb.GetStatementBundleRequest, context: Any
    ) -> pb.GetStatementBundleResponse:
        bundle = await self._parts.bundles.statement(caller(), request.from_time.seconds, request.to_time.seconds)
        return pb.GetStatementBundleResponse(bundle_json=bundle)

    async def ReceiveCallback(self, request: pb.ReceiveCallbackRequest, context: Any) -> pb.ReceiveCallbackResponse:
        await self._parts.callbacks.receive(request.body, request.signature)
        return pb.ReceiveCallbackResponse()

    async def GetReconciliation(
        self, request: pb.GetReconciliationRequest, context: Any
    ) -> pb.GetReconciliationResponse:
        report, made_at = await self._parts.reconciliation.report(request.day)
        differences = [
            pb.ReconciliationDifference(
                payment=item.payment, what=item.what, ours_minor=item.ours_minor, theirs_minor=item.theirs_minor
            )
            for item in report.differences
        ]
        return pb.GetReconciliationResponse(
            day=request.day,
            captured_minor=report.captured_minor,
            refunded_minor=report.refunded_minor,
            provider_captured_minor=report.provider_captured_minor,
            provider_refunded_minor=report.provider_refunded_minor,
            differences=differences,
            waiting=report.waiting,
            made_at=Timestamp(seconds=made_at),
        )

    async def GetBooks(self, request: pb.GetBooksRequest, context: Any) -> pb.GetBooksResponse:
        return await self._parts.overview.books()


def account_message(account: Account) -> pb.Account:
    """An account on the wire."""
    balance = account.balance()
    return pb.Account(id=account.id, currency=account.currency, rule=_RULE_NUMBERS[account.rule], **balance._asdict())


def payment_message(payment: Payment) -> pb.Payment:
    """A payment on the wire."""
    return pb.Payment(
        id=payment.id,
        payee=payment.payee,
        reference=payment.reference,
        state=_STATES[payment.state],
        authorised_minor=payment.authorised_minor,
        captured_minor=payment.captured_minor,
        refunded_minor=payment.refunded_minor,
        currency=payment.currency,
        create_time=Timestamp(seconds=payment.created_at),
        reason=payment.reason,
        waiting_for=payment.waiting_for,
    )


def _transfer(item: pb.Transfer) -> Transfer:
    return Transfer(
        item.id, _KINDS.get(item.kind, ""), item.debit_account, item.credit_account, item.amount_minor, item.currency,
        item.pending, item.timeout_s, item.reference,
    )  # fmt: skip
