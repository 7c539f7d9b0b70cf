"""A bill, recomputed: which slots count, what the tariff makes of them, line by line (docs/PROOFS.md, "Tariff" and "Bill")."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from verifier import times
from verifier.canonical import Failure, fields
from verifier.package import SLOT_S, Package
from verifier.times import DAY_MINUTES, WEEK_DAYS, day_of

MICRO = 1_000_000
SLOTS_MAX = 20_000
_DAY_S, _EPOCH_WEEKDAY = 86_400, 3
_OFFSET_MAX = 16 * 3_600
_PAIR = 2
_BILL = {
    "format": str, "id": str, "meter_point": str, "device": list, "period": dict, "tariff": dict, "slot_seconds": int, "slots": int,
    "measured": int, "estimated": list, "gaps": list, "lines": list, "subtotal_minor": int, "vat_minor": int, "total_minor": int,
    "currency": str, "corrects": (str, None), "issued": str, "due": str, "dispute_until": str,
}  # fmt: skip
_PERIOD = {"from": str, "to": str, "from_time": int, "to_time": int, "zone": str, "offsets": list}
_TARIFF = {
    "id": str, "version": int, "currency": str, "zone": str, "valid_from": str, "bands": list, "standing_micro_per_day": int,
    "vat_basis_points": int, "estimation": str, "contact": dict, "dispute_days": int,
}  # fmt: skip


@dataclass(frozen=True)
class Slots:
    """What each slot of the period counts with, and what a reader should know of it."""

    energy_wh: dict[int, int]
    measured: int
    notes: list[str]


def require_form(bill: Any) -> Any:
    """Raises Failure unless the bill has exactly the fields of city.bill.v1 and a sensible period."""
    fields(bill, "bill", **_BILL)
    period = fields(bill["period"], "bill.period", **_PERIOD)
    fields(bill["tariff"], "bill.tariff", id=str, version=int, transaction=str)
    start, end = period["from_time"], period["to_time"]
    if bill["format"] != "city.bill.v1" or bill["slot_seconds"] != SLOT_S:
        raise Failure("the bill is not of format city.bill.v1 with slots of 1,800 s")
    if start % SLOT_S or end % SLOT_S or not 0 < end - start <= SLOTS_MAX * SLOT_S:
        raise Failure("the bill's period is not made of 1 to 20,000 whole slots")
    if bill["slots"] != (end - start) // SLOT_S:
        raise Failure(f"the bill counts {bill['slots']} slots; its period has {(end - start) // SLOT_S}")
    return bill


def require_offsets(period: Any) -> str:
    """Checks that the clock offsets make the period's local dates, and agree with the time zone database where there is one.

    Raises:
        Failure: they do not.
    """
    offsets = period["offsets"]
    if not offsets or not all(
        isinstance(item, list) and len(item) == _PAIR and all(type(n) is int for n in item) for item in offsets
    ):
        raise Failure("bill.period.offsets is not a list of [time, offset]")
    times = [time for time, _ in offsets]
    if times[0] != period["from_time"] or times != sorted(set(times)) or times[-1] >= period["to_time"]:
        raise Failure("bill.period.offsets do not start with the period or are not in order inside it")
    if any(abs(offset) > _OFFSET_MAX for _, offset in offsets):
        raise Failure("bill.period.offsets holds an impossible offset")
    for name, time in (("from", period["from_time"]), ("to", period["to_time"])):
        offset = offsets[0][1] if name == "from" else _offset_at_end(period)
        local = datetime.fromtimestamp(time + offset, UTC)
        if local.date().isoformat() != period[name] or local.time().isoformat() != "00:00:00":
            raise Failure(f"bill.period.{name} ({period[name]}) is not local midnight by the bill's own offsets")
    return _agreement(period)


def _offset_at_end(period: Any) -> int:
    """The offset in force at the end: the last one, unless the zone database knows of a change exactly there."""
    last = int(period["offsets"][-1][1])
    try:
        found = datetime.fromtimestamp(period["to_time"], ZoneInfo(period["zone"])).utcoffset()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return last
    return last if found is None else int(found.total_seconds())


def _agreement(period: Any) -> str:
    try:
        zone = ZoneInfo(period["zone"])
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"{period['zone']}: offsets as the bill states them; no time zone database here to compare"
    for slot in range(period["from_time"], period["to_time"], SLOT_S):
        known = datetime.fromtimestamp(slot, zone).utcoffset()
        if known is None or int(known.total_seconds()) != offset_at(period["offsets"], slot):
            raise Failure(f"the clock offset at {moment(slot)} is not that of {period['zone']}")
    return f"{period['zone']}: offsets agree with the time zone database"


def offset_at(offsets: Sequence[Sequence[int]], slot: int) -> int:
    return int(offsets[bisect_right([time for time, _ in offsets], slot) - 1][1])


def moment(slot: int) -> str:
    return datetime.fromtimestamp(slot, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- slots ------------------------------------------------------------------------------------------


def slots_of(bill: Any, packages: Sequence[Package]) -> Slots:
    """Gives every slot its one source: a measured value, or an estimate the bill lists.

    Raises:
        Failure: naming the slot.
    """
    period = bill["period"]
    wanted = range(period["from_time"], period["to_time"], SLOT_S)
    measured = _measured(packages, wanted)
    estimated = _estimated(bill, wanted)
    notes: list[str] = []
    energy: dict[int, int] = {}
    for slot in wanted:
        values, estimate = measured.get(slot, []), estimated.get(slot)
        if estimate is not None:
            notes += _estimate_notes(slot, values, estimate)
            energy[slot] = estimate["energy_wh"]
        elif len(set(values)) == 1:
            energy[slot] = values[0]
        elif not values:
            raise Failure(f"slot {moment(slot)} is neither in a package nor listed as estimated")
        else:
            raise Failure(f"slot {moment(slot)} was measured twice with different values: {values}")
    notes += _edge_notes(measured, estimated)
    count = len(wanted) - len(estimated)
    if bill["measured"] != count:
        raise Failure(f"the bill counts {bill['measured']} measured slots; there are {count}")
    return Slots(energy, count, notes)


def _edge_notes(measured: dict[int, list[int]], estimated: dict[int, Any]) -> list[str]:
    """Missing slots before the first or after the last measured one: no later package of the chain shows that nothing was left out."""
    first, last = min(measured, default=0), max(measured, default=0)
    edge = [slot for slot, item in estimated.items() if item["reason"] == "missing" and not first < slot < last]
    if not edge:
        return []
    return [
        f"{len(edge)} slots at the edge of the period are billed as missing; only the device itself can show whether it sent them"
    ]


def _measured(packages: Sequence[Package], wanted: range) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for package in packages:
        for slot, value in package.readings.items():
            if slot in wanted:
                found.setdefault(slot, []).append(value)
    return found


def _estimated(bill: Any, wanted: range) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for number, item in enumerate(bill["estimated"]):
        where = f"bill.estimated[{number}]"
        fields(item, where, slot=int, energy_wh=int, reason=str, method=str)
        if item["slot"] not in wanted or item["slot"] in found or item["energy_wh"] < 0:
            raise Failure(f"{where}: not a slot of the period, listed twice, or negative")
        found[item["slot"]] = item
    return found


def _estimate_notes(slot: int, values: list[int], estimate: Any) -> list[str]:
    if estimate["reason"] == "missing":
        if values:
            raise Failure(
                f"slot {moment(slot)} is billed as missing with {estimate['energy_wh']} Wh, but the device measured {values[0]} Wh"
            )
        return []
    if not estimate["reason"].startswith("quarantined:"):
        raise Failure(f"slot {moment(slot)} is estimated for an unknown reason ({estimate['reason']})")
    return [
        f"{moment(slot)}: measured {value} Wh was set aside ({estimate['reason'].partition(':')[2]}); billed {estimate['energy_wh']} Wh, estimated"
        for value in values
    ]


# --- tariff and lines -------------------------------------------------------------------------------


def require_tariff(tariff: Any, bill: Any) -> str:
    """Raises Failure unless the tariff is the one the bill names, was valid, and gives every minute of the week one band."""
    fields(tariff, "tariff", **_TARIFF)
    named = (bill["tariff"]["id"], bill["tariff"]["version"], bill["currency"], bill["period"]["zone"])
    if named != (tariff["id"], tariff["version"], tariff["currency"], tariff["zone"]):
        raise Failure("the bill names another tariff, currency or time zone than was published")
    if day_of(tariff["valid_from"], "tariff.valid_from") > day_of(bill["period"]["from"], "bill.period.from"):
        raise Failure(f"the tariff is valid from {tariff['valid_from']} only, after the period began")
    days = timedelta(days=tariff["dispute_days"])
    issued = datetime.fromtimestamp(_issued(bill), UTC)
    if day_of(bill["dispute_until"], "bill.dispute_until") < issued.date() + days - timedelta(days=1):
        raise Failure("the bill gives less time to dispute it than the tariff promises")
    week_of(tariff)
    return f"{tariff['id']} version {tariff['version']}, published on the ledger"


def _issued(bill: Any) -> float:
    try:
        return datetime.strptime(bill["issued"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Failure("bill.issued is no time") from None


def week_of(tariff: Any) -> list[int]:
    """The band of each minute of the week, Monday first."""
    for band in tariff["bands"]:
        fields(band, "a band", name=str, windows=list, steps=list)
        _require_steps(band)
    return times.week_of(tariff["bands"])


def _require_steps(band: Any) -> None:
    last = 0
    for number, step in enumerate(band["steps"]):
        fields(step, "a step", up_to_wh_per_day=(int, None), price_micro_per_wh=int)
        threshold = step["up_to_wh_per_day"]
        if (threshold is None) != (number == len(band["steps"]) - 1) or (threshold is not None and threshold <= last):
            raise Failure(f"the steps of band {band['name']} do not rise to an open end")
        last = threshold or 0
    if not band["steps"]:
        raise Failure(f"band {band['name']} has no price")


def lines_of(bill: Any, tariff: Any, energy_wh: dict[int, int]) -> list[dict[str, Any]]:
    """The lines the bill should have."""
    week = week_of(tariff)
    offsets = bill["period"]["offsets"]
    sums = [[0, 0] for _ in tariff["bands"]]
    for slot, energy in energy_wh.items():
        local = slot + offset_at(offsets, slot)
        minute = (local // _DAY_S + _EPOCH_WEEKDAY) % WEEK_DAYS * DAY_MINUTES + local % _DAY_S // 60
        sums[week[minute]][0] += energy
        sums[week[minute]][1] += 1
    days = (day_of(bill["period"]["to"], "bill.period.to") - day_of(bill["period"]["from"], "bill.period.from")).days
    lines = [
        line
        for band, (energy, slots) in zip(tariff["bands"], sums, strict=True)
        for line in _band_lines(band, energy, slots, days)
    ]
    standing = tariff["standing_micro_per_day"]
    lines.append(
        {
            "kind": "standing",
            "days": days,
            "price_micro_per_day": standing,
            "amount_minor": half_up(days * standing, MICRO),
        }
    )
    subtotal = sum(line["amount_minor"] for line in lines)
    vat = half_up(subtotal * tariff["vat_basis_points"], 10_000)
    return [*lines, {"kind": "vat", "basis_points": tariff["vat_basis_points"], "amount_minor": vat}]


def _band_lines(band: Any, energy: int, slots: int, days: int) -> list[dict[str, Any]]:
    lines = []
    below = 0
    for number, step in enumerate(band["steps"]):
        ceiling = energy if step["up_to_wh_per_day"] is None else min(energy, step["up_to_wh_per_day"] * days)
        part, below = max(ceiling - below, 0), max(ceiling, below)
        if part > 0:
            price = step["price_micro_per_wh"]
            lines.append({
                "kind": "energy", "band": band["name"], "step": number, "energy_wh": part, "price_micro_per_wh": price,
                "amount_minor": half_up(part * price, MICRO), "slots": slots,
            })  # fmt: skip
    return lines


def half_up(amount: int, unit: int) -> int:
    """Rounded half up to whole units."""
    return (2 * amount + unit) // (2 * unit)


def require_lines(bill: Any, tariff: Any, energy_wh: dict[int, int]) -> str:
    """Raises Failure naming the first line that is not what the tariff makes of the readings."""
    expected = lines_of(bill, tariff, energy_wh)
    for number, (said, right) in enumerate(zip(bill["lines"], expected, strict=False)):
        if said != right:
            raise Failure(f"line {number} says {said}; the readings and the tariff make {right}")
    if len(bill["lines"]) != len(expected):
        raise Failure(f"the bill has {len(bill['lines'])} lines; the readings and the tariff make {len(expected)}")
    return f"{len(expected)} lines recomputed from {len(energy_wh)} slots"


def require_run(args: Any, bill: Any) -> None:
    """Raises Failure unless the run, as the ledger closed it, was for the bill's tariff and for a period that holds the bill's."""
    if args["tariff"] != {key: bill["tariff"][key] for key in ("id", "version")}:
        raise Failure("the billing run was for another tariff")
    start, _, end = args["period"].partition("/")
    first, last = day_of(start, "the run's period"), day_of(end, "the run's period")
    period = bill["period"]
    if not first <= day_of(period["from"], "bill.period.from") < day_of(period["to"], "bill.period.to") <= last:
        raise Failure(f"the billing run was for {args['period']}, the bill is for {period['from']}/{period['to']}")


def require_total(bill: Any) -> str:
    """Raises Failure unless subtotal, VAT and total are the sums of the lines."""
    amounts = [(str(line["kind"]), int(line["amount_minor"])) for line in bill["lines"]]
    subtotal = sum(amount for kind, amount in amounts if kind != "vat")
    vat = sum(amount for kind, amount in amounts if kind == "vat")
    said = (bill["subtotal_minor"], bill["vat_minor"], bill["total_minor"])
    if said != (subtotal, vat, subtotal + vat):
        raise Failure(f"the bill says subtotal, VAT, total {said}; its lines make {(subtotal, vat, subtotal + vat)}")
    return f"{bill['currency']} {bill['total_minor']} in minor units, {bill['vat_minor']} of it VAT"
