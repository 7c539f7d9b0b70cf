"""Parking as a payee: its calls to payments, in words of its own. Called by `app.money` and `app.bundles`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit.edge import city_error
from services.parking.store import payments as words

TIMEOUT_S = 10.0
_STATES = {
    pb.PAYMENT_STATE_UNKNOWN: words.UNKNOWN,
    pb.PAYMENT_STATE_AUTHORISED: words.AUTHORISED,
    pb.PAYMENT_STATE_DECLINED: words.DECLINED,
    pb.PAYMENT_STATE_CAPTURED: words.CAPTURED,
    pb.PAYMENT_STATE_VOIDED: words.VOIDED,
}


@dataclass(frozen=True, slots=True)
class Said:
    """What payments says of one payment. `waiting`: something asked of the provider is not certain yet."""

    payment: str
    state: str
    waiting: bool


@dataclass(frozen=True)
class Payee:
    """`dial` is the service's own; each call raises the CityError it ended with."""

    dial: Callable[[str], grpc.aio.Channel]

    async def authorise(self, request_id: str, mandate: str, amount_minor: int, currency: str, reference: str) -> Said:
        request = pb.AuthoriseRequest(
            request_id=request_id, mandate=mandate, amount_minor=amount_minor, currency=currency, reference=reference
        )
        return _said((await self._call("Authorise", request)).payment)

    async def capture(self, request_id: str, payment: str, amount_minor: int) -> Said:
        request = pb.CaptureRequest(request_id=request_id, payment=payment, amount_minor=amount_minor)
        return _said((await self._call("Capture", request)).payment)

    async def void(self, request_id: str, payment: str) -> Said:
        request = pb.VoidPaymentRequest(request_id=request_id, payment=payment)
        return _said((await self._call("VoidPayment", request)).payment)

    async def refund(self, request_id: str, payment: str, amount_minor: int, reason: str) -> Said:
        request = pb.RefundRequest(request_id=request_id, payment=payment, amount_minor=amount_minor, reason=reason)
        return _said((await self._call("Refund", request)).payment)

    async def look(self, payment: str) -> Said:
        return _said((await self._call("GetPayment", pb.GetPaymentRequest(payment=payment))).payment)

    async def receipt(self, payment: str) -> pb.GetReceiptResponse:
        answer: pb.GetReceiptResponse = await self._call("GetReceipt", pb.GetReceiptRequest(payment=payment))
        return answer

    async def _call(self, rpc: str, request: Any) -> Any:
        try:
            return await getattr(PaymentsServiceStub(self.dial("payments")), rpc)(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise city_error(error) from None


def _said(payment: pb.Payment) -> Said:
    return Said(payment.id, _STATES.get(payment.state, words.UNKNOWN), bool(payment.waiting_for))
