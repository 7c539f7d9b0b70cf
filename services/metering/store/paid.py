"""What was paid of bills, as payments tells it. Called by `app.paying` and `app.bills`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from citykit.store.port import Unit
from services.metering.store.tables import BILL_PAYMENTS, BILLS

_CORRECTIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class PaidRow:
    """`payment` is the newest payment of the bill."""

    bill: str
    payment: str
    captured_minor: int
    refunded_minor: int

    @property
    def left_minor(self) -> int:
        """What was not given back."""
        return self.captured_minor - self.refunded_minor


def paid(connection: Connection, bills: Sequence[str]) -> dict[str, PaidRow]:
    """What was paid, by bill."""
    rows = connection.execute(select(BILL_PAYMENTS).where(BILL_PAYMENTS.c.bill.in_(bills)))
    return {row.bill: PaidRow(*row) for row in rows}


def add(unit: Unit, bill: str, payment: str, captured_minor: int, refunded_minor: int) -> None:
    """Adds to what a bill's payment took and gave back."""
    before = paid(unit.connection, [bill]).get(bill)
    if before is None:
        row = {"captured_minor": captured_minor, "refunded_minor": refunded_minor}
        unit.execute(insert(BILL_PAYMENTS).values(bill=bill, payment=payment, **row))
        return
    sums = {
        "captured_minor": before.captured_minor + captured_minor,
        "refunded_minor": before.refunded_minor + refunded_minor,
    }
    unit.execute(update(BILL_PAYMENTS).where(BILL_PAYMENTS.c.bill == bill).values(payment=payment, **sums))


def corrected(connection: Connection, bill: str) -> list[str]:
    """The bills that a bill replaces, newest first."""
    found: list[str] = []
    while len(found) < _CORRECTIONS_MAX:
        earlier = connection.execute(select(BILLS.c.corrects).where(BILLS.c.id == bill)).scalar_one_or_none()
        if not earlier:
            break
        found.append(earlier)
        bill = earlier
    return found
