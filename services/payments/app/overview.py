"""What the books add up to, for the public page, the metrics and the invariant. Called by `api` and `main`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from city.payments.v1 import payments_service_pb2 as pb
from citykit import telemetry
from citykit.service import Finding
from citykit.store.port import Store
from services.payments.store import books, payments


@dataclass(frozen=True)
class Overview:
    """Sums over everything, read anew each time."""

    store: Store

    async def books(self) -> pb.GetBooksResponse:
        """Counts, and how far debits and credits are apart: 0."""
        return await self.store.read(_books)

    async def measure(self) -> None:
        """Tells the metrics. A job."""
        books_, (first, again) = await self.store.read(lambda c: (_books(c), payments.waiting_operations(c)))
        telemetry.PAYMENTS_IMBALANCE.set(books_.sum_minor)
        telemetry.PAYMENTS_WAITING.labels("first").set(first)
        telemetry.PAYMENTS_WAITING.labels("again").set(again)

    async def sum_is_zero(self) -> Finding:
        """Debits and credits are equal in every currency. An invariant."""
        found = await self.books()
        evidence = f"{found.transfers} transfers on {found.accounts} accounts are {found.sum_minor} minor units apart"
        return Finding(found.sum_minor == 0, evidence)


def _books(connection: Connection) -> pb.GetBooksResponse:
    accounts, transfers, sums = books.totals(connection)
    apart = sum(abs(amount) for amount in sums.values())
    found = payments.sums(connection)
    return pb.GetBooksResponse(accounts=accounts, transfers=transfers, sum_minor=apart, **found._asdict())
