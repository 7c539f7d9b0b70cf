"""An executable example of docs/PROOFS.md: makes a bill's, a package's and an event's bundle and the trust file from a seed.

Written from the specification alone: it shares code neither with the servers nor with the verifier. Used by the verifier's tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from hashlib import sha256
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from tests.unit.verifier.bundlebytes import (
    CITY,
    DEVICE,
    DeviceKey,
    b64,
    canonical,
    cbor,
    checkpoint,
    commit,
    consistency,
    evidence,
    log_part,
    package,
    proof,
    root,
    secret,
    senml,
    trust,
)

__all__ = [
    "DeviceKey",
    "bill_bundle",
    "bill_document",
    "canonical",
    "cbor",
    "checkpoint",
    "commit",
    "consistency",
    "event_bundle",
    "package",
    "package_bundle",
    "packages_of",
    "proof",
    "root",
    "secret",
    "senml",
    "trust",
    "with_bill",
]

ZONE = "Europe/London"
FROM, TO = date(2016, 10, 29), date(2016, 10, 31)
SLOT_S = 1_800
TARIFF: dict[str, Any] = {
    "id": "example", "version": 1, "currency": "GBP", "zone": ZONE, "valid_from": "2016-10-01", "dispute_days": 28,
    "bands": [
        {"name": "night", "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 0, "to_minute": 420}],
         "steps": [{"up_to_wh_per_day": None, "price_micro_per_wh": 8_200}]},
        {"name": "day", "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 420, "to_minute": 1_440}],
         "steps": [{"up_to_wh_per_day": 3_000, "price_micro_per_wh": 14_370}, {"up_to_wh_per_day": None, "price_micro_per_wh": 16_910}]},
    ],
    "standing_micro_per_day": 24_600_000, "vat_basis_points": 500, "estimation": "profile-v1", "contact": {},
}  # fmt: skip


# --- the bill -----------------------------------------------------------------------------------------


def moment(day: date) -> int:
    """Unix time of local midnight."""
    return int(datetime.combine(day, time(), ZoneInfo(ZONE)).timestamp())


def local(slot: int) -> datetime:
    return datetime.fromtimestamp(slot, ZoneInfo(ZONE))


def half_up(amount: int, unit: int) -> int:
    return (2 * amount + unit) // (2 * unit)


def lines_of(energy: dict[int, int], days: int) -> list[dict[str, Any]]:
    """The lines of TARIFF: one price at night, two steps by day."""
    night = [slot for slot in energy if local(slot).hour < 7]
    wh = {
        "night": sum(energy[slot] for slot in night),
        "day": sum(energy.values()) - sum(energy[slot] for slot in night),
    }
    low = min(wh["day"], 3_000 * days)
    parts = [("night", 0, wh["night"], 8_200), ("day", 0, low, 14_370), ("day", 1, wh["day"] - low, 16_910)]
    slots = {"night": len(night), "day": len(energy) - len(night)}
    lines: list[dict[str, Any]] = [
        {"kind": "energy", "band": band, "step": step, "energy_wh": part, "price_micro_per_wh": price,
         "amount_minor": half_up(part * price, 10**6), "slots": slots[band]}
        for band, step, part, price in parts if part > 0
    ]  # fmt: skip
    lines.append(
        {
            "kind": "standing",
            "days": days,
            "price_micro_per_day": 24_600_000,
            "amount_minor": half_up(days * 24_600_000, 10**6),
        }
    )
    subtotal = sum(line["amount_minor"] for line in lines)
    return [*lines, {"kind": "vat", "basis_points": 500, "amount_minor": half_up(subtotal * 500, 10_000)}]


def bill_of(
    energy: dict[int, int], estimated: list[dict[str, Any]], gaps: list[tuple[int, int]], published: str
) -> dict[str, Any]:
    """The document; `energy` gives every slot its Wh, `published` is the tariff's transaction."""
    days = (TO - FROM).days
    lines = lines_of(energy, days)
    subtotal, vat = sum(line["amount_minor"] for line in lines[:-1]), lines[-1]["amount_minor"]
    offsets: list[list[int]] = []
    for slot in sorted(energy):
        offset = int((local(slot).utcoffset() or local(slot) - local(slot)).total_seconds())
        if not offsets or offsets[-1][1] != offset:
            offsets.append([slot, offset])
    return {
        "format": "city.bill.v1", "id": "bill-2016-10-29-0123456789abcdef", "meter_point": "mp-001", "device": [DEVICE],
        "period": {
            "from": FROM.isoformat(), "to": TO.isoformat(), "from_time": moment(FROM), "to_time": moment(TO), "zone": ZONE, "offsets": offsets,
        },
        "tariff": {"id": "example", "version": 1, "transaction": published}, "slot_seconds": SLOT_S, "slots": len(energy),
        "measured": len(energy) - len(estimated), "estimated": estimated, "gaps": [{"after": a, "before": b} for a, b in gaps],
        "lines": lines, "subtotal_minor": subtotal, "vat_minor": vat, "total_minor": subtotal + vat, "currency": "GBP",
        "corrects": None, "issued": "2016-11-01T00:00:00Z", "due": "2016-11-15", "dispute_until": "2016-11-29",
    }  # fmt: skip


# --- bundles ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What goes into a bundle; the defaults make an honest bill with packages of `size` readings.

    Attributes:
        left_out: sequence numbers that were lost on the way: their slots are estimated, the gap is stated.
        held: slots (by number in the period) that are set aside as a spike and estimated.
        earlier: size of the log at an earlier checkpoint that the bundle continues; 0 for none.
    """

    seed: int = 1
    size: int = 7
    algorithm: str = "EdDSA"
    left_out: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    earlier: int = 0


def slots() -> list[int]:
    """The half hours of the period: 98, since the clocks go back in it."""
    return list(range(moment(FROM), moment(TO), SLOT_S))


def value_of(seed: int, slot: int) -> int:
    return int.from_bytes(secret(seed, str(slot))[:2], "big") % 400


def packages_of(recipe: Recipe) -> dict[int, bytes]:
    """sequence -> package, chained, over the whole period."""
    made: dict[int, bytes] = {}
    previous, key, wanted = bytes(32), DeviceKey(recipe.seed, recipe.algorithm), slots()
    for sequence, first in enumerate(range(0, len(wanted), recipe.size), start=1):
        pack = senml([(slot, value_of(recipe.seed, slot)) for slot in wanted[first : first + recipe.size]])
        made[sequence] = package(key, sequence, previous, pack)
        previous = sha256(made[sequence]).digest()
    return made


def package_bundle(recipe: Recipe, packages: dict[int, bytes] | None = None) -> dict[str, Any]:
    """Kind "package": each package (of energy, if none are given) that was not lost, at every second place of the log."""
    made = packages or packages_of(recipe)
    kept = {sequence: data for sequence, data in made.items() if sequence not in recipe.left_out}
    items: list[dict[str, Any]] = []
    entries: list[bytes] = []
    for sequence, data in kept.items():
        salt = secret(recipe.seed, f"salt {sequence}")
        entries += [secret(recipe.seed, f"another {sequence}"), commit(salt, data)]
        items.append({"index": len(entries) - 1, "package": b64(data), "salt": salt.hex()})
    key = {
        "key": DeviceKey(recipe.seed, recipe.algorithm).public().hex(),
        "algorithm": recipe.algorithm,
        "from_sequence": 1,
    }
    told = {"device": DEVICE, "voucher": "00" * 32, "from_time": "2016-10-01T00:00:00Z", **key}
    registered = evidence(recipe.seed, "devices", "register_many", "identity", {"devices": [told]})
    earlier = None
    if recipe.earlier:
        older = checkpoint(recipe.seed, entries[: recipe.earlier])
        earlier = {"checkpoint": older, "consistency": consistency(entries, recipe.earlier)}
    return {
        "format": "city.bundle.v1", "kind": "package", "city": CITY, "earlier": earlier, "packages": items,
        "log": log_part(recipe.seed, entries, [item["index"] for item in items]),
        "devices": [{"id": DEVICE, "keys": [{**key, "registered": registered}]}],
    }  # fmt: skip


def _accounted(recipe: Recipe) -> tuple[dict[int, int], list[dict[str, Any]], list[tuple[int, int]]]:
    energy, estimated = {}, []
    for number, slot in enumerate(slots()):
        lost, held = 1 + number // recipe.size in recipe.left_out, number in recipe.held
        energy[slot] = 100 if lost or held else value_of(recipe.seed, slot)
        if lost or held:
            reason = "missing" if lost else "quarantined:spike"
            estimated.append({"slot": slot, "energy_wh": 100, "reason": reason, "method": "profile-v1"})
    kept = [number for number in range(1, 2 + (len(slots()) - 1) // recipe.size) if number not in recipe.left_out]
    return energy, estimated, [(a, b) for a, b in pairwise(kept) if b != a + 1]


def with_bill(recipe: Recipe, bill: dict[str, Any], period: str = "") -> dict[str, Any]:
    """Kind "bill" around any bill document: in a run of five that the ledger closed."""
    salt = secret(recipe.seed, "bill")
    run = [secret(recipe.seed, f"bill {n}") for n in range(2)] + [commit(salt, canonical(bill))]
    run += [secret(recipe.seed, f"bill {n}") for n in range(3, 5)]
    args = {
        "run": "run-1", "period": period or f"{FROM}/{TO}", "count": 5, "root": root(run).hex(), "tariff": {"id": "example", "version": 1},
    }  # fmt: skip
    return {
        **package_bundle(recipe), "kind": "bill", "bill": bill, "bill_salt": salt.hex(),
        "run": {"proof": proof(run, [2]), "evidence": evidence(recipe.seed, "billing", "close", "metering", args)},
        "tariff": evidence(recipe.seed, "tariffs", "publish", "metering", {"tariff": TARIFF}),
    }  # fmt: skip


def bill_document(recipe: Recipe) -> dict[str, Any]:
    return bill_of(*_accounted(recipe), published=secret(recipe.seed, "tariffs.publish").hex())


def bill_bundle(recipe: Recipe) -> dict[str, Any]:
    """An honest bill and everything that proves it."""
    return with_bill(recipe, bill_document(recipe))


def event_bundle(recipe: Recipe) -> dict[str, Any]:
    """Kind "event": a document in the middle of a log of five."""
    event, salt = (
        {"format": "city.example.v1", "at": datetime.fromtimestamp(0, UTC).isoformat()},
        secret(recipe.seed, "event"),
    )
    entries = [secret(recipe.seed, f"entry {n}") for n in range(5)]
    entries[3] = commit(salt, canonical(event))
    return {
        "format": "city.bundle.v1", "kind": "event", "city": CITY, "earlier": None, "event": event, "salt": salt.hex(), "index": 3,
        "log": log_part(recipe.seed, entries, [3]),
    }  # fmt: skip
