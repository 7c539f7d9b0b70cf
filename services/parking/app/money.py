"""What reservations owe: payments asked for, duties at payments, what its answers mean. Called by the other use cases, a job and the bus.

A duty is written in the unit that makes it due and done afterwards, again and again under one name until its outcome is certain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from city.payments.v1 import events_pb2 as payments_events
from citykit.bus.events import event_type
from citykit.bus.port import Record
from citykit.clock import Clock, unix
from citykit.errors import (
    AlreadyExists,
    CityError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from citykit.store.port import Store, Unit
from services.parking import events
from services.parking.app.board import Board
from services.parking.app.changes import Changes
from services.parking.app.payee import Payee, Said
from services.parking.app.tariffs import Tariffs
from services.parking.domain import reservation as life
from services.parking.domain.price import Line, quote_lines, shares
from services.parking.domain.reservation import ACTIVE, CONFIRMED, CONFIRMING, Reservation
from services.parking.store import payments as stored
from services.parking.store import reservations
from services.parking.store.payments import (
    ASKING,
    AUTHORISE,
    AUTHORISED,
    CAPTURE,
    CAPTURED,
    DECLINED,
    DONE,
    DROPPED,
    FAILED,
    OPEN,
    REFUND,
    UNKNOWN,
    VOID,
    VOIDED,
    DutyRow,
    PaymentRow,
)

DUTIES_MAX = 500
"""Looked at in one round."""
AT_ONCE = 16
_REFUSED = (InvalidArgument, NotFound, FailedPrecondition, PermissionDenied, AlreadyExists)
"""Payments has decided; anything else may still have acted or is away, so it is asked again."""
_CHANGED = payments_events.PaymentChanged.DESCRIPTOR.full_name
_CHANGES = {AUTHORISED, DECLINED, CAPTURED, VOIDED}


def reference_of(reservation: str, number: int) -> str:
    """What payments knows a payment by: `reservation/<id>`, of extension n `reservation/<id>/<n>`."""
    return f"reservation/{reservation}/{number}" if number else f"reservation/{reservation}"


@dataclass(frozen=True)
class Money:
    """Use cases around payments. Methods that take a unit write; `work` does what they made due."""

    store: Store
    payee: Payee
    changes: Changes
    tariffs: Tariffs
    board: Board
    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]
    busy: set[int] = field(default_factory=set)

    def ask(self, unit: Unit, one: Reservation, amount_minor: int, to_time: int, quote_minor: int) -> None:
        """Makes it due to authorise an amount: for the confirmation, or for an extension to `to_time` at `quote_minor`."""
        number = len(stored.payments_of(unit.connection, one.id))
        reference = reference_of(one.id, number)
        row = PaymentRow(reference, one.id, number, "", amount_minor, to_time, quote_minor, ASKING)
        stored.add_payment(unit, row)
        self._owe(unit, row, AUTHORISE, amount_minor)

    def close(self, unit: Unit, one: Reservation) -> None:
        """A reservation is over: its price is taken over what was authorised, in order; the rest is let go."""
        rows = stored.payments_of(unit.connection, one.id)
        for row in rows:
            if row.state in (ASKING, UNKNOWN):
                stored.drop_payment(unit, row.reference)
        held = [row for row in rows if row.state == AUTHORISED]
        for row, part in zip(held, shares(one.price_minor or 0, [row.wanted_minor for row in held]), strict=True):
            self._owe(unit, row, CAPTURE if part else VOID, part)

    def give_back(self, unit: Unit, one: Reservation, amount_minor: int, reason: str) -> None:
        """Makes refunds due, from the newest payment back."""
        duties = stored.duties_of(unit.connection, one.id)
        rows = {row.reference: row for row in stored.payments_of(unit.connection, one.id)}
        taken: dict[str, int] = {}
        for duty in duties:
            sign = {CAPTURE: 1, REFUND: -1}.get(duty.kind, 0)
            taken[duty.reference] = taken.get(duty.reference, 0) + sign * duty.amount_minor
        order = [name for name in reversed(rows) if taken.get(name)]
        for name, part in zip(order, shares(amount_minor, [taken[name] for name in order]), strict=True):
            if part:
                self._owe(unit, rows[name], REFUND, part, reason)

    async def work(self, reservation: str = "") -> None:
        """Does what is due: of one reservation (the call waits for it), or of all (a job)."""
        duties = await self.store.read(lambda c: stored.open_duties(c, DUTIES_MAX, reservation))
        chains: dict[str, list[DutyRow]] = {}
        for duty in duties:
            chains.setdefault(duty.reference, []).append(duty)
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._chain(chain, gate) for chain in chains.values()))

    async def handle(self, records: Sequence[Record]) -> None:
        """Consumer of payments' events; what a change says is taken over once, however often it is told."""
        for record in records:
            if event_type(record) == _CHANGED:
                event = payments_events.PaymentChanged()
                event.ParseFromString(record.value)
                if event.payee == events.PAYEE and event.change in _CHANGES:
                    await self._take(event.reference, Said(event.payment, event.change, waiting=False), None)

    def _owe(self, unit: Unit, row: PaymentRow, kind: str, amount_minor: int, reason: str = "") -> None:
        stored.add_duty(unit, DutyRow(0, row.reservation, row.reference, kind, amount_minor, reason, OPEN))

    async def _chain(self, duties: Sequence[DutyRow], gate: asyncio.Semaphore) -> None:
        """The duties of one payment, in order; one that cannot be done now keeps the later ones waiting."""
        for duty in duties:
            if duty.number in self.busy:
                return
            self.busy.add(duty.number)
            try:
                async with gate:
                    if not await self._do(duty):
                        return
            except CityError as error:
                fields = {"kind": duty.kind, "reason": error.reason, "duty": duty.number}
                self.log.info("duty-waits", extra={"fields": fields})
                return
            finally:
                self.busy.discard(duty.number)

    async def _do(self, duty: DutyRow) -> bool:
        """True once the duty is done with.

        Raises:
            CityError: payments is away, or its answer is not certain.
        """
        row = await self.store.read(lambda c: stored.payment(c, duty.reference))
        assert row is not None  # noqa: S101 - a duty is written with its payment
        if duty.kind == AUTHORISE:
            return await self._authorise(duty, row)
        said = await self._known(row, CAPTURED if duty.kind == REFUND else AUTHORISED)
        if said is None:
            return False
        try:
            said = await self._ask_for(duty, said.payment)
        except _REFUSED as error:
            return await self._refused(duty, said.payment, error)
        await self._take(duty.reference, said, duty)
        return True

    async def _authorise(self, duty: DutyRow, row: PaymentRow) -> bool:
        one = await self.store.read(lambda c: reservations.get(c, duty.reservation))
        assert one is not None  # noqa: S101 - a duty is written with its reservation
        try:
            if row.payment:
                said = await self.payee.look(row.payment)
            else:
                said = await self.payee.authorise(
                    _name(duty), one.mandate, duty.amount_minor, one.currency, duty.reference
                )
        except _REFUSED as error:
            self.log.info("authorisation-refused", extra={"fields": {"reason": error.reason}})
            said = Said("", DECLINED, waiting=False)
        certain = said.state != UNKNOWN
        await self._take(duty.reference, said, duty if certain else None)
        return certain

    async def _known(self, row: PaymentRow, state: str) -> Said | None:
        """The payment in the state a duty needs, or None as long as it is not."""
        if row.state == state:
            return Said(row.payment, row.state, waiting=False)
        said = await self.payee.look(row.payment)
        await self._take(row.reference, said, None)
        return said if said.state == state or said.state in (CAPTURED, VOIDED) else None

    async def _ask_for(self, duty: DutyRow, payment: str) -> Said:
        if duty.kind == CAPTURE:
            return await self.payee.capture(_name(duty), payment, duty.amount_minor)
        if duty.kind == VOID:
            return await self.payee.void(_name(duty), payment)
        return await self.payee.refund(_name(duty), payment, duty.amount_minor, duty.reason)

    async def _refused(self, duty: DutyRow, payment: str, error: CityError) -> bool:
        """Payments will not: because it is done already, because something else comes first, or for good."""
        said = await self.payee.look(payment)
        done = said.state == {CAPTURE: CAPTURED, VOID: VOIDED}.get(duty.kind)
        if not done and said.waiting:
            return False
        if not done:
            fields = {"kind": duty.kind, "reason": error.reason, "duty": duty.number}
            self.log.error("duty-failed", extra={"fields": fields})
        await self.store.write(lambda unit: stored.end_duty(unit, duty.number, DONE if done else FAILED))
        return True

    async def _take(self, reference: str, said: Said, duty: DutyRow | None) -> None:
        """Takes over what payments says of a payment, ends the duty that asked for it, and does what follows."""
        changed = await self.store.write(partial(self._taken, reference, said, duty))
        if changed is not None:
            self.board.put(changed)

    def _taken(self, reference: str, said: Said, duty: DutyRow | None, unit: Unit) -> Reservation | None:
        row = stored.payment(unit.connection, reference)
        if duty is not None:
            stored.end_duty(unit, duty.number, DONE)
        if row is None or not stored.note_payment(unit, reference, said.payment, said.state):
            return None
        if said.state not in (AUTHORISED, DECLINED) or row.state not in (ASKING, UNKNOWN, DROPPED):
            return None
        one = reservations.get(unit.connection, row.reservation)
        assert one is not None  # noqa: S101 - a payment is written with its reservation
        return self._answered(unit, one, row, said.state == AUTHORISED)

    def _answered(self, unit: Unit, one: Reservation, row: PaymentRow, authorised: bool) -> Reservation | None:
        """The provider's answer is certain."""
        now = unix(self.clock)
        wanted = row.state != DROPPED and one.state in ((ACTIVE, CONFIRMED) if row.number else (CONFIRMING,))
        if not wanted:
            if authorised:
                self._owe(unit, row, VOID, 0)
            return None
        if row.number:
            return self._extension(unit, one, row, authorised, now)
        lines = self._quote(one) if authorised else []
        return self.changes.keep(
            unit, life.settled(one, authorised), "confirmed" if authorised else "declined", lines, now
        )

    def _extension(self, unit: Unit, one: Reservation, row: PaymentRow, authorised: bool, now: int) -> Reservation:
        if not authorised:
            reservations.release(unit, one.id, one.to_time)
            return one
        later = life.extended(one, row.to_time, row.quote_minor)
        return self.changes.keep(unit, later, "extended", self._quote(later), now)

    def _quote(self, one: Reservation) -> list[Line]:
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        return quote_lines(tariff, one.from_time, one.to_time, one.permit_basis_points)


def _name(duty: DutyRow) -> str:
    """The request id of a duty: the same for each try."""
    return f"parking-{duty.kind}-{duty.number}"
