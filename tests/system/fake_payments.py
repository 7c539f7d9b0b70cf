"""Payments in memory, for parking's tests: authorises, declines, is uncertain or away as it is told. Idempotent by request id, as payments is."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from city.payments.v1 import events_pb2 as events
from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceServicer, add_PaymentsServiceServicer_to_server
from citykit import canonical
from citykit.bus.events import cloud_event
from citykit.bus.port import Message
from citykit.clock import iso
from citykit.errors import FailedPrecondition, NotFound, Unavailable
from citykit.package import commitment
from citykit.service import Context, Service, Servicer

TOPIC = "city.payments.events.v1"
_WORDS = {
    pb.PAYMENT_STATE_AUTHORISED: "authorised",
    pb.PAYMENT_STATE_DECLINED: "declined",
    pb.PAYMENT_STATE_CAPTURED: "captured",
    pb.PAYMENT_STATE_VOIDED: "voided",
}


class _Servicer(PaymentsServiceServicer):
    """One method per RPC that parking calls."""

    def __init__(self, fake: FakePayments) -> None:
        self.fake = fake

    async def Authorise(self, request: pb.AuthoriseRequest, context: Any) -> pb.AuthoriseResponse:
        return pb.AuthoriseResponse(payment=await self.fake.once(request, self.fake.authorise))

    async def Capture(self, request: pb.CaptureRequest, context: Any) -> pb.CaptureResponse:
        return pb.CaptureResponse(payment=await self.fake.once(request, self.fake.capture))

    async def VoidPayment(self, request: pb.VoidPaymentRequest, context: Any) -> pb.VoidPaymentResponse:
        return pb.VoidPaymentResponse(payment=await self.fake.once(request, self.fake.void))

    async def Refund(self, request: pb.RefundRequest, context: Any) -> pb.RefundResponse:
        return pb.RefundResponse(payment=await self.fake.once(request, self.fake.refund))

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Any) -> pb.GetPaymentResponse:
        return pb.GetPaymentResponse(payment=self.fake.find(request.payment))

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Any) -> pb.GetReceiptResponse:
        return self.fake.receipt(request.payment)


class FakePayments:
    """What it does: `mood` is `authorise`, `decline` or `unknown`; `away` refuses every call; `calls` are the requests that came."""

    def __init__(self) -> None:
        self.mood = "authorise"
        self.away = False
        self.loses_answers = 0
        self.payments: dict[str, pb.Payment] = {}
        self.calls: list[Any] = []
        self._answers: dict[str, pb.Payment] = {}
        self._receipts: dict[str, pb.GetReceiptResponse] = {}
        self._changes: dict[str, list[dict[str, Any]]] = {}
        self._ctx: Context | None = None

    def build(self, ctx: Context) -> Service:
        self._ctx = ctx
        servicer = Servicer(
            add_PaymentsServiceServicer_to_server, _Servicer(self), "city.payments.v1.PaymentsService"  # type: ignore[abstract]
        )  # fmt: skip
        return Service(ctx.name, servicers=(servicer,))

    async def once(self, request: Any, act: Callable[[Any], pb.Payment]) -> pb.Payment:
        self.require_here()
        self.calls.append(request)
        if request.request_id not in self._answers:
            payment = act(request)
            self._answers[request.request_id] = pb.Payment.FromString(payment.SerializeToString())
            await self.tell(payment)
        if self.loses_answers:
            self.loses_answers -= 1
            raise Unavailable("the answer was lost", retry_after_s=0.1)
        return self.payments[self._answers[request.request_id].id]

    def require_here(self) -> None:
        if self.away:
            raise Unavailable("payments is away", retry_after_s=1.0)

    def authorise(self, request: pb.AuthoriseRequest) -> pb.Payment:
        if request.mandate == "no-such-mandate":
            raise NotFound("no such mandate", field="mandate")
        payment = pb.Payment(
            id=f"payment-{len(self.payments) + 1}", payee="parking", reference=request.reference, currency=request.currency
        )  # fmt: skip
        self.payments[payment.id] = payment
        payment.authorised_minor = request.amount_minor
        payment.state = {
            "authorise": pb.PAYMENT_STATE_AUTHORISED, "decline": pb.PAYMENT_STATE_DECLINED, "unknown": pb.PAYMENT_STATE_UNKNOWN,
        }[self.mood]  # fmt: skip
        payment.waiting_for = "authorise" if self.mood == "unknown" else ""
        if self.mood == "decline":
            payment.authorised_minor = 0
        if self.mood != "unknown":
            self._change(payment, payment.authorised_minor)
        return payment

    async def settle(self, payment_id: str, authorised: bool) -> None:
        """The provider's late answer to an uncertain payment."""
        payment = self.find(payment_id)
        payment.state = pb.PAYMENT_STATE_AUTHORISED if authorised else pb.PAYMENT_STATE_DECLINED
        payment.waiting_for = ""
        if not authorised:
            payment.authorised_minor = 0
        self._change(payment, payment.authorised_minor)
        await self.tell(payment)

    def capture(self, request: pb.CaptureRequest) -> pb.Payment:
        payment = self._in_state(request.payment, pb.PAYMENT_STATE_AUTHORISED)
        if not 0 < request.amount_minor <= payment.authorised_minor:
            raise FailedPrecondition("more than was authorised")
        payment.state, payment.captured_minor = pb.PAYMENT_STATE_CAPTURED, request.amount_minor
        self._change(payment, request.amount_minor)
        return payment

    def void(self, request: pb.VoidPaymentRequest) -> pb.Payment:
        payment = self._in_state(request.payment, pb.PAYMENT_STATE_AUTHORISED)
        payment.state = pb.PAYMENT_STATE_VOIDED
        self._change(payment, payment.authorised_minor)
        return payment

    def refund(self, request: pb.RefundRequest) -> pb.Payment:
        payment = self._in_state(request.payment, pb.PAYMENT_STATE_CAPTURED)
        if not 0 < request.amount_minor <= payment.captured_minor - payment.refunded_minor:
            raise FailedPrecondition("more than was captured")
        payment.refunded_minor += request.amount_minor
        self._change(payment, request.amount_minor, "refunded", request.reason)
        return payment

    def find(self, payment: str) -> pb.Payment:
        self.require_here()
        if payment not in self.payments:
            raise NotFound("no such payment")
        return self.payments[payment]

    def receipt(self, payment: str) -> pb.GetReceiptResponse:
        self.find(payment)
        return self._receipts[payment]

    def captured(self) -> int:
        return sum(item.captured_minor - item.refunded_minor for item in self.payments.values())

    def held(self) -> int:
        states = (pb.PAYMENT_STATE_AUTHORISED, pb.PAYMENT_STATE_UNKNOWN)
        return sum(item.authorised_minor for item in self.payments.values() if item.state in states)

    def _in_state(self, id_: str, state: int) -> pb.Payment:
        payment = self.find(id_)
        if payment.state != state:
            raise FailedPrecondition(f"the payment is {payment.state}")
        return payment

    def _change(self, payment: pb.Payment, amount: int, change: str = "", reason: str = "") -> None:
        assert self._ctx is not None
        now = iso(self._ctx.clock.now())
        changes = self._changes.setdefault(payment.id, [])
        changes.append(
            {"change": change or _WORDS[payment.state], "amount_minor": amount, "time": now, "reason": reason}
        )
        document = canonical.encode(
            {
                "format": "city.receipt.v1", "payment": payment.id, "version": len(changes), "payee": "parking",
                "reference": payment.reference, "state": _WORDS[payment.state], "currency": payment.currency,
                "authorised_minor": payment.authorised_minor, "captured_minor": payment.captured_minor,
                "refunded_minor": payment.refunded_minor, "changes": changes, "time": now,
            }
        )  # fmt: skip
        salt = sha256(f"{payment.id}/{len(changes)}".encode()).digest()
        self._receipts[payment.id] = pb.GetReceiptResponse(
            document=document, salt=salt, commitment=commitment(salt, document)
        )

    async def tell(self, payment: pb.Payment) -> None:
        """Publishes the newest change, where there is one."""
        if payment.id in self._receipts:
            assert self._ctx is not None
            await self._ctx.bus.publish([self.message(payment)])

    def message(self, payment: pb.Payment) -> Message:
        changes = self._changes[payment.id]
        event = events.PaymentChanged(
            payment=payment.id, payee="parking", reference=payment.reference, change=changes[-1]["change"],
            amount_minor=changes[-1]["amount_minor"], currency=payment.currency,
        )  # fmt: skip
        assert self._ctx is not None
        return cloud_event(
            topic=TOPIC, key=payment.id, event=event, source="payments", id=f"{payment.id}-{len(changes)}",
            time=int(self._ctx.clock.now()), commitment=self._receipts[payment.id].commitment,
        )  # fmt: skip
