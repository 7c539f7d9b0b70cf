"""The lots in memory: which there are, which device is for what. Called by `api`, the on-ramp and the other use cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import InvalidArgument
from citykit.once import Once
from citykit.onramp.chain import Refusal
from citykit.onramp.registry import Device
from citykit.package import ENTRY, EXIT, OCCUPIED, Package
from citykit.store.port import Store, Unit
from services.parking.app.words import in_city_words
from services.parking.domain.lots import ALWAYS, Lot, require_lot
from services.parking.store import lots as stored

LOTS_MAX = 500
SENSOR, BAY_SENSOR, LOCK = "sensor", "bay-sensor", "lock"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is: it counts the lot, watches its bay, or opens it."""

    lot: Lot
    role: str
    bay: str = ""

    @property
    def most(self) -> int:
        """The highest value the device can say."""
        return 1 if self.role == BAY_SENSOR else self.lot.capacity


class Lots:
    """All lots by id. `load` once at the start."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lots: dict[str, Lot] = {}
        self._places: dict[str, Place] = {}
        self.version = 0
        """Counts the changes, for what is computed from all lots."""

    async def load(self) -> None:
        self._take(await self._store.read(stored.lots))

    def find(self, id_: str) -> Lot | None:
        return self._lots.get(id_)

    def every(self) -> list[Lot]:
        """All, by id."""
        return list(self._lots.values())

    def place(self, device: Device, package: Package) -> Place | Refusal:
        """Where the device is, or why its package is not taken."""
        found = self._places.get(device.id)
        if found is None:
            return Refusal("no-lot", "the device is registered but at no lot; RegisterLots names a lot's devices")
        allowed = (ENTRY, EXIT) if found.role == LOCK else (OCCUPIED,)
        if package.measure not in allowed:
            words = " or ".join(measure.name for measure in allowed)
            return Refusal("wrong-measure", f"a {found.role} sends {words}, not {package.measure.name}")
        return found

    async def register(self, once: Once[pb.RegisterLotsResponse], wanted: Sequence[Lot]) -> pb.RegisterLotsResponse:
        """Registers lots, or replaces what was said of them; promises of bays stay.

        Raises:
            InvalidArgument: naming the lot and the field.
        """
        lots = self._checked(wanted)

        def unit(work: Unit) -> pb.RegisterLotsResponse:
            if (before := once.before(work)) is not None:
                return before
            stored.put_lots(work, lots)
            return once.keep(work, pb.RegisterLotsResponse(registered=len(lots)))

        answer = await self._store.write(unit)
        self._take(await self._store.read(stored.lots))
        return answer

    def _checked(self, wanted: Sequence[Lot]) -> list[Lot]:
        if not 0 < len(wanted) <= LOTS_MAX:
            raise InvalidArgument(f"name 1 to {LOTS_MAX} lots", field="lots")
        with in_city_words():
            lots = [replace(require_lot(lot), open_minutes=lot.open_minutes or ALWAYS) for lot in wanted]
        named = {lot.id for lot in lots}
        if len(named) != len(lots):
            raise InvalidArgument("each lot once", field="lots")
        self._require_own_devices([*lots, *(lot for lot in self._lots.values() if lot.id not in named)])
        return lots

    def _require_own_devices(self, lots: Sequence[Lot]) -> None:
        homes: dict[str, str] = {}
        for lot in lots:
            for device in lot.devices:
                if homes.setdefault(device, lot.id) != lot.id:
                    raise InvalidArgument(
                        f"the device {device} is at {homes[device]} and at {lot.id}; a device is at one lot",
                        field="lots.sensors",
                    )

    def _take(self, lots: Sequence[Lot]) -> None:
        self._lots = {lot.id: lot for lot in lots}
        self._places = {device: place for lot in lots for device, place in _places(lot)}
        self.version += 1


def _places(lot: Lot) -> list[tuple[str, Place]]:
    counters = [(device, Place(lot, SENSOR)) for device in lot.sensors]
    watchers = [(device, Place(lot, BAY_SENSOR, bay)) for device, bay in lot.bay_sensors]
    return [*counters, *watchers, *([(lot.lock, Place(lot, LOCK))] if lot.lock else [])]
