"""Routes about money: the caller's mandates, payments and statement, the city's books, the provider's callbacks."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.exceptions import HTTPException

from city.payments.v1 import payments_service_pb2 as payments
from citykit.errors import InvalidArgument
from services.gateway.api import bodies, models
from services.gateway.api import payments_models as views
from services.gateway.api.checks import checked
from services.gateway.api.documents import described, document
from services.gateway.api.parameters import BillId, Here, Paging, PaymentId, RequestId, TimeRange, Token
from services.gateway.api.payments_models import payment_view
from services.gateway.app.calls import LONG_DEADLINE_S

public = APIRouter(prefix="/api/v1", tags=["public"])
provider = APIRouter(prefix="/api/v1", tags=["provider"])
resident = APIRouter(prefix="/api/v1", tags=["resident"])
staff = APIRouter(prefix="/api/v1", tags=["staff"])
_JSON = described("application/json")
CALLBACK_MAX = 16_384


@public.get("/payments/books")
async def get_payments_books(here: Here) -> views.PaymentsBooks:
    """What the books add up to: sums only."""
    return models.view(views.PaymentsBooks, await here.calls.ask("payments", "GetBooks", payments.GetBooksRequest()))


# --- the provider --------------------------------------------------------------------------------
@provider.post(
    "/payments/callbacks",
    status_code=204,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {}}}}},
)
async def receive_callback(
    request: Request,
    here: Here,
    provider_signature: Annotated[
        str, Header(min_length=1, max_length=1_000, pattern=r"^[\x20-\x7e]+$", description="Of the body's bytes.")
    ],
) -> None:
    """What the payment provider says of its own accord, at most 16 KiB: the signature covers the bytes as they come."""
    asked = payments.ReceiveCallbackRequest(body=await _raw(request), signature=provider_signature)
    await here.calls.ask("payments", "ReceiveCallback", asked)


async def _raw(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > CALLBACK_MAX:
            raise HTTPException(413, f"a callback may have at most {CALLBACK_MAX} bytes")
    if not body:
        raise InvalidArgument("send the provider's message as the body", field="body")
    return body


# --- the caller's money --------------------------------------------------------------------------
@resident.post("/payments/mandates", status_code=201)
async def create_mandate(here: Here, token: Token, request_id: RequestId, new: bodies.NewMandate) -> views.Mandate:
    """Permits one payee to charge one payment method up to a limit. Its id tells the payee nothing else."""
    request = payments.CreateMandateRequest(
        request_id=request_id,
        payee=new.payee,
        limit_minor=new.limit_minor,
        currency=new.currency,
        payment_method=new.payment_method,
        lifetime_s=new.lifetime_s,
    )
    return models.view(views.Mandate, await here.calls.ask("payments", "CreateMandate", request, token))


@resident.post("/bills/{bill}/payment", status_code=201)
async def pay_bill(
    here: Here, token: Token, request_id: RequestId, bill: BillId, body: bodies.BillPayment
) -> views.Payment:
    """Pays a bill in full: what is due is asked of metering, not of the caller."""
    request = payments.PayBillRequest(request_id=request_id, bill=bill, payment_method=body.payment_method)
    return payment_view((await here.calls.ask("payments", "PayBill", request, token)).payment)


@resident.get("/payments")
async def list_payments(here: Here, token: Token, page: Paging) -> views.Payments:
    """The caller's own, newest first."""
    request = payments.ListPaymentsRequest(page_size=min(page.size, 100), page_token=page.token)
    answer = await here.calls.ask("payments", "ListPayments", request, token)
    rows = [payment_view(payment) for payment in answer.payments]
    return views.Payments(payments=rows, next_page_token=answer.next_page_token)


@staff.get("/payments/reconciliation/{day}")
async def get_reconciliation(
    here: Here,
    token: Token,
    day: Annotated[
        str, Path(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="Local date.", examples=["2016-11-07"])
    ],
) -> views.Reconciliation:
    """One city day: our books against the provider's, and what is still open."""
    request = payments.GetReconciliationRequest(day=_date(day))
    answer = await here.calls.ask("payments", "GetReconciliation", request, token)
    return models.view(views.Reconciliation, answer)


def _date(day: str) -> str:
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        raise InvalidArgument("day is a date of the calendar, YYYY-MM-DD", field="path.day") from None


@resident.get("/payments/{payment}", tags=["staff"])
async def get_payment(here: Here, token: Token, payment: PaymentId) -> views.Payment:
    """One payment: a resident's own; billing staff see any."""
    request = payments.GetPaymentRequest(payment=payment)
    return payment_view((await here.calls.ask("payments", "GetPayment", request, token)).payment)


@resident.get("/payments/{payment}/receipt-bundle", response_class=Response, responses=_JSON)
async def get_receipt_bundle(request: Request, here: Here, token: Token, payment: PaymentId) -> Response:
    """The receipt with its proof: one file for `python -m verifier`."""
    content = await _receipt(here, token, payment)
    return document(request, content, "application/json", filename=f"{payment}.bundle.json")


@resident.post("/payments/{payment}/check")
async def check_receipt(here: Here, token: Token, payment: PaymentId) -> models.Check:
    """Runs the verifier over a receipt's bundle at the server: a demonstration, since the server under check runs it."""
    return await checked(here, await _receipt(here, token, payment))


@staff.post("/payments/{payment}/refund")
async def refund_payment(
    here: Here, token: Token, request_id: RequestId, payment: PaymentId, refund: bodies.Refund
) -> views.Payment:
    """Billing gives captured money back, in part or whole."""
    request = payments.RefundRequest(
        request_id=request_id, payment=payment, amount_minor=refund.amount_minor, reason=refund.reason
    )
    return payment_view((await here.calls.ask("payments", "Refund", request, token)).payment)


@resident.get("/statement-bundle", response_class=Response, responses=_JSON)
async def get_statement_bundle(request: Request, here: Here, token: Token, span: TimeRange) -> Response:
    """The caller's account over a time range with its proofs: one file for `python -m verifier`."""
    content = await _statement(here, token, span)
    return document(request, content, "application/json", filename="statement.bundle.json")


@resident.post("/statement-check")
async def check_statement(here: Here, token: Token, span: TimeRange) -> models.Check:
    """Runs the verifier over the statement's bundle at the server: a demonstration, since the server under check runs it."""
    return await checked(here, await _statement(here, token, span))


async def _receipt(here: Here, token: str, payment: str) -> bytes:
    request = payments.GetReceiptBundleRequest(payment=payment)
    answer = await here.calls.ask("payments", "GetReceiptBundle", request, token, timeout_s=LONG_DEADLINE_S)
    return bytes(answer.bundle_json)


async def _statement(here: Here, token: str, span: TimeRange) -> bytes:
    request = payments.GetStatementBundleRequest(from_time=span.from_time, to_time=span.to_time)
    answer = await here.calls.ask("payments", "GetStatementBundle", request, token, timeout_s=LONG_DEADLINE_S)
    return bytes(answer.bundle_json)
