"""What the books add up to, for the public page. Called by `api`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from city.payments.v1 import payments_service_pb2 as pb
from citykit.store.port import Store
from services.payments.store import books, payments


@dataclass(frozen=True)
class Overview:
    """Sums over everything, read anew each time."""

    store: Store

    async def books(self) -> pb.GetBooksResponse:
        """Counts, and how far debits and credits are apart: 0."""
        return await self.store.read(_books)


def _books(connection: Connection) -> pb.GetBooksResponse:
    accounts, transfers, sums = books.totals(connection)
    apart = sum(abs(amount) for amount in sums.values())
    found = payments.sums(connection)
    return pb.GetBooksResponse(accounts=accounts, transfers=transfers, sum_minor=apart, **found._asdict())
