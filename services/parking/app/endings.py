"""Reservations whose time is up: holds, unanswered confirmations, nobody came. Called by `app.holds` and jobs; each by city time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from citykit.clock import Clock, unix
from citykit.store.port import Store, Unit
from services.parking.app.board import Board
from services.parking.app.changes import Changes
from services.parking.app.money import Money
from services.parking.app.tariffs import Tariffs
from services.parking.domain import reservation as life
from services.parking.domain.price import no_show_lines, total
from services.parking.domain.reservation import CONFIRMED, CONFIRMING, ENTRY, HELD, Reservation
from services.parking.store import access, reservations

ROUND_MAX = 200
"""Reservations in one unit of a job."""
LATE_S = 86_400
"""How long the word of a lock that was offline is waited for, where somebody had a document to enter with."""


@dataclass(frozen=True)
class Endings:
    """What ends by itself."""

    store: Store
    board: Board
    changes: Changes
    money: Money
    tariffs: Tariffs
    clock: Clock

    def let_go(self, unit: Unit, id_: str) -> Reservation | None:
        """Ends a hold or a confirmation whose time is up; None where it is not one any more."""
        now = unix(self.clock)
        one = reservations.get(unit.connection, id_)
        if one is None or one.state not in (HELD, CONFIRMING) or one.hold_until >= now:
            return None
        ended = self.changes.keep(unit, life.expired(one), "expired", [], now)
        self.money.close(unit, ended)
        return ended

    async def expire(self) -> None:
        """A job: holds and confirmations whose time is up."""
        now = unix(self.clock)
        due = await self.store.read(lambda c: reservations.holds_past(c, now, ROUND_MAX))
        await self._all([one.id for one in due], self.let_go)

    async def miss(self) -> None:
        """A job: nobody came. Where a document to enter with was given out, a lock that was offline has a day to say otherwise."""
        now = unix(self.clock)
        due = await self.store.read(lambda c: reservations.confirmed_past(c, now, now - LATE_S, ROUND_MAX))
        await self._all([one.id for one in due], self._missed)

    def _missed(self, unit: Unit, id_: str) -> Reservation | None:
        now = unix(self.clock)
        one = reservations.get(unit.connection, id_)
        if one is None or one.state != CONFIRMED:
            return None
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        given = any(row.act == ENTRY for row in access.access_of(unit.connection, id_))
        if now <= one.to_time + tariff.grace_minutes * 60 + (LATE_S if given else 0):
            return None
        lines = no_show_lines(tariff, one.quote_minor)
        ended = self.changes.keep(unit, life.not_come(one, total(lines)), "no-show", lines, now)
        self.money.close(unit, ended)
        return ended

    async def _all(self, ids: list[str], end: Callable[[Unit, str], Reservation | None]) -> None:
        for id_ in ids:
            ended = await self.store.write(partial(_one, end, id_))
            if ended is not None:
                self.board.put(ended)


def _one(end: Callable[[Unit, str], Reservation | None], id_: str, unit: Unit) -> Reservation | None:
    return end(unit, id_)
