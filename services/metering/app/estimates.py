"""Marks slots missing for long as estimated, so that usage and load are whole before the bill. A job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete

from citykit.clock import Clock, unix
from citykit.store.port import Store, Unit
from services.metering.app.facts import Facts
from services.metering.app.people import People
from services.metering.app.zones import zone_offsets
from services.metering.domain.billing import MISSING
from services.metering.domain.estimation import WEEKS, Estimator
from services.metering.domain.slots import DAY_S, SLOT_S, WEEK_S
from services.metering.store import usage
from services.metering.store.contracts import ContractRow, contracts_between
from services.metering.store.devices import meter_point
from services.metering.store.packages import add_facts
from services.metering.store.tables import ESTIMATES

STEP_S = 6 * 3_600
BACK_S = 62 * DAY_S
_HISTORY_S = (WEEKS + 1) * WEEK_S
_FOREVER = "9999-12-31"


@dataclass(frozen=True)
class Found:
    """Estimates of one meter point: (slot, Wh, reason)."""

    meter_point: str
    estimates: Sequence[tuple[int, int, str]]


class Estimates:
    """Works on from where it stood; a slot is estimated when two runs of the job found it missing."""

    def __init__(self, store: Store, people: People, facts: Facts, clock: Clock, after_h: int) -> None:
        self._store = store
        self._people = people
        self._facts = facts
        self._clock = clock
        self._after_s = after_h * 3_600
        self._done: dict[str, int] = {}
        self._seen_due = 0
        self._worked_to = 0

    async def run(self) -> int:
        """Estimates what is due; returns how many slots."""
        due = (unix(self._clock) - self._after_s) // STEP_S * STEP_S
        bound, self._seen_due = self._seen_due, due
        if bound <= self._worked_to:
            return 0
        contracts = await self._store.read(lambda c: contracts_between(c, "0000-01-01", _FOREVER))
        count = sum([await self._estimate(row, bound) for row in contracts])
        self._worked_to = bound
        return count

    async def _estimate(self, row: ContractRow, bound: int) -> int:
        span = self._people.span_of(row)
        start = max(span.from_time, self._done.get(row.id, 0), bound - BACK_S)
        end = min(span.to_time, bound)
        if start >= end:
            return 0
        found = await self._store.read(lambda c: _missing(c, row.meter_point, start, end))
        if found.estimates:
            now = unix(self._clock)
            await self._store.write(lambda unit: self._keep(unit, found, now))
        self._done[row.id] = end
        return len(found.estimates)

    def _keep(self, unit: Unit, found: Found, now: int) -> None:
        slots = [slot for slot, _, _ in found.estimates]
        same = (ESTIMATES.c.meter_point == found.meter_point, ESTIMATES.c.slot.between(slots[0], slots[-1]))
        unit.execute(delete(ESTIMATES).where(*same))
        rows = [(found.meter_point, *estimate) for estimate in found.estimates]
        unit.insert_many(ESTIMATES, ("meter_point", "slot", "energy_wh", "reason"), rows)
        add_facts(unit, [self._facts.slots_estimated(found.meter_point, slots, now)])


def _missing(connection: Connection, point_id: str, start: int, end: int) -> Found:
    point = meter_point(connection, point_id)
    missing = usage.missing_slots(connection, point_id, start, end) if point else []
    if point is None or not missing:
        return Found(point_id, ())
    measured = usage.measured(connection, point_id, start - _HISTORY_S, end + SLOT_S)
    estimator = Estimator(measured, zone_offsets(point.zone))
    guesses = [(slot, estimator.estimate(slot), reason) for slot, reason in missing]
    return Found(
        point_id,
        [(slot, wh, f"quarantined:{reason}" if reason else MISSING) for slot, wh, reason in guesses if wh is not None],
    )
