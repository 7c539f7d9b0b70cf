"""What the city's own books say at a moment, for the run's summary."""

from __future__ import annotations

from dataclasses import dataclass

from city.notary.v1 import notary_service_pb2 as notary
from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from services.gateway.app.calls import Calls


@dataclass(frozen=True)
class Books:
    """Totals since the city began.

    Attributes:
        payments: payments that were captured.
    """

    anchored_entries: int
    reservations: int
    double_bookings: int
    payments: int


async def read_books(calls: Calls) -> Books:
    heads = (await calls.ask("notary", "ListLogs", notary.ListLogsRequest())).heads
    lots = await calls.ask("parking", "GetBooks", parking.GetBooksRequest())
    money = await calls.ask("payments", "GetBooks", payments.GetBooksRequest())
    return Books(
        anchored_entries=sum(head.anchored_size for head in heads),
        reservations=lots.reservations,
        double_bookings=lots.double_bookings,
        payments=money.captured,
    )
