"""Parking's on-ramp on a temporary store, without gRPC, and sensors that sign; for the tests of this folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from citykit.clock import ReplayClock
from citykit.ids import seeded_randomness
from citykit.onramp.devices import DeviceRow, Key
from citykit.package import NO_PREVIOUS, OCCUPIED, Ed25519Signer, Measure, Reading, package_hash, sign_package
from citykit.settings import ParkingSettings, StoreSettings
from citykit.store.port import Unit
from citykit.store.sqlite import SqliteStore, open_sqlite
from services.parking.app.ingest import Ingest
from services.parking.app.lots import Lots
from services.parking.app.states import States
from services.parking.domain.lots import ALWAYS, Lot
from services.parking.domain.reservation import Reservation
from services.parking.store.lots import put_lots
from services.parking.store.tables import DEVICES, METADATA
from tests.unit.metering.onramp import FakeRegistry

NINE = 1_478_595_600
"""2016-11-08T09:00 in London, a Tuesday."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400
MIGRATIONS = Path(__file__).parents[3] / "services" / "parking" / "migrations"


def a_lot(id_: str = "high-street", **changes: Any) -> Lot:
    """A lot of 200 bays, always open, with one sensor."""
    usual: dict[str, Any] = {
        "name": "High Street", "operator": "city", "capacity": 200, "latitude_e7": 524_800_000,
        "longitude_e7": -19_000_000, "open_minutes": ALWAYS, "tariff": "bays", "sensors": ("s-1",),
    }  # fmt: skip
    return Lot(id_, **(usual | changes))


@dataclass
class Sensor:
    """A simulated device that chains its packages."""

    name: str
    sequence: int = 0
    previous: bytes = NO_PREVIOUS

    @property
    def signer(self) -> Ed25519Signer:
        return Ed25519Signer.from_seed(self.name.encode().ljust(32, b"."))

    def package(self, *readings: tuple[int, int], measure: Measure = OCCUPIED) -> bytes:
        """The next package, of (unix seconds, value)."""
        self.sequence += 1
        said = [Reading(time, value) for time, value in readings]
        raw = sign_package(self.signer, self.name, self.sequence, self.previous, said, measure)
        self.previous = package_hash(raw)
        return raw

    def row(self) -> DeviceRow:
        return DeviceRow(self.name, 0, None, (Key(1, self.signer.public_key, "EdDSA", "00" * 32),))


@dataclass
class Noted:
    """Stands in for the use case of locks: keeps what it is told."""

    said: list[tuple[str, int, str, tuple[tuple[int, int], ...]]] = field(default_factory=list)
    after: int = 0

    def note(
        self, unit: Unit, device: str, sequence: int, measure: str, readings: Sequence[tuple[int, int]], now: int
    ) -> list[Reservation]:
        self.said.append((device, sequence, measure, tuple(readings)))
        return []

    def noted(self, changed: Sequence[Reservation]) -> None:
        self.after += 1


@dataclass
class Sensing:
    store: SqliteStore
    registry: FakeRegistry
    lots: Lots
    states: States
    ingest: Ingest
    clock: ReplayClock
    passages: Noted

    async def add(self, *lots: Lot) -> None:
        """Registers lots with their devices."""
        await self.store.write(lambda unit: put_lots(unit, lots))
        await self.lots.load()
        for lot in lots:
            for device in lot.devices:
                self.registry.put(Sensor(device).row())

    async def send(self, *packages: bytes) -> list[Any]:
        return await self.ingest.handle(packages)

    def advance(self, seconds: int) -> int:
        self.clock.advance_to(self.clock.now() + seconds)
        return int(self.clock.now())


@contextlib.asynccontextmanager
async def sensing(path: Path, settings: ParkingSettings | None = None, *, now: int = NINE) -> AsyncIterator[Sensing]:
    """City time stands at `now`."""
    clock, chosen = ReplayClock(now), settings or ParkingSettings()
    store = open_sqlite(path / "parking.db", METADATA, MIGRATIONS, StoreSettings())
    registry, lots, states = (
        FakeRegistry(store, DEVICES),
        Lots(store),
        States(store, clock, chosen.sensor_silence_s),
    )
    passages = Noted()
    ingest = Ingest(store, registry, lots, states, passages, clock, seeded_randomness(3), chosen)
    for part in (registry, lots, states):
        await part.load()
    try:
        yield Sensing(store, registry, lots, states, ingest, clock, passages)
    finally:
        ingest.close()
        await store.close()
