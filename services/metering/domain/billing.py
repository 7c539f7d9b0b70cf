"""Bills to the cent: from energy per slot and a tariff to lines and a total. Integers only; docs/PROOFS.md, "Bill"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from services.metering.domain.errors import NotBillable
from services.metering.domain.estimation import METHOD, Estimator
from services.metering.domain.slots import SLOT_S, Offsets, Period, weekday_minute
from services.metering.domain.tariff import Band, Tariff

FORMAT = "city.bill.v1"
MICRO = 1_000_000
PAYMENT_DAYS = 14
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Gap:
    """Packages between two sequence numbers of a device that never came."""

    after: int
    before: int


@dataclass(frozen=True, slots=True)
class BillInput:
    """All a bill is made of.

    Attributes:
        offsets: of the zone over the weeks before the period too, for estimation.
        measured: slot start -> Wh of the readings that count, within the period and before it (for estimation).
        held: slot start -> reason of readings set aside.
    """

    id: str
    meter_point: str
    devices: tuple[str, ...]
    period: Period
    offsets: Offsets
    tariff_transaction: str
    measured: Mapping[int, int]
    held: Mapping[int, str]
    gaps: tuple[Gap, ...]
    corrects: str | None
    issued: str
    issued_day: date


def half_up(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded half up, for numerator >= 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def band_energy(tariff: Tariff, period: Period, energy_wh: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """(Wh, slots) of each band; a slot belongs to the band of its local start."""
    energy, slots = [0] * len(tariff.bands), [0] * len(tariff.bands)
    for slot in period.slots:
        band = tariff.band_at(*weekday_minute(period.offsets.local(slot)))
        energy[band] += energy_wh[slot]
        slots[band] += 1
    return energy, slots


def step_energy(band: Band, energy_wh: int, days: int) -> list[int]:
    """How much of a band's energy falls in each step: thresholds times local days."""
    shares, used = [], 0
    for step in band.steps:
        limit = energy_wh if step.up_to_wh_per_day is None else min(energy_wh, step.up_to_wh_per_day * days)
        shares.append(limit - used)
        used = limit
    return shares


def energy_lines(tariff: Tariff, period: Period, energy_wh: Mapping[int, int]) -> list[dict[str, Any]]:
    """One line per band and step with energy."""
    energy, slots = band_energy(tariff, period, energy_wh)
    return [
        {
            "kind": "energy",
            "band": band.name,
            "step": index,
            "energy_wh": share,
            "price_micro_per_wh": band.steps[index].price_micro_per_wh,
            "amount_minor": half_up(share * band.steps[index].price_micro_per_wh, MICRO),
            "slots": slots[number],
        }
        for number, band in enumerate(tariff.bands)
        for index, share in enumerate(step_energy(band, energy[number], period.days))
        if share > 0
    ]


def priced(tariff: Tariff, period: Period, energy_wh: Mapping[int, int]) -> dict[str, Any]:
    """Lines and totals of a period; `energy_wh` has every slot of it."""
    lines = energy_lines(tariff, period, energy_wh)
    standing = half_up(period.days * tariff.standing_micro_per_day, MICRO)
    lines.append(
        {
            "kind": "standing",
            "days": period.days,
            "price_micro_per_day": tariff.standing_micro_per_day,
            "amount_minor": standing,
        }
    )
    subtotal = sum(line["amount_minor"] for line in lines)
    vat = half_up(subtotal * tariff.vat_basis_points, 10_000)
    lines.append({"kind": "vat", "basis_points": tariff.vat_basis_points, "amount_minor": vat})
    return {
        "lines": lines,
        "subtotal_minor": subtotal,
        "vat_minor": vat,
        "total_minor": subtotal + vat,
        "currency": tariff.currency,
    }


def make_bill(given: BillInput, tariff: Tariff) -> dict[str, Any]:
    """The bill document (`city.bill.v1`).

    Raises:
        NotBillable: nothing was measured, or a slot can neither be found nor estimated.
    """
    period = given.period
    measured = {slot: given.measured[slot] for slot in period.slots if slot in given.measured}
    if not measured:
        raise NotBillable("no reading that counts in the period", reason="no-readings")
    estimated = _estimates(given)
    energy = {**measured, **{item["slot"]: item["energy_wh"] for item in estimated}}
    return {
        "format": FORMAT,
        "id": given.id,
        "meter_point": given.meter_point,
        "device": list(given.devices),
        "period": period_document(period),
        "tariff": {"id": tariff.id, "version": tariff.version, "transaction": given.tariff_transaction},
        "slot_seconds": SLOT_S,
        "slots": len(period.slots),
        "measured": len(measured),
        "estimated": estimated,
        "gaps": [{"after": gap.after, "before": gap.before} for gap in given.gaps],
        **priced(tariff, period, energy),
        "corrects": given.corrects,
        "issued": given.issued,
        "due": (given.issued_day + timedelta(days=PAYMENT_DAYS)).isoformat(),
        "dispute_until": (given.issued_day + timedelta(days=tariff.dispute_days)).isoformat(),
    }


def period_document(period: Period) -> dict[str, Any]:
    """The `period` object of a bill."""
    return {
        "from": period.from_day.isoformat(),
        "to": period.to_day.isoformat(),
        "from_time": period.from_time,
        "to_time": period.to_time,
        "zone": period.zone,
        "offsets": [[start, offset] for start, offset in period.offsets.entries],
    }


def _estimates(given: BillInput) -> list[dict[str, Any]]:
    estimator = Estimator(given.measured, given.offsets)
    return [_estimate(estimator, slot, given.held) for slot in given.period.slots if slot not in given.measured]


def _estimate(estimator: Estimator, slot: int, held: Mapping[int, str]) -> dict[str, Any]:
    energy = estimator.estimate(slot)
    if energy is None:
        raise NotBillable(
            f"the slot at {slot} has no measured slot near enough to estimate it from", reason="not-estimable"
        )
    reason = f"quarantined:{held[slot]}" if slot in held else MISSING
    return {"slot": slot, "energy_wh": energy, "reason": reason, "method": METHOD}


def gaps_between(sequences: Sequence[int]) -> tuple[Gap, ...]:
    """The gaps in a growing list of sequence numbers."""
    return tuple(Gap(a, b) for a, b in pairwise(sequences) if b != a + 1)
