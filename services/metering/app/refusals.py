"""Counts refused packages by reason and device for the dashboard: gathered in memory, written by a job. Called by ingest and api."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from citykit.onramp.chain import Refusal
from citykit.store.port import Store, Unit
from services.metering.store.tables import REFUSALS

ROWS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class RefusalCount:
    reason: str
    device: str
    count: int
    last_at: int
    message: str


class Refusals:
    """At most 1,000 (reason, device) pairs in memory and in the table; beyond that the device is left out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[tuple[str, str], RefusalCount] = {}

    def add(self, refusal: Refusal, device: str, now: int) -> None:
        key = (refusal.reason, device if len(self._waiting) < ROWS_MAX else "")
        before = self._waiting.get(key)
        count = before.count + 1 if before else 1
        self._waiting[key] = RefusalCount(*key, count, now, refusal.message)

    async def flush(self) -> None:
        """Writes what has gathered; a failed write keeps it for the next time."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            await self._store.write(lambda unit: _add_all(unit, list(waiting.values())))
        except Exception:
            for key, item in waiting.items():
                self._waiting.setdefault(key, item)
            raise

    async def newest(self, limit: int) -> list[RefusalCount]:
        return await self._store.read(lambda c: _newest(c, limit))


def _add_all(unit: Unit, items: list[RefusalCount]) -> None:
    for item in items:
        of = (REFUSALS.c.reason == item.reason, REFUSALS.c.device == item.device)
        change = {"count": REFUSALS.c.count + item.count, "last_at": item.last_at, "message": item.message}
        if unit.connection.execute(update(REFUSALS).where(*of).values(**change)).rowcount == 0:
            row = {"reason": item.reason, "device": item.device, "count": item.count, "last_at": item.last_at}
            unit.execute(insert(REFUSALS).values(**row, message=item.message))
    over = unit.execute(select(func.count()).select_from(REFUSALS))[0][0] - ROWS_MAX
    if over > 0:
        oldest = select(REFUSALS.c.last_at).order_by(REFUSALS.c.last_at).offset(over - 1).limit(1).scalar_subquery()
        unit.execute(delete(REFUSALS).where(REFUSALS.c.last_at <= oldest))


def _newest(connection: Connection, limit: int) -> list[RefusalCount]:
    query = select(REFUSALS).order_by(REFUSALS.c.last_at.desc(), REFUSALS.c.count.desc()).limit(limit)
    return [RefusalCount(*row) for row in connection.execute(query)]
