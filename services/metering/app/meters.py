"""What plausibility remembers of each meter, in memory; rebuilt from stored readings when a device is first heard. Called by ingest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from sqlalchemy import Connection

from citykit.store.port import Store
from services.metering.app.fleet import Place
from services.metering.domain import plausibility
from services.metering.domain.plausibility import Meter
from services.metering.domain.slots import DAY_S, SLOT_S
from services.metering.store import packages as stored

METERS_MAX = 20_000
_NOWHERE = (-(10**9), -(10**9))
"""A band no reading is near: what was found unexpected when it came stays so, whatever is forecast now."""
REBUILD_SLOTS = 35 * DAY_S // SLOT_S


class Meters:
    """Bounded to 20,000 meters; the one not heard for longest is forgotten (and rebuilt when heard again)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._meters: OrderedDict[str, Meter] = OrderedDict()

    async def load(self, places: Iterable[Place]) -> None:
        """Makes sure that the states of the devices there are in memory."""
        missing = [place for place in places if place.device not in self._meters]
        if missing:
            self._meters.update(await self._store.read(lambda c: {p.device: _rebuilt(c, p) for p in missing}))
            while len(self._meters) > METERS_MAX:
                self._meters.popitem(last=False)

    def draft(self, device: str) -> Meter:
        """A copy to judge with."""
        return plausibility.copied(self._meters[device])

    def keep(self, device: str, meter: Meter) -> None:
        """Takes over a copy whose readings are durable."""
        self._meters[device] = meter
        self._meters.move_to_end(device)

    def release(self, device: str) -> None:
        """Starts a device's history anew: its readings were found right."""
        meter = self._meters.get(device)
        if meter is not None:
            plausibility.released(meter)

    def forget(self, device: str) -> None:
        """Drops a state; it is rebuilt from what the store says now."""
        self._meters.pop(device, None)


def _rebuilt(connection: Connection, place: Place) -> Meter:
    meter = Meter(place.point.max_slot_wh)
    readings = stored.recent_readings(connection, place.device, place.point.id, REBUILD_SLOTS)
    unexpected = {slot for slot, _, held in readings if held == plausibility.UNEXPECTED}
    plausibility.judge(
        meter,
        [(slot, wh) for slot, wh, _ in readings],
        place.offsets,
        lambda slot: _NOWHERE if slot in unexpected else None,
    )
    meter.open = stored.open_reason(connection, place.device)
    return meter
