"""The devices a service knows, in memory: keys and limits. Loaded from its store, kept up by identity's events. Called by `gate`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc.aio
from google.protobuf.message import Message as ProtobufMessage

from city.identity.v1 import events_pb2 as identity_events
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from citykit.bus.events import event_type
from citykit.bus.port import Record
from citykit.edge import city_error
from citykit.errors import NotFound
from citykit.onramp.chain import Standing
from citykit.onramp.devices import DeviceRow, DeviceTables, Key, every_device, put_device
from citykit.store.port import Store, Unit

ABSENT_S = 10.0
ABSENT_MAX = 10_000
LOOKUPS_MAX = 64
_LOOKUPS_AT_ONCE = 8
_DEVICE_EVENTS: dict[str, type[ProtobufMessage]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (identity_events.DeviceRegistered, identity_events.DeviceKeyRotated, identity_events.DeviceRevoked)
}


@dataclass(frozen=True, slots=True)
class Device:
    """A registered device."""

    id: str
    standing: Standing
    keys: tuple[Key, ...]

    def key_for(self, sequence: int) -> Key | None:
        """The key that signs this sequence number."""
        return next((key for key in reversed(self.keys) if key.from_sequence <= sequence), None)


class Registry:
    """All devices by id. `group` is the service's consumer of identity's events; `monotonic` is machine time, for the memory of absent ones."""

    def __init__(
        self,
        store: Store,
        tables: DeviceTables,
        dial: Callable[[str], grpc.aio.Channel],
        group: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.group = group
        self._store = store
        self._tables = tables
        self._dial = dial
        self._monotonic = monotonic
        self._devices: dict[str, Device] = {}
        self._absent: dict[str, float] = {}
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def load(self) -> None:
        """Reads everything from the store; once, at start."""
        rows = await self._store.read(lambda c: every_device(c, self._tables))
        self._devices = {row.device: _device(row) for row in rows}

    def get(self, device: str) -> Device | None:
        return self._devices.get(device)

    def __len__(self) -> int:
        return len(self._devices)

    async def find(self, names: Iterable[str]) -> set[str]:
        """Asks identity for devices the service has not heard of; the absent are remembered for 10 s.

        Returns:
            Those beyond the 64 of one call, not asked for.
        """
        now = self._monotonic()
        asked = [name for name in sorted(names) if name not in self._devices and self._absent.get(name, 0.0) <= now]
        await asyncio.gather(*(self._find(name) for name in asked[:LOOKUPS_MAX]))
        return set(asked[LOOKUPS_MAX:])

    async def _find(self, device: str) -> None:
        async with self._lookups:
            try:
                await self.renew(device)
            except NotFound:
                if len(self._absent) >= ABSENT_MAX:
                    self._absent.clear()
                self._absent[device] = self._monotonic() + ABSENT_S

    async def renew(self, device: str) -> None:
        """Takes over what identity says of the device now.

        Raises:
            NotFound: identity does not know it.
            CityError: identity cannot be asked now.
        """
        row = await self._ask(device)
        await self._store.write(lambda unit: put_device(unit, self._tables, row))
        self.put(row)

    async def handle(self, records: Sequence[Record]) -> None:
        """Consumer of identity's events; registrations, rotations and revocations."""
        names = dict.fromkeys(filter(None, map(_device_of, records)))
        rows = [row for row in [await self._known(name) for name in names] if row is not None]

        def unit(work: Unit) -> None:
            fresh = [work.first_time(record, self.group) for record in records]
            if any(fresh):
                for row in rows:
                    put_device(work, self._tables, row)

        await self._store.write(unit)
        for row in rows:
            self.put(row)

    def put(self, row: DeviceRow) -> None:
        """Takes over a row that is durable."""
        self._absent.pop(row.device, None)
        self._devices[row.device] = _device(row)

    async def _known(self, name: str) -> DeviceRow | None:
        try:
            return await self._ask(name)
        except NotFound:
            return None

    async def _ask(self, name: str) -> DeviceRow:
        stub = IdentityServiceStub(self._dial("identity"))
        try:
            answer = await stub.GetDevice(identity.GetDeviceRequest(device=name), timeout=10.0)
        except grpc.aio.AioRpcError as error:
            raise city_error(error) from None
        return _row(answer.device)


def _device(row: DeviceRow) -> Device:
    return Device(row.device, Standing(row.from_time, row.last_sequence), row.keys)


def _row(device: identity.Device) -> DeviceRow:
    keys = tuple(Key(k.from_sequence, k.public_key, k.algorithm, k.transaction) for k in device.keys)
    last = device.last_sequence if device.HasField("revoked_at") else None
    begins = device.in_service_from if device.HasField("in_service_from") else device.registered_at
    return DeviceRow(device.id, begins.seconds, last, keys)


def _device_of(record: Record) -> str:
    kind = _DEVICE_EVENTS.get(event_type(record))
    if kind is None:
        return ""
    event = kind()
    event.ParseFromString(record.value)
    return str(event.device)  # type: ignore[attr-defined]  # each of the three has it
