"""Reconciliation of a local day with the provider, kept once the day is over, and the day's close on the ledger. For `api` and a job.

An operation belongs to the local day in which it was first asked for; the provider is told that time and lists by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument
from citykit.ledger.port import Ledger
from citykit.store.port import Store, Unit
from services.payments.app.provider import Provider, moved
from services.payments.domain.payment import CAPTURE, REFUND
from services.payments.domain.reconciliation import Item, Report, reconcile
from services.payments.store import books as stored_books
from services.payments.store import days as stored
from services.payments.store import payments as stored_payments
from services.payments.store.days import DayRow

MOVING = (CAPTURE, REFUND)
DAYS_A_RUN = 40


@dataclass(frozen=True)
class Reconciliation:
    """Reports by day. `zone` is the city's."""

    store: Store
    provider: Provider
    ledger: Ledger
    clock: Clock
    zone: str

    async def report(self, day: str) -> tuple[Report, int]:
        """(report, city time it was made at): the kept one, or of what is known now.

        Raises:
            InvalidArgument: no day, or one that has not begun. FailedPrecondition, Unavailable: the provider.
        """
        wanted = _day(day)
        if self._span(wanted)[0] > unix(self.clock):
            raise InvalidArgument(f"{day} has not begun", field="day")
        kept = await self.store.read(lambda c: stored.day(c, day))
        if kept is not None and not kept.report.waiting:
            return kept.report, kept.made_at
        return await self._made(wanted), unix(self.clock)

    async def close_days(self) -> None:
        """Keeps the report of each day that is over, and closes it on the ledger once nothing of it waits. A job."""
        for _ in range(DAYS_A_RUN):
            day = await self.store.read(self._next)
            if day is None or self._span(day)[1] > unix(self.clock) or not await self._close(day):
                return

    async def _close(self, day: date) -> bool:
        await self.store.write(_nothing)  # what was written down while the day lasted is durable after this
        report, name = await self._made(day), day.isoformat()
        await self.store.write(partial(stored.keep, DayRow(name, report, unix(self.clock), "")))
        if report.waiting:
            return False
        size = await self.store.read(lambda c: stored_books.sets_until(c, self._span(day)[1]))
        args = {
            "day": name,
            "captured_minor": report.captured_minor,
            "refunded_minor": report.refunded_minor,
            "transfers_size": size,
        }
        receipt = await self.ledger.submit(
            "payments-days", "close", args, submitter="payments", request_id=f"payments-day-{name}"
        )
        await self.store.write(partial(stored.closed, name, receipt.transaction))
        return True

    async def _made(self, day: date) -> Report:
        start, end = self._span(day)
        theirs = moved(await self.provider.listed(start, end), MOVING)
        ours, waiting = await self.store.read(partial(_ours, start, end))
        return reconcile(ours, theirs, waiting)

    def _next(self, connection: Connection) -> date | None:
        """The day after the last closed one; else the day of the first operation; None before it."""
        last = stored.last_closed(connection)
        if last is not None:
            return date.fromisoformat(last) + timedelta(days=1)
        first = stored_payments.first_operation(connection)
        return None if first is None else datetime.fromtimestamp(first, ZoneInfo(self.zone)).date()

    def _span(self, day: date) -> tuple[int, int]:
        return self._midnight(day), self._midnight(day + timedelta(days=1))

    def _midnight(self, day: date) -> int:
        return int(datetime.combine(day, time(), ZoneInfo(self.zone)).timestamp())


def _nothing(_unit: Unit) -> None:
    return None


def _ours(start: int, end: int, connection: Connection) -> tuple[list[Item], list[str]]:
    items = stored_payments.moved_between(connection, start, end, MOVING)
    return items, stored_payments.waiting_between(connection, start, end)


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise InvalidArgument(f"{text!r} is no day; give YYYY-MM-DD, local", field="day")
    return day
