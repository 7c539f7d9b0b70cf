"""What parking asked of payments, and its duties there. Called by `app`."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from sqlalchemy import Connection, select, update

from citykit.store.port import Unit
from services.parking.store.tables import DUTIES, PAYMENTS

AUTHORISE, CAPTURE, VOID, REFUND = "authorise", "capture", "void", "refund"
OPEN, DONE, FAILED = "open", "done", "failed"
ASKING, UNKNOWN, AUTHORISED = "asking", "unknown", "authorised"
DECLINED, CAPTURED, VOIDED = "declined", "captured", "voided"
DROPPED = "dropped"
"""Asked for something that is no longer wanted; let go as soon as it is known to hold."""
_RANK = {ASKING: 0, UNKNOWN: 1, DROPPED: 1, DECLINED: 3, AUTHORISED: 2, CAPTURED: 3, VOIDED: 3}


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One payment of a reservation.

    Attributes:
        reference: `reservation/<id>`, of an extension `reservation/<id>/<n>`; number: 0 or n.
        payment: its id at payments; empty until that is known.
        to_time, quote_minor: of an extension: what it is to become.
    """

    reference: str
    reservation: str
    number: int
    payment: str
    wanted_minor: int
    to_time: int
    quote_minor: int
    state: str


@dataclass(frozen=True, slots=True)
class DutyRow:
    """Something that must be done at payments, once, whatever fails. `number` 0: not stored yet."""

    number: int
    reservation: str
    reference: str
    kind: str
    amount_minor: int
    reason: str
    state: str


_PAYMENT_COLUMNS = tuple(item.name for item in fields(PaymentRow))
_DUTY_COLUMNS = tuple(item.name for item in fields(DutyRow))[1:]


def add_payment(unit: Unit, row: PaymentRow) -> None:
    unit.insert_many(PAYMENTS, _PAYMENT_COLUMNS, [astuple(row)])


def payment(connection: Connection, reference: str) -> PaymentRow | None:
    found = connection.execute(select(PAYMENTS).where(PAYMENTS.c.reference == reference)).one_or_none()
    return None if found is None else PaymentRow(*found)


def payments_of(connection: Connection, reservation: str) -> list[PaymentRow]:
    """The reservation's payments, oldest first."""
    query = select(PAYMENTS).where(PAYMENTS.c.reservation == reservation).order_by(PAYMENTS.c.number)
    return [PaymentRow(*row) for row in connection.execute(query)]


def note_payment(unit: Unit, reference: str, payment_id: str, state: str) -> bool:
    """Takes over what payments says; a state never goes back. True if it is news.

    Unknown says that the provider was asked; a dropped one stays dropped until the answer is certain.
    """
    row = payment(unit.connection, reference)
    if row is None or _RANK[state] < _RANK[row.state] or (row.payment, row.state) == (payment_id, state):
        return False
    known = DROPPED if row.state == DROPPED and state == UNKNOWN else state
    values = {"payment": payment_id or row.payment, "state": known}
    unit.execute(update(PAYMENTS).where(PAYMENTS.c.reference == reference).values(**values))
    return row.state != known


def drop_payment(unit: Unit, reference: str) -> None:
    """What it was asked for is no longer wanted."""
    unit.execute(update(PAYMENTS).where(PAYMENTS.c.reference == reference).values(state=DROPPED))


def add_duty(unit: Unit, row: DutyRow) -> None:
    unit.insert_many(DUTIES, _DUTY_COLUMNS, [astuple(row)[1:]])


def open_duties(connection: Connection, limit: int, reservation: str = "") -> list[DutyRow]:
    """Duties still to be done, the oldest first; of one reservation or of all."""
    wanted = [DUTIES.c.state == OPEN, *([DUTIES.c.reservation == reservation] if reservation else [])]
    return [
        DutyRow(*row)
        for row in connection.execute(select(DUTIES).where(*wanted).order_by(DUTIES.c.number).limit(limit))
    ]


def duties_of(connection: Connection, reservation: str) -> list[DutyRow]:
    query = select(DUTIES).where(DUTIES.c.reservation == reservation).order_by(DUTIES.c.number)
    return [DutyRow(*row) for row in connection.execute(query)]


def end_duty(unit: Unit, number: int, state: str) -> None:
    unit.execute(update(DUTIES).where(DUTIES.c.number == number).values(state=state))
