"""What a resident does with a hold: confirm, extend, cancel; and what the billing desk gives back. Called by `api`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.parking import events
from services.parking.app.board import Board
from services.parking.app.changes import Changes
from services.parking.app.holds import Holds
from services.parking.app.money import Money
from services.parking.app.tariffs import Tariffs
from services.parking.app.views import Views
from services.parking.app.words import own
from services.parking.domain import reservation as life
from services.parking.domain.price import cancel_lines, quote_lines, refund_line, total
from services.parking.domain.reservation import HELD, Reservation, slots_of
from services.parking.store import documents, payments, reservations
from services.parking.store.payments import ASKING, UNKNOWN
from services.parking.store.reservations import Promise, Promised

MANDATE_MAX = 100
REASON_MAX = 100
R = TypeVar("R", bound=Message)
_Act = Callable[[Unit, Reservation], Reservation]


@dataclass(frozen=True)
class Reservations:
    """Use cases. Each answers with the reservation as it is once payments was asked; a retry is told how it stands then."""

    store: Store
    board: Board
    changes: Changes
    money: Money
    tariffs: Tariffs
    holds: Holds
    views: Views
    clock: Clock

    async def confirm(self, once: Once[pb.ConfirmResponse], subject: str, id_: str, mandate: str) -> pb.Reservation:
        """Makes a hold binding: what it can come to is authorised on the mandate; nothing, where that is nothing.

        Raises:
            NotFound, InvalidArgument (no mandate), FailedPrecondition (not held, or the hold has ended).
        """
        if len(mandate) > MANDATE_MAX:
            raise InvalidArgument(f"mandate has at most {MANDATE_MAX} characters", field="mandate")
        await self._act(once, subject, id_, partial(self._confirm, mandate))
        await self.money.work(id_)
        return await self.views.get(id_, subject)

    async def extend(self, once: Once[pb.ExtendResponse], subject: str, id_: str, to_time: int) -> pb.Reservation:
        """A later end on the same bay, where nobody has it then.

        Raises:
            NotFound, InvalidArgument, FailedPrecondition (`bay-taken`, `lot-closed`, `extension-waits`, wrong state).
        """
        one = await self.store.read(lambda c: own(reservations.get(c, id_), id_, subject))
        if to_time > one.to_time:
            self.holds.require_open(self.holds.lot(one.lot), one.to_time, to_time)
        try:
            acted = await self._act(once, subject, id_, partial(self._extend, to_time))
        except Promised as taken:
            self.board.learn(taken.promise)
            raise FailedPrecondition(
                "somebody else has this bay then; extend to an earlier end, or reserve another bay",
                reason="bay-taken",
                field="to_time",
            ) from None
        if acted:
            self.board.learn(Promise(one.id, one.lot, one.bay, slots_of(one.from_time, to_time)))
        await self.money.work(id_)
        return await self.views.get(id_, subject)

    async def cancel(self, once: Once[pb.CancelResponse], subject: str, id_: str) -> pb.Reservation:
        """Gives it up: free while it is only held or early enough, else for the tariff's fee.

        Raises:
            NotFound, FailedPrecondition (it waits for payments, is in use or over).
        """
        await self._act(once, subject, id_, self.cancelled)
        await self.money.work(id_)
        return await self.views.get(id_, subject)

    async def refund(
        self, once: Once[pb.RefundSessionResponse], id_: str, amount_minor: int, reason: str
    ) -> pb.RefundSessionResponse:
        """Gives part of a paid price back; what is asked of payments is done in time.

        Raises:
            NotFound, InvalidArgument (the amount, or no reason), FailedPrecondition (nothing was paid).
        """
        if not 0 < len(reason) <= REASON_MAX or not reason.isprintable():
            raise InvalidArgument(
                f"reason must say why in 1 to {REASON_MAX} characters, without personal data", field="reason"
            )
        subject = await self.store.read(lambda c: _subject(c, id_))
        await self._act(once, subject, id_, partial(self._refund, amount_minor, reason))
        await self.money.work(id_)
        return pb.RefundSessionResponse(reservation=await self.views.get(id_, subject))

    async def _act(self, once: Once[R], subject: str, id_: str, act: _Act) -> bool:
        """False where this request was answered before.

        The time of a change is taken in its unit, one after another, so that versions are dated in order.
        """
        changed = await self.store.write(partial(_once, once, subject, id_, act))
        if changed is not None:
            self.board.put(changed)
        return changed is not None

    def _confirm(self, mandate: str, unit: Unit, one: Reservation) -> Reservation:
        now = unix(self.clock)
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        amount = one.quote_minor + tariff.overstay_max_minor
        asked = life.confirming(one, mandate, now)
        if amount and not mandate:
            raise InvalidArgument(
                f"this may come to {amount} {one.currency} minor units; give a mandate of payments for the payee {events.PAYEE}",
                field="mandate",
            )
        lines = quote_lines(tariff, one.from_time, one.to_time, one.permit_basis_points)
        self.changes.keep(unit, asked, "confirming", lines, now)
        if amount:
            self.money.ask(unit, asked, amount, 0, 0)
            return asked
        return self.changes.keep(unit, life.settled(asked, authorised=True), "confirmed", lines, now)

    def _extend(self, to_time: int, unit: Unit, one: Reservation) -> Reservation:
        life.require_extension(one, to_time)
        if any(row.state in (ASKING, UNKNOWN) for row in payments.payments_of(unit.connection, one.id)):
            raise FailedPrecondition(
                "the extension before still waits for payments; try again when it is settled",
                reason="extension-waits",
                retry_after_s=2.0,
            )
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        lines = quote_lines(tariff, one.from_time, to_time, one.permit_basis_points)
        more = total(lines) - one.quote_minor
        if more and not one.mandate:
            raise FailedPrecondition(
                "this was confirmed without a mandate; reserve the time after it anew", field="to_time"
            )
        reservations.promise(unit, one, slots_of(one.to_time, to_time))
        if more:
            self.money.ask(unit, one, more, to_time, total(lines))
            return one
        return self.changes.keep(unit, life.extended(one, to_time, total(lines)), "extended", lines, unix(self.clock))

    def cancelled(self, unit: Unit, one: Reservation) -> Reservation:
        """In a unit: of a resident, or of one whose data are erased."""
        now = unix(self.clock)
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        lines = [] if one.state == HELD else cancel_lines(tariff, one.quote_minor, one.from_time, now)
        over = self.changes.keep(unit, life.cancelled(one, total(lines)), "cancelled", lines, now)
        self.money.close(unit, over)
        return over

    def _refund(self, amount_minor: int, reason: str, unit: Unit, one: Reservation) -> Reservation:
        less = life.refunded(one, amount_minor)
        lines = events.lines_of(documents.newest(unit.connection, one.id) or b"")
        self.money.give_back(unit, one, amount_minor, reason)
        reservations.set_provable(unit, one.id, provable=False)
        return self.changes.keep(unit, less, "refunded", [*lines, refund_line(amount_minor)], unix(self.clock))


def _once(once: Once[R], subject: str, id_: str, act: _Act, unit: Unit) -> Reservation | None:
    """The change, or None where this request has made it before."""
    one = own(reservations.get(unit.connection, id_), id_, subject)
    if once.before(unit) is not None:
        return None
    changed = act(unit, one)
    once.keep(unit, once.kind())
    return changed


def _subject(connection: Connection, id_: str) -> str:
    one = reservations.get(connection, id_)
    if one is None or not one.subject:
        raise NotFound(f"no reservation {id_!r} (those of erased people cannot be refunded)", field="reservation")
    return one.subject
