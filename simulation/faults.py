"""Faults to switch on: what a device, a thief, a network or a provider can do. Each acts on things of its own, so the others stay clean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from citykit.package import Reading, sign_package
from simulation.count_sensor import CountSensor
from simulation.device import Device

METER_FAULTS = ("forged", "replayed", "reordered", "missing", "stuck", "drift", "spike", "skew", "flood")
SENSOR_STUCK, SENSOR_SILENT, EVENT = "sensor-stuck", "sensor-silent", "event-unannounced"
LOCK_OFFLINE, PROVIDER_DOWN = "lock-offline", "provider-down"
PARKING_FAULTS = (SENSOR_STUCK, SENSOR_SILENT, EVENT, LOCK_OFFLINE, PROVIDER_DOWN)
FAULTS = (*METER_FAULTS, *PARKING_FAULTS)
_DEVICES_EACH = 2
_FIRST_DEVICE = 10
_STUCK_WH = 137
_SPIKE_FACTOR = 40
_SPIKE_EVERY = 5
_MISSING_EVERY = 4
_SKEW_S = 6 * 3600
_DRIFT_PER_DAY = 25
_FLOOD_COPIES = 400
_EVENT_SHARE_PCT = 35
"""Of a lot's capacity: cars that come for what stands in no calendar."""


def devices_of(fault: str, devices: Sequence[str]) -> list[str]:
    """The meters a fault acts on: two each, never the measured homes."""
    first = _FIRST_DEVICE + METER_FAULTS.index(fault) * _DEVICES_EACH
    return [device for number, device in enumerate(devices) if first <= number < first + _DEVICES_EACH]


class Faults:
    """The faults that are on.

    Args:
        devices: every meter, in the neighbourhood's order.
        targets: what each fault of PARKING_FAULTS acts on.
    """

    def __init__(
        self, devices: Sequence[str], active: Sequence[str] = (), targets: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._targets = {name: tuple(devices_of(name, devices)) for name in METER_FAULTS}
        self._targets |= {name: tuple((targets or {}).get(name, ())) for name in PARKING_FAULTS}
        self._active: tuple[str, ...] = ()
        self._since: dict[str, int] = {}
        self._held: dict[str, bytes] = {}
        self._last: dict[str, int] = {}
        self.switch(active)

    @property
    def active(self) -> tuple[str, ...]:
        return self._active

    def switch(self, names: Sequence[str]) -> None:
        """Exactly these are on from now on."""
        self._active = tuple(name for name in FAULTS if name in names)

    def acting(self) -> list[str]:
        """`fault:device` of everything that is on."""
        return [f"{fault}:{target}" for fault in self._active for target in self._targets[fault]]

    def on(self, fault: str, target: str) -> bool:
        """Whether a fault is on for a lock, a sensor or the provider."""
        return fault in self._active and target in self._targets[fault]

    def sensor_packages(self, sensor: CountSensor, readings: list[Reading]) -> list[bytes]:
        """What the city gets instead of a count sensor's true package."""
        if self.on(EVENT, sensor.id):
            more = sensor.capacity * _EVENT_SHARE_PCT // 100
            readings = [Reading(one.time, min(sensor.capacity, one.value + more)) for one in readings]
        if self.on(SENSOR_STUCK, sensor.id):
            value = self._last.setdefault(sensor.id, readings[0].value)
            return [sensor.sign([Reading(one.time, value) for one in readings])]
        self._last.pop(sensor.id, None)
        package = sensor.sign(readings)
        return [] if self.on(SENSOR_SILENT, sensor.id) else [package]

    def packages(self, device: Device, readings: list[Reading]) -> list[bytes]:
        """What the city gets instead of a meter's one true package of these readings."""
        fault = next((name for name in self._active if device.id in self._targets[name]), None)
        if fault is None:
            held = self._held.pop(device.id, None)
            return [device.sign(readings), *([held] if held else [])]
        if fault in _VALUES:
            since = self._since.setdefault(f"{fault}:{device.id}", readings[0].time)
            return [device.sign([_VALUES[fault](reading, since) for reading in readings])]
        if fault == "reordered":
            return self._reordered(device, readings)
        return _STREAMS[fault](device, readings)

    def _reordered(self, device: Device, readings: list[Reading]) -> list[bytes]:
        """Every second package is held back and sent after the next."""
        package = device.sign(readings)
        held = self._held.pop(device.id, None)
        if held is None:
            self._held[device.id] = package
            return []
        return [package, held]


def _stuck(reading: Reading, _since: int) -> Reading:
    return Reading(reading.time, _STUCK_WH)


def _drift(reading: Reading, since: int) -> Reading:
    """Reads ever more: a quarter more each day."""
    days = (reading.time - since) // 86_400 + 1
    return Reading(reading.time, reading.value * (100 + _DRIFT_PER_DAY * days) // 100)


def _spike(reading: Reading, _since: int) -> Reading:
    spike = reading.time // 1_800 % _SPIKE_EVERY == 0
    return Reading(reading.time, reading.value * _SPIKE_FACTOR) if spike else reading


def _skew(reading: Reading, _since: int) -> Reading:
    """A clock that goes six hours ahead."""
    return Reading(reading.time + _SKEW_S, reading.value)


def _forged(device: Device, readings: list[Reading]) -> list[bytes]:
    """A thief sends the same slot as zero, without the device's key; then the true package."""
    zeros = [Reading(reading.time, 0) for reading in readings]
    forged = sign_package(device.signer, device.id, device.sequence + 1, device.previous, zeros)
    noise = sha256(forged).digest() * 2
    return [forged[:-64] + noise, device.sign(readings)]


def _replayed(device: Device, readings: list[Reading]) -> list[bytes]:
    package = device.sign(readings)
    return [package, package]


def _missing(device: Device, readings: list[Reading]) -> list[bytes]:
    package = device.sign(readings)
    return [] if device.sequence % _MISSING_EVERY == 0 else [package]


def _flood(device: Device, readings: list[Reading]) -> list[bytes]:
    package = device.sign(readings)
    return [package] * _FLOOD_COPIES


_VALUES: dict[str, Callable[[Reading, int], Reading]] = {
    "stuck": _stuck,
    "drift": _drift,
    "spike": _spike,
    "skew": _skew,
}
_STREAMS: dict[str, Callable[[Device, list[Reading]], list[bytes]]] = {
    "forged": _forged,
    "replayed": _replayed,
    "missing": _missing,
    "flood": _flood,
}
