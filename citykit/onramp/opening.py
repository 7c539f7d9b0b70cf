"""Opens device packages: size, strict parse, key, signature, claims. Runs in worker threads; PyNaCl lets others run while it verifies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from citykit.onramp.chain import Refusal, check_claims
from citykit.onramp.registry import Device, Registry
from citykit.package import Package, PackageError, parse_package, verify_package

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Opened(Generic[P]):
    """A package whose signature holds. `place` is what the service says it is for."""

    device: Device
    place: P
    raw: bytes
    package: Package

    @property
    def readings(self) -> tuple[tuple[int, int], ...]:
        """(time, value) in order of time."""
        return tuple(zip(self.package.times, self.package.values, strict=True))


@dataclass(frozen=True, slots=True)
class Unknown:
    """Its device is not known here (yet)."""

    device: str


Busy = Callable[[str], Refusal | None]
"""Says whether a device is over its limit already, before anything dear is done."""


@dataclass(frozen=True)
class Rule(Generic[P]):
    """What a service takes.

    Attributes:
        place: what a package of this device is for (a meter point, a lot), or why the service does not take it.
        reading_s: how long after its time a reading is over; 0 for counts and doings of a moment.
    """

    place: Callable[[Device, Package], P | Refusal]
    reading_s: int


def open_packages(
    raws: Sequence[bytes], registry: Registry, rule: Rule[P], latest: int, busy: Busy
) -> list[Opened[P] | Unknown | Refusal]:
    """One finding for each package, in order. `latest`: city time plus tolerance, unix seconds."""
    return [_opened(raw, registry, rule, latest, busy) for raw in raws]


def _opened(raw: bytes, registry: Registry, rule: Rule[P], latest: int, busy: Busy) -> Opened[P] | Unknown | Refusal:
    try:
        parsed = parse_package(raw)
    except PackageError as error:
        return Refusal(error.code, error.message)
    device = registry.get(parsed.device)
    if device is None:
        return Unknown(parsed.device)
    return busy(parsed.device) or _verified(raw, parsed, device, rule, latest)


def _verified(raw: bytes, parsed: Package, device: Device, rule: Rule[P], latest: int) -> Opened[P] | Refusal:
    key = device.key_for(parsed.sequence)
    if key is None or not verify_package(parsed, key.public_key, key.algorithm):
        return Refusal(
            "bad-signature",
            f"the signature does not hold under the key registered for sequence {parsed.sequence};"
            " sign with the device's own key, or rotate the key at identity first",
        )
    place = rule.place(device, parsed)
    if isinstance(place, Refusal):
        return replace(place, device=device.id)
    end = parsed.times[-1] + rule.reading_s
    refusal = check_claims(device.standing, parsed.sequence, parsed.times[0], end, latest)
    return replace(refusal, device=device.id) if refusal else Opened(device, place, raw, parsed)
