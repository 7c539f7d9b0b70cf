"""Opens device packages: size, strict parse, key, signature, claims. Runs in worker threads; PyNaCl lets others run while it verifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from citykit.package import ENERGY, Package, PackageError, parse_package, verify_package
from services.metering.app.fleet import Device, Fleet
from services.metering.domain.chain import Refusal, check_claims

UNKNOWN_DEVICE = "unknown-device"


@dataclass(frozen=True, slots=True)
class Opened:
    """A package whose signature holds. `readings` are (slot start, Wh) in order of time."""

    device: Device
    raw: bytes
    package: Package
    readings: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Its device is not known here (yet)."""

    device: str


Busy = Callable[[str], Refusal | None]
"""Says whether a device is over its limit already, before anything dear is done."""


def open_packages(raws: Sequence[bytes], fleet: Fleet, latest: int, busy: Busy) -> list[Opened | Unknown | Refusal]:
    """One finding for each package, in order."""
    return [open_package(raw, fleet, latest, busy) for raw in raws]


def open_package(raw: bytes, fleet: Fleet, latest: int, busy: Busy) -> Opened | Unknown | Refusal:
    """Parses, looks up, verifies. `latest`: city time plus tolerance, unix seconds."""
    try:
        parsed = parse_package(raw)
    except PackageError as error:
        return Refusal(error.code, error.message)
    device = fleet.get(parsed.device)
    if device is None:
        return Unknown(parsed.device)
    return busy(parsed.device) or _verified(raw, parsed, device, latest)


def _verified(raw: bytes, parsed: Package, device: Device, latest: int) -> Opened | Refusal:
    key = device.key_for(parsed.sequence)
    if key is None or not verify_package(parsed, key.public_key, key.algorithm):
        return Refusal(
            "bad-signature",
            f"the signature does not hold under the key registered for sequence {parsed.sequence};"
            " sign with the device's own key, or rotate the key at identity first",
        )
    if parsed.measure is not ENERGY:
        return Refusal(
            "wrong-measure", f"a meter sends energy, not {parsed.measure.name}; send it to the service it is for"
        )
    if device.meter_point is None:
        message = "the device is registered but at no meter point; RegisterMeterPoints first"
        return Refusal("no-meter-point", message, device=device.id)
    refusal = check_claims(device.standing, parsed.sequence, parsed.times[0], parsed.times[-1], latest)
    if refusal is not None:
        return replace(refusal, device=device.id)
    return Opened(device, raw, parsed, tuple(zip(parsed.times, parsed.values, strict=True)))
