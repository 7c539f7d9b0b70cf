"""Mandates, payments, operations at the provider, receipts. Called by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, case, delete, func, insert, or_, select, update

from citykit.store.port import Unit
from services.payments.domain.mandate import Mandate
from services.payments.domain.payment import AUTHORISED, CAPTURED, DECLINED, DONE, UNKNOWN, WAITING, Operation, Payment
from services.payments.domain.reconciliation import Item
from services.payments.store.tables import MANDATES, OPERATIONS, PAYERS, PAYMENTS, RECEIPTS

_PAYMENT = tuple(item.name for item in fields(Payment))
_OPERATION = tuple(item.name for item in fields(Operation))
_MANDATE = tuple(item.name for item in fields(Mandate))


class ReceiptRow(NamedTuple):
    """A version of a receipt and the salt of its commitment."""

    payment: str
    version: int
    document: bytes
    salt: bytes


def payer(connection: Connection, subject: str) -> str | None:
    """The resident's account, if there is one."""
    return connection.execute(select(PAYERS.c.account).where(PAYERS.c.subject == subject)).scalar_one_or_none()


def add_payer(unit: Unit, subject: str, account: str) -> None:
    unit.execute(insert(PAYERS).values(subject=subject, account=account))


def add_mandate(unit: Unit, mandate: Mandate) -> None:
    unit.execute(insert(MANDATES).values(**asdict(mandate)))


def mandate(connection: Connection, id_: str) -> Mandate | None:
    row = connection.execute(select(MANDATES).where(MANDATES.c.id == id_)).one_or_none()
    return Mandate(*(row._mapping[name] for name in _MANDATE)) if row is not None else None


def used_minor(connection: Connection, mandate_id: str) -> int:
    """What payments under a mandate hold, or took."""
    live = PAYMENTS.c.state.in_((UNKNOWN, AUTHORISED, CAPTURED))
    amount = case((PAYMENTS.c.state == CAPTURED, PAYMENTS.c.captured_minor), else_=PAYMENTS.c.amount_minor)
    query = select(func.coalesce(func.sum(amount), 0)).where(PAYMENTS.c.mandate == mandate_id, live)
    return int(connection.execute(query).scalar_one())


def add_payment(unit: Unit, payment: Payment) -> None:
    unit.execute(insert(PAYMENTS).values(**asdict(payment)))


def save_payment(unit: Unit, payment: Payment) -> None:
    unit.execute(update(PAYMENTS).where(PAYMENTS.c.id == payment.id).values(**asdict(payment)))


def payment(connection: Connection, id_: str) -> Payment | None:
    row = connection.execute(select(PAYMENTS).where(PAYMENTS.c.id == id_)).one_or_none()
    return _payment(row) if row is not None else None


def required_payment(connection: Connection, id_: str) -> Payment:
    """One that is there: an operation names it."""
    return _payment(connection.execute(select(PAYMENTS).where(PAYMENTS.c.id == id_)).one())


def payment_for(connection: Connection, payee: str, reference: str) -> Payment | None:
    """The payment of a payee's reference that is not declined."""
    query = select(PAYMENTS).where(
        PAYMENTS.c.payee == payee, PAYMENTS.c.reference == reference, PAYMENTS.c.state != DECLINED
    )
    row = connection.execute(query).one_or_none()
    return _payment(row) if row is not None else None


def payments_of(connection: Connection, subject: str, after: tuple[int, str] | None, limit: int) -> list[Payment]:
    """A resident's payments, newest first, beyond (created_at, id) of the last before."""
    query = select(PAYMENTS).where(PAYMENTS.c.subject == subject)
    if after is not None:
        time, id_ = after
        older = or_(PAYMENTS.c.created_at < time, (PAYMENTS.c.created_at == time) & (PAYMENTS.c.id > id_))
        query = query.where(older)
    rows = connection.execute(query.order_by(PAYMENTS.c.created_at.desc(), PAYMENTS.c.id).limit(limit))
    return [_payment(row) for row in rows]


def add_operation(unit: Unit, operation: Operation) -> None:
    unit.execute(insert(OPERATIONS).values(**asdict(operation), tries=0))


def end_operation(unit: Unit, operation: Operation) -> None:
    unit.execute(update(OPERATIONS).where(OPERATIONS.c.id == operation.id).values(state=operation.state))


def operation(connection: Connection, id_: str) -> Operation | None:
    row = connection.execute(select(OPERATIONS).where(OPERATIONS.c.id == id_)).one_or_none()
    return _operation(row) if row is not None else None


def waiting_operation(connection: Connection, payment_id: str) -> Operation | None:
    """What a payment waits for; there is at most one."""
    query = select(OPERATIONS).where(OPERATIONS.c.payment == payment_id, OPERATIONS.c.state == WAITING)
    row = connection.execute(query).one_or_none()
    return _operation(row) if row is not None else None


def waiting_payments(connection: Connection, limit: int) -> list[str]:
    """Payments whose outcome is not certain: those asked about least often first."""
    query = select(OPERATIONS.c.payment).where(OPERATIONS.c.state == WAITING)
    return list(connection.execute(query.order_by(OPERATIONS.c.tries, OPERATIONS.c.id).limit(limit)).scalars())


def waiting_operations(connection: Connection) -> tuple[int, int]:
    """Operations whose outcome is not certain: never asked about again, and asked about again."""
    asked = (OPERATIONS.c.tries > 0).label("asked")
    query = select(asked, func.count()).where(OPERATIONS.c.state == WAITING).group_by(asked)
    rows = connection.execute(query)
    counts = {bool(again): int(count) for again, count in rows}
    return counts.get(False, 0), counts.get(True, 0)


def tried(operations: Sequence[str], unit: Unit) -> None:
    """Counts a question without a certain answer."""
    unit.execute(update(OPERATIONS).where(OPERATIONS.c.id.in_(operations)).values(tries=OPERATIONS.c.tries + 1))


def moved_between(connection: Connection, from_time: int, to_time: int, kinds: Sequence[str]) -> list[Item]:
    """Money that the operations of a time moved, for certain."""
    c = OPERATIONS.c
    query = select(c.payment, c.kind, c.amount_minor).where(
        c.created_at >= from_time, c.created_at < to_time, c.kind.in_(kinds), c.state == DONE
    )
    return [Item(*row) for row in connection.execute(query)]


def waiting_between(connection: Connection, from_time: int, to_time: int) -> list[str]:
    """Payments with an operation of a time that has no certain outcome."""
    c = OPERATIONS.c
    query = select(c.payment).where(c.created_at >= from_time, c.created_at < to_time, c.state == WAITING)
    return list(connection.execute(query).scalars())


def first_operation(connection: Connection) -> int | None:
    """When the provider was first asked for anything."""
    found: int | None = connection.execute(select(func.min(OPERATIONS.c.created_at))).scalar_one()
    return found


def add_receipt(unit: Unit, row: ReceiptRow) -> None:
    unit.insert_many(RECEIPTS, ReceiptRow._fields, [row])


def newest_receipt(connection: Connection, payment_id: str) -> ReceiptRow | None:
    query = select(RECEIPTS).where(RECEIPTS.c.payment == payment_id).order_by(RECEIPTS.c.version.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return ReceiptRow(row.payment, row.version, bytes(row.document), bytes(row.salt)) if row is not None else None


class Sums(NamedTuple):
    """Payments by state, and what was taken and given back."""

    authorised: int
    captured: int
    unknown: int
    declined: int
    captured_minor: int
    refunded_minor: int


def sums(connection: Connection) -> Sums:
    rows = connection.execute(
        select(
            PAYMENTS.c.state, func.count(), func.sum(PAYMENTS.c.captured_minor), func.sum(PAYMENTS.c.refunded_minor)
        ).group_by(PAYMENTS.c.state)
    ).all()
    count = {row[0]: row[1] for row in rows}
    return Sums(
        authorised=count.get(AUTHORISED, 0),
        captured=count.get(CAPTURED, 0),
        unknown=count.get(UNKNOWN, 0),
        declined=count.get(DECLINED, 0),
        captured_minor=sum(int(row[2]) for row in rows),
        refunded_minor=sum(int(row[3]) for row in rows),
    )


def erase(unit: Unit, subject: str) -> None:
    """Cuts every link from a person to accounts, mandates and payments; what is in the books stays."""
    unit.execute(delete(PAYERS).where(PAYERS.c.subject == subject))
    unit.execute(delete(MANDATES).where(MANDATES.c.subject == subject))
    unit.execute(update(PAYMENTS).where(PAYMENTS.c.subject == subject).values(subject="", mandate=""))


def _payment(row: Row[Any]) -> Payment:
    values = {name: row._mapping[name] for name in _PAYMENT}
    return Payment(**{**values, "captures": bool(values["captures"])})


def _operation(row: Row[Any]) -> Operation:
    return Operation(*(row._mapping[name] for name in _OPERATION))
