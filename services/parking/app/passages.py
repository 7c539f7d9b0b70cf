"""What locks say: a document opened for an entry or an exit. Called by the on-ramp in the unit that stores the lock's package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citykit.clock import Clock, unix
from citykit.store.port import Unit
from services.parking.app.board import Board
from services.parking.app.changes import Changes
from services.parking.app.money import Money
from services.parking.app.tariffs import Tariffs
from services.parking.domain import reservation as life
from services.parking.domain.price import quote_lines, session_lines, total
from services.parking.domain.reservation import ACTIVE, CONFIRMED, ENTRY, EXIT, Reservation, Use
from services.parking.store import access, reservations
from services.parking.store.access import AccessRow


@dataclass(frozen=True)
class Passages:
    """Use case. Packages may come late and in any order; a session begins and ends by the lock's own clock."""

    changes: Changes
    money: Money
    tariffs: Tariffs
    board: Board
    clock: Clock

    def note(
        self, unit: Unit, device: str, sequence: int, measure: str, readings: Sequence[tuple[int, int]], now: int
    ) -> list[Reservation]:
        """Takes over what an accepted package of the measure `entry` or `exit` says; returns what changed, for `noted`.

        Args:
            readings: (time, number of the access document). A number that is not this lock's, or outside its time, changes nothing.
        """
        changed = []
        now = max(now, unix(self.clock))  # of the unit, so that versions are dated in order
        for time, number in readings:
            row = access.access(unit.connection, number)
            if row is not None and _good(row, device, measure, time):
                access.set_used(unit, number, device, sequence, time)
                changed += self._advance(unit, row.reservation, now)
        return changed

    def noted(self, changed: Sequence[Reservation]) -> None:
        """After the unit is durable, on the event loop."""
        for one in changed:
            self.board.put(one)

    def _advance(self, unit: Unit, id_: str, now: int) -> list[Reservation]:
        one = reservations.get(unit.connection, id_)
        assert one is not None  # noqa: S101 - a document is issued for a reservation
        used = [row for row in access.access_of(unit.connection, id_) if row.used_sequence]
        entry, exit_ = (next((row for row in used if row.act == act), None) for act in (ENTRY, EXIT))
        changed = []
        if one.state == CONFIRMED and entry is not None:
            one = self._start(unit, one, entry, now)
            changed.append(one)
        if one.state == ACTIVE and exit_ is not None:
            changed.append(self._end(unit, one, exit_, now))
        return changed

    def _start(self, unit: Unit, one: Reservation, row: AccessRow, now: int) -> Reservation:
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        lines = quote_lines(tariff, one.from_time, one.to_time, one.permit_basis_points)
        return self.changes.keep(unit, life.entered(one, row.used_time, _use(row)), "started", lines, now)

    def _end(self, unit: Unit, one: Reservation, row: AccessRow, now: int) -> Reservation:
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        at = life.exit_of(one, row.used_time)
        lines = session_lines(tariff, one.from_time, one.to_time, at, one.permit_basis_points)
        over = self.changes.keep(unit, life.left(one, row.used_time, _use(row), total(lines)), "ended", lines, now)
        self.money.close(unit, over)
        return over


def _good(row: AccessRow, device: str, measure: str, time: int) -> bool:
    here = row.lock == device and row.act == measure and not row.used_sequence
    return here and row.not_before <= time <= row.expires


def _use(row: AccessRow) -> Use:
    return Use(row.number, row.used_device, row.used_sequence)
