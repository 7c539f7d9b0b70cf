"""Which meter point each device measures, in memory: what a package is for. Called by ingest and agreements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citykit.onramp.chain import Refusal
from citykit.onramp.opening import Rule
from citykit.onramp.registry import Device
from citykit.package import ENERGY, Package
from citykit.store.port import Store
from services.metering.app.zones import zone_offsets
from services.metering.domain.slots import SLOT_S, Offsets
from services.metering.store.devices import MeterPointRow, meter_points

GROUP = "metering-devices"


@dataclass(frozen=True, slots=True)
class Place:
    """A device at its meter point."""

    device: str
    point: MeterPointRow
    offsets: Offsets


class Fleet:
    """All meter points by device."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[str, Place] = {}
        self.rule = Rule(self.place, SLOT_S)

    async def load(self) -> None:
        """Reads everything from the store; once, at start."""
        self.put_points(await self._store.read(meter_points))

    def put_points(self, points: Sequence[MeterPointRow]) -> None:
        """Takes over meter points that are durable."""
        moved = {point.id for point in points}
        kept = {device: place for device, place in self._places.items() if place.point.id not in moved}
        fresh = {point.device: Place(point.device, point, zone_offsets(point.zone)) for point in points}
        self._places = kept | fresh

    def place(self, device: Device, package: Package) -> Place | Refusal:
        """Where the device measures, or why its package is not taken."""
        if package.measure is not ENERGY:
            return Refusal(
                "wrong-measure", f"a meter sends energy, not {package.measure.name}; send it to the service it is for"
            )
        place = self._places.get(device.id)
        message = "the device is registered but at no meter point; RegisterMeterPoints first"
        return place or Refusal("no-meter-point", message)
