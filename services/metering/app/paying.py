"""Bills and their payments: what is still due, for payments; what was paid, from payments' events. Called by `api` and the bus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from city.metering.v1 import metering_service_pb2 as pb
from city.payments.v1 import events_pb2
from citykit import canonical
from citykit.bus.events import event_type
from citykit.bus.port import Record
from citykit.errors import FailedPrecondition, NotFound
from citykit.store.port import Store, Unit
from services.metering.store import bills as stored
from services.metering.store import paid

GROUP = "metering-payments"
PAYEE = "metering"
REFERENCE = "bill/"
_CHANGED = events_pb2.PaymentChanged.DESCRIPTOR.full_name
_CAPTURED, _REFUNDED = "captured", "refunded"


@dataclass(frozen=True)
class Paying:
    """What payments asks, and what it tells."""

    store: Store

    async def due(self, bill: str) -> pb.GetBillDueResponse:
        """What is still to be paid of a bill.

        Raises:
            NotFound; FailedPrecondition: a later bill corrects it.
        """
        return await self.store.read(partial(_due, bill))

    async def handle(self, records: Sequence[Record]) -> None:
        """Consumer of payments' events; each once."""
        for record in records:
            if event_type(record) == _CHANGED:
                await self.store.write(partial(_take, record))


def _due(bill: str, connection: Connection) -> pb.GetBillDueResponse:
    found = stored.shown(connection, bill)
    if found is None:
        raise NotFound(f"no bill {bill!r}", field="bill")
    row, corrected_by = found
    if corrected_by:
        raise FailedPrecondition(
            f"the bill was corrected; pay {corrected_by} instead", field="bill", reason="bill-corrected"
        )
    earlier = paid.corrected(connection, bill)
    payments = paid.paid(connection, [bill, *earlier])
    left = row.total_minor - sum(item.left_minor for item in payments.values())
    own = payments.get(bill)
    return pb.GetBillDueResponse(
        total_minor=max(0, left),
        currency=row.currency,
        due_date=canonical.decode(row.document)["due"],
        paid=own is not None and own.left_minor > 0,
    )


def _take(record: Record, unit: Unit) -> None:
    event = events_pb2.PaymentChanged()
    event.ParseFromString(record.value)
    ours = event.payee == PAYEE and event.reference.startswith(REFERENCE)
    if not ours or event.change not in (_CAPTURED, _REFUNDED) or not unit.first_time(record, GROUP):
        return
    captured = event.amount_minor if event.change == _CAPTURED else 0
    bill = event.reference.removeprefix(REFERENCE)
    paid.add(unit, bill, event.payment, captured, event.amount_minor - captured)
