"""How full the lots are, in memory: newest words and half hours of counts. Loaded at the start, kept up by the on-ramp. Called by `api`,
advice and publications."""

from __future__ import annotations

from collections.abc import Iterable

from citykit.clock import Clock, unix
from citykit.store.port import Store
from services.parking.domain.lots import Lot
from services.parking.domain.states import DAY_S, HALF_HOUR_S, Count, LotState, fused
from services.parking.store import counts
from services.parking.store.counts import HalfHour
from services.parking.store.packages import Kept, split

MEMORY_S = DAY_S
KEPT_S = 15 * DAY_S
"""Half hours in the database: sensors are compared with seven days."""


class States:
    """All lots. `silence_s`: age after which a sensor's word is no longer trusted."""

    def __init__(self, store: Store, clock: Clock, silence_s: int) -> None:
        self._store = store
        self._clock = clock
        self._silence_s = silence_s
        self._words: dict[str, dict[str, Count]] = {}
        self._half_hours: dict[str, dict[int, HalfHour]] = {}
        self._now: dict[str, tuple[int, Lot, LotState]] = {}

    async def load(self) -> None:
        """Reads the newest words and the last day; once, at start."""
        self._words = await self._store.read(counts.newest)
        self._remember(await self._store.read(lambda c: counts.half_hours(c, unix(self._clock) - MEMORY_S)))

    def state(self, lot: Lot, now: int) -> LotState:
        """The lot's state at city time `now`."""
        known = self._now.get(lot.id)
        if known is not None and known[0] == now and known[1] is lot:
            return known[2]
        heard, watched = split(lot, self._words.get(lot.id, {}))
        state = fused(lot, heard, watched, now, self._silence_s)
        self._now[lot.id] = (now, lot, state)
        return state

    def counted(self, lot: str, slot: int) -> int | None:
        """Cars at the end of a half hour that began at `slot` at most a day ago; None where nothing was counted."""
        found = self._half_hours.get(lot, {}).get(slot)
        return None if found is None else found.occupied

    def keep(self, kept: Kept) -> None:
        """Takes over what is durable; an older word than the known one changes nothing."""
        for lot, words in kept.counts.items():
            here = self._words.setdefault(lot, {})
            here.update({d: one for d, one in words.items() if d not in here or here[d].time <= one.time})
            self._now.pop(lot, None)
        self._remember(kept.half_hours.values())

    async def prune(self) -> None:
        """Job: forgets half hours that nothing is compared with any more."""
        oldest = unix(self._clock) - KEPT_S
        await self._store.write(lambda unit: counts.forget_before(unit, oldest))

    def _remember(self, found: Iterable[HalfHour]) -> None:
        oldest = unix(self._clock) - MEMORY_S
        for one in found:
            here = self._half_hours.setdefault(one.lot, {})
            before = here.get(one.slot)
            if one.slot >= oldest and (before is None or before.time <= one.time):
                here[one.slot] = one
            if len(here) > 2 * MEMORY_S // HALF_HOUR_S:
                self._half_hours[one.lot] = {slot: item for slot, item in here.items() if slot >= oldest}
