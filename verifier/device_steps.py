"""The steps about devices: their keys on the ledger, their signatures, their chains, what they measure. Called by the step runner."""

from __future__ import annotations

from collections import Counter
from typing import Any

from verifier.bill import require_form
from verifier.canonical import Failure, fields, unhex
from verifier.found import Check, Found
from verifier.ledger import transaction_of
from verifier.package import Package
from verifier.signatures import device_signature_holds
from verifier.trust import Trust

_WORDS = {
    "energy": "readings in Wh",
    "occupied": "counts of cars",
    "entry": "entries a lock opened for",
    "exit": "exits a lock opened for",
}


def _device_keys(found: Found) -> str:
    for number, item in enumerate(found.bundle["devices"]):
        where = f"devices[{number}]"
        fields(item, where, id=str, keys=list)
        if item["id"] in found.keys:
            raise Failure(f"{where}: {item['id']} stands twice")
        found.keys[item["id"]] = _keys(item, where, found.trust)
    if list(found.keys) != sorted(found.keys):
        raise Failure(f"devices {list(found.keys)} are not in order")
    used = {package.device for package in found.packages}
    if used != set(found.keys):
        raise Failure(f"keys are given for {sorted(found.keys)}, packages are of {sorted(used)}")
    count = sum(len(keys) for keys in found.keys.values())
    return f"{len(used)} devices, {count} keys, registered on the ledger"


def _keys(item: Any, where: str, trust: Trust) -> list[tuple[int, str, bytes]]:
    keys = [_key(key, item["id"], f"{where}.keys[{n}]", trust) for n, key in enumerate(item["keys"])]
    starts = [start for start, _, _ in keys]
    if not starts or starts != sorted(set(starts)):
        raise Failure(f"{where}: the keys are not in order")
    return keys


def _key(item: Any, device: str, where: str, trust: Trust) -> tuple[int, str, bytes]:
    """(first sequence, algorithm, key), as the ledger has it."""
    fields(item, where, key=str, algorithm=str, from_sequence=int, registered=dict)
    transaction = transaction_of(item["registered"], trust, f"{where}.registered")
    if transaction["contract"] != "devices" or transaction["submitter"] != "identity":
        raise Failure(f"{where}: the transaction registers no device")
    args = transaction["args"]
    listed = args["devices"] if transaction["function"] == "register_many" else [args]
    if transaction["function"] not in ("register", "register_many", "rotate"):
        raise Failure(f"{where}: the transaction registers no key")
    said = (device, item["key"], item["algorithm"], item["from_sequence"])
    if said not in [(one["device"], one["key"], one["algorithm"], one["from_sequence"]) for one in listed]:
        raise Failure(f"{where}: the ledger registered another key of {device}")
    if item["algorithm"] not in ("EdDSA", "ES256"):
        raise Failure(f"{where}: unknown algorithm {item['algorithm']}")
    return item["from_sequence"], item["algorithm"], unhex(item["key"], 0, f"{where}.key")


def _signatures(found: Found) -> str:
    for package in found.packages:
        _require_signed(package, found.keys[package.device])
    return f"{len(found.packages)} device signatures hold"


def _require_signed(package: Package, registered: list[Any]) -> None:
    keys = [key for key in registered if key[0] <= package.sequence]
    if not keys:
        raise Failure(f"{package.device}, package {package.sequence}: no key was registered for it")
    _, algorithm, key = keys[-1]
    if package.algorithm != algorithm or not device_signature_holds(algorithm, key, package.signed, package.signature):
        raise Failure(f"{package.device}, package {package.sequence}: the device's signature does not hold")


def _chain(found: Found) -> str:
    """Each package holds the hash of the one before; what is missing must be said."""
    said = _gaps(found)
    for before, after in zip(found.packages, found.packages[1:], strict=False):
        if before.device == after.device:
            _require_link(before, after, said)
    if not found.packages:
        return "no packages to link"
    gaps = "" if not said else f", {len(said)} gaps as stated"
    return f"sequence {found.packages[0].sequence} to {found.packages[-1].sequence} linked{gaps}"


def _require_link(before: Package, after: Package, said: set[tuple[int, int]] | None) -> None:
    if after.sequence == before.sequence + 1:
        if after.previous != before.hash:
            raise Failure(
                f"{after.device}, package {after.sequence} does not follow package {before.sequence}: the chain is broken"
            )
    elif said is not None and (before.sequence, after.sequence) not in said:
        raise Failure(
            f"{after.device}: packages {before.sequence + 1} to {after.sequence - 1} are left out and the bill does not say so"
        )


def _gaps(found: Found) -> set[tuple[int, int]] | None:
    """The gaps the bill states; None where the bundle is of no bill and may hold packages from here and there."""
    if "bill" not in found.bundle:
        return None
    require_form(found.bundle["bill"])
    gaps = found.bundle["bill"]["gaps"]
    for item in gaps:
        fields(item, "bill.gaps", after=int, before=int)
    return {(item["after"], item["before"]) for item in gaps}


def _energy(found: Found) -> str:
    measures = sorted({package.measure for package in found.packages})
    if measures != ["energy"]:
        raise Failure(f"the packages measure {', '.join(measures)}, not energy alone")
    count = sum(len(package.readings) for package in found.packages)
    return f"{count} readings in Wh"


def _measures(found: Found) -> str:
    """What the packages measure, whatever it is; an instruction to a lock is never logged, so it is not a measurement."""
    counts: Counter[str] = Counter()
    for package in found.packages:
        if package.measure not in _WORDS:
            raise Failure(
                f"{package.device}, package {package.sequence} measures {package.measure}, which is never logged"
            )
        counts[package.measure] += len(package.readings)
    return ", ".join(f"{counts[measure]} {words}" for measure, words in _WORDS.items() if measure in counts)


SIGNED_STEPS: list[tuple[str, Check]] = [
    ("device-keys", _device_keys),
    ("signatures", _signatures),
    ("chain", _chain),
]
ENERGY_STEP: tuple[str, Check] = ("senml", _energy)
MEASURES_STEP: tuple[str, Check] = ("senml", _measures)
