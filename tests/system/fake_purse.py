"""Payments with canned books; what a payment method does is in its name, as in the sandbox."""

from __future__ import annotations

import json
from typing import Any

from city.payments.v1 import payments_service_pb2 as payments
from city.payments.v1 import payments_service_pb2_grpc as payments_grpc
from citykit.errors import NotFound, PermissionDenied
from tests.system.fake_calls import DAY, NOW, Asked, at

PAYMENT = "payment-5f0c2ab19d3e4417"
_STATES = ("captured", "unknown", "declined")


def declines(mandate: str) -> bool:
    return mandate.startswith("mandate-declined")


def is_late(mandate: str) -> bool:
    return mandate.startswith("mandate-later")


def payment(id_: str = PAYMENT, state: str = "captured", reference: str = "reservation/reservation-1") -> Any:
    """One payment of 6.30."""
    taken = 630 if state == "captured" else 0
    return payments.Payment(
        id=id_, payee="parking" if "reservation" in reference else "metering", reference=reference,
        state=payments.PaymentState.Value(f"PAYMENT_STATE_{state.upper()}"), authorised_minor=0 if state == "declined" else 1_830,
        captured_minor=taken, currency="GBP", create_time=at(NOW - 3_600), reason="card-declined" if state == "declined" else "",
        waiting_for="authorise" if state == "unknown" else "",
    )  # fmt: skip


class Payments(payments_grpc.PaymentsServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._bills: list[Any] = []

    async def CreateMandate(self, request: Any, _: Any) -> Any:
        kind = request.payment_method.removeprefix("pm_")
        return self._asked.once("CreateMandate", request, payments.CreateMandateResponse(mandate=f"mandate-{kind}-1"))

    async def PayBill(self, request: Any, _: Any) -> Any:
        state = "declined" if "declined" in request.payment_method else "captured"
        found = payment("payment-bill", state, f"bill/{request.bill}")
        answer = self._asked.once("PayBill", request, payments.PayBillResponse(payment=found))
        self._bills = [answer.payment]
        return answer

    async def GetPayment(self, request: Any, _: Any) -> Any:
        self._asked.note("GetPayment", request)
        self._known(request.payment)
        return payments.GetPaymentResponse(payment=payment(request.payment))

    def _known(self, id_: str) -> None:
        if not id_.startswith("payment-"):
            raise NotFound(f"no payment {id_} of yours; GET /api/v1/payments lists them")

    async def ListPayments(self, request: Any, _: Any) -> Any:
        self._asked.note("ListPayments", request)
        canned = [payment(f"payment-{number}", state) for number, state in enumerate(_STATES)]
        return payments.ListPaymentsResponse(payments=[*self._bills, *canned])

    async def Refund(self, request: Any, _: Any) -> Any:
        self._known(request.payment)
        return self._asked.once("Refund", request, payments.RefundResponse(payment=payment(request.payment)))

    async def GetReceiptBundle(self, request: Any, _: Any) -> Any:
        self._asked.note("GetReceiptBundle", request)
        self._known(request.payment)
        bundle = {"format": "city.bundle.v1", "kind": "event", "fake": self._asked.bundle}
        return payments.GetReceiptBundleResponse(bundle_json=json.dumps(bundle).encode())

    async def GetStatementBundle(self, request: Any, _: Any) -> Any:
        self._asked.note("GetStatementBundle", request)
        bundle = {"format": "city.bundle.v1", "kind": "statement", "fake": self._asked.bundle}
        return payments.GetStatementBundleResponse(bundle_json=json.dumps(bundle).encode())

    async def ReceiveCallback(self, request: Any, _: Any) -> Any:
        self._asked.note("ReceiveCallback", request)
        if request.signature == "forged":
            raise PermissionDenied("the signature does not hold", reason="bad-signature")
        return payments.ReceiveCallbackResponse()

    async def GetReconciliation(self, request: Any, _: Any) -> Any:
        self._asked.note("GetReconciliation", request)
        difference = payments.ReconciliationDifference(
            payment=PAYMENT, what="captured there, not here", ours_minor=0, theirs_minor=630
        )
        return payments.GetReconciliationResponse(
            day=request.day, captured_minor=41_230, provider_captured_minor=41_860, differences=[difference],
            waiting=["payment-1"], made_at=at(NOW - DAY),
        )  # fmt: skip

    async def GetBooks(self, request: Any, _: Any) -> Any:
        self._asked.note("GetPaymentsBooks", request)
        return payments.GetBooksResponse(
            accounts=212, transfers=4_801, sum_minor=0, authorised=58, captured=903, unknown=1, declined=14,
            captured_minor=512_340, refunded_minor=1_200,
        )  # fmt: skip
