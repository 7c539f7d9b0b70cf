"""Pays a bill of metering: what is due is asked of metering; authorised and captured in one act. Called by `api`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.payments.v1 import payments_service_pb2 as pb
from citykit.access import Principal
from citykit.edge import city_error
from citykit.errors import AlreadyExists, FailedPrecondition
from citykit.once import Once
from services.payments.app.payments import Charge, Payments, checked
from services.payments.domain.mandate import require_method, require_reference
from services.payments.domain.payment import Payment

PAYEE, REFERENCE = "metering", "bill/"
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class BillPayments:
    """The use case; `dial` reaches metering."""

    payments: Payments
    dial: Callable[[str], grpc.aio.Channel]

    async def pay(self, once: Once[pb.PayBillResponse], who: Principal, bill: str, method: str) -> Payment:
        """Pays in full.

        Raises:
            InvalidArgument, NotFound (bill), AlreadyExists (paid, or being paid), FailedPrecondition (nothing is due, corrected,
            no provider), Unavailable (metering is away).
        """
        reference = REFERENCE + bill
        checked(lambda: require_method(method))
        checked(lambda: require_reference(reference))
        if (before := await once.asked(self.payments.store)) is not None:
            return await self.payments.settle(once, who, lambda _: before.payment.id)
        due = await self._due(bill)
        self.payments.require_currency(due.currency)
        wanted = Charge(PAYEE, reference, who.subject, due.total_minor, due.currency, method, captures=True)
        return await self.payments.settle(once, who, lambda work: self.payments.charge(work, wanted))

    async def _due(self, bill: str) -> metering.GetBillDueResponse:
        try:
            request = metering.GetBillDueRequest(bill=bill)
            due: metering.GetBillDueResponse = await MeteringServiceStub(self.dial("metering")).GetBillDue(
                request, timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise city_error(error) from None
        if due.paid:
            raise AlreadyExists(f"the bill {bill} is paid", field="bill", reason="reference-paid")
        if due.total_minor < 1:
            raise FailedPrecondition(f"nothing is due for the bill {bill}", field="bill", reason="nothing-due")
        return due
