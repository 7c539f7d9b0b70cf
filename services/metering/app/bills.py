"""Reads bills: residents their own, staff each with a purpose. Called by `api`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from citykit.access import Principal
from citykit.errors import InvalidArgument, NotFound
from citykit.store.port import Store
from services.metering.app.people import People, is_resident
from services.metering.app.usage import page_limit
from services.metering.store import bills as stored
from services.metering.store.bills import BillRow
from services.metering.store.paid import PaidRow, paid

PAGE_MAX = 200


@dataclass(frozen=True)
class Bills:
    """Use cases that read bills."""

    store: Store
    people: People

    async def page(
        self, who: Principal, page_size: int, page_token: str
    ) -> tuple[list[tuple[BillRow, str, PaidRow | None]], str]:
        """(bill, corrected by, what was paid) newest first, and the next page's token. Staff get no documents: GetBill, with a purpose."""
        limit = page_limit(page_size, PAGE_MAX)
        subject = who.subject if is_resident(who) else None
        rows = await self.store.read(lambda c: _with_payments(c, stored.page(c, subject, _after(page_token), limit)))
        token = f"{rows[-1][0].issued_at}.{rows[-1][0].id}" if len(rows) == limit else ""
        return rows if subject is not None else [
            (replace(row, document=b""), by, money) for row, by, money in rows
        ], token

    async def get(self, who: Principal, bill: str, purpose: str) -> tuple[BillRow, str, PaidRow | None]:
        """(bill, corrected by, what was paid).

        Raises:
            NotFound, InvalidArgument (no purpose), Unavailable.
        """
        found = await self.store.read(lambda c: stored.shown(c, bill))
        if found is None:
            raise NotFound(f"no bill {bill!r}; ListBills names yours", field="bill")
        await self.people.may_see_bill(who, found[0].contract, bill, purpose)
        payments = await self.store.read(lambda c: paid(c, [bill]))
        return (*found, payments.get(bill))


def _with_payments(
    connection: Connection, rows: list[tuple[BillRow, str]]
) -> list[tuple[BillRow, str, PaidRow | None]]:
    payments = paid(connection, [row.id for row, _ in rows])
    return [(row, by, payments.get(row.id)) for row, by in rows]


def _after(token: str) -> tuple[int, str] | None:
    time, _, id_ = token.partition(".")
    if token and not time.isdecimal():
        raise InvalidArgument("page_token must be what the page before gave", field="page_token")
    return (int(time), id_) if token else None
