"""A metering on-ramp on a temporary store, without gRPC, and devices that sign; for the tests of this folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc.aio

from citykit.clock import ReplayClock
from citykit.errors import NotFound, Unavailable
from citykit.ids import seeded_randomness
from citykit.onramp.devices import DeviceRow, DeviceTables, Key, put_device
from citykit.onramp.registry import Registry
from citykit.package import NO_PREVIOUS, Ed25519Signer, Reading, package_hash, sign_package
from citykit.settings import MeteringSettings, StoreSettings
from citykit.store.port import Unit
from citykit.store.sqlite import SqliteStore, open_sqlite
from services.metering.app.facts import Facts
from services.metering.app.fleet import GROUP, Fleet
from services.metering.app.ingest import Ingest
from services.metering.app.meters import Meters
from services.metering.app.refusals import Refusals
from services.metering.store.devices import MeterPointRow, put_meter_points
from services.metering.store.tables import DEVICES, METADATA

START = 1_475_535_600
SLOT_S = 1_800
MIGRATIONS = Path(__file__).parents[3] / "services" / "metering" / "migrations"


@dataclass
class Device:
    """A simulated device that chains its packages."""

    name: str
    signer: Ed25519Signer
    sequence: int = 0
    previous: bytes = NO_PREVIOUS

    def package(self, slots: Sequence[int], wh: Sequence[int] | int = 300) -> bytes:
        """The next package: readings of slot numbers after START."""
        values = [wh] * len(slots) if isinstance(wh, int) else wh
        self.sequence += 1
        readings = [Reading(START + slot * SLOT_S, value) for slot, value in zip(slots, values, strict=True)]
        raw = sign_package(self.signer, self.name, self.sequence, self.previous, readings)
        self.previous = package_hash(raw)
        return raw

    def key(self) -> Key:
        return Key(1, self.signer.public_key, "EdDSA", "00" * 32)


def device(number: int = 1) -> Device:
    return Device(f"meter-{number:04d}", Ed25519Signer.from_seed(number.to_bytes(32, "big")))


class FakeRegistry(Registry):
    """Knows what tests put into it; identity answers from `elsewhere` or is away."""

    def __init__(self, store: SqliteStore, tables: DeviceTables = DEVICES) -> None:
        super().__init__(store, tables, _no_dial, GROUP, monotonic=lambda: 0.0)
        self.elsewhere: dict[str, DeviceRow] = {}
        self.away = False
        self.asked: list[str] = []

    async def _ask(self, device: str) -> DeviceRow:
        self.asked.append(device)
        if self.away:
            raise Unavailable("identity is away", retry_after_s=2.0)
        if device not in self.elsewhere:
            raise NotFound("no such device")
        return self.elsewhere[device]


def _no_dial(service: str) -> grpc.aio.Channel:
    raise AssertionError(f"nobody dials {service} here")


@dataclass
class OnRamp:
    store: SqliteStore
    registry: FakeRegistry
    fleet: Fleet
    meters: Meters
    refusals: Refusals
    ingest: Ingest
    clock: ReplayClock
    registered: list[Device] = field(default_factory=list)

    async def register(self, *devices: Device, from_time: int = START, last_sequence: int | None = None) -> None:
        rows = [DeviceRow(item.name, from_time, last_sequence, (item.key(),)) for item in devices]
        points = [MeterPointRow(point(item.name), item.name, 11_500, "Europe/London") for item in devices]
        for row in rows:
            await self.store.write(partial(_put, row))
            self.registry.put(row)
        await self.store.write(lambda unit: put_meter_points(unit, points))
        self.fleet.put_points(points)


def _put(row: DeviceRow, unit: Unit) -> None:
    put_device(unit, DEVICES, row)


def point(device_name: str) -> str:
    return device_name.replace("meter", "mp")


@contextlib.asynccontextmanager
async def on_ramp(path: Path, settings: MeteringSettings | None = None, *, days: int = 60) -> AsyncIterator[OnRamp]:
    """City time stands `days` after START."""
    clock = ReplayClock(START + days * 86_400)
    store = open_sqlite(path / "metering.db", METADATA, MIGRATIONS, StoreSettings())
    randomness = seeded_randomness(3)
    registry, fleet, meters, refusals = FakeRegistry(store), Fleet(store), Meters(store), Refusals(store)
    await registry.load()
    await fleet.load()
    chosen = settings or MeteringSettings()
    ingest = Ingest(store, registry, fleet, meters, refusals, Facts(randomness), clock, randomness, chosen)
    try:
        yield OnRamp(store, registry, fleet, meters, refusals, ingest, clock)
    finally:
        ingest.close()
        await store.close()
