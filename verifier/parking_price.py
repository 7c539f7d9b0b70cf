"""The parking tariff and what it makes of a session's times (docs/PROOFS.md, "Parking tariff" and "Price of a session").

Called by the step `price`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from verifier.canonical import Failure, fields
from verifier.times import DAY_MINUTES, WEEK_DAYS, day_of, text_of, week_of, zone_of

FULL_PRICE = 10_000
"""Basis points of a whole price."""
STEPS_MAX = 50_000
"""Steps of one stay; more is no stay in a car park."""
_MINUTE_S = 60
_TARIFF = {
    "id": str, "version": int, "currency": str, "zone": str, "valid_from": str, "step_minutes": int, "bands": list,
    "cap_minor_per_day": int, "overstay_minor_per_step": int, "overstay_steps_max": int, "no_show_minor": int, "cancel_minor": int,
    "cancel_free_minutes": int, "grace_minutes": int, "hold_minutes": int, "vat_basis_points": int,
}  # fmt: skip
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Tariff:
    """A published tariff, ready to price with: `document` as published, the band of each minute of the week, the local clock."""

    document: Any
    week: Sequence[int]
    zone: ZoneInfo

    @property
    def step_s(self) -> int:
        return int(self.document["step_minutes"]) * _MINUTE_S

    def local(self, time: int) -> datetime:
        return datetime.fromtimestamp(time, UTC).astimezone(self.zone)


def read_tariff(document: Any) -> Tariff:
    """The tariff of a published document.

    Raises:
        Failure: a field is missing, unknown or impossible, or a minute of the week has no price or two.
    """
    fields(document, "the tariff", **_TARIFF)
    for name, kind in _TARIFF.items():
        if kind is int and document[name] < (1 if name in ("version", "step_minutes") else 0):
            raise Failure(f"the tariff's {name} cannot be {document[name]}")
    for band in document["bands"]:
        fields(band, "a band", name=str, windows=list, price_minor_per_step=int)
        if band["price_minor_per_step"] < 0:
            raise Failure(f"the tariff's band {band['name']} has a negative price")
    if len({band["name"] for band in document["bands"]}) != len(document["bands"]):
        raise Failure("two bands of the tariff have one name")
    return Tariff(document, week_of(document["bands"]), zone_of(document["zone"]))


def require_valid(tariff: Tariff, from_time: int) -> None:
    """Raises Failure unless the tariff was valid on the local day the stay begins."""
    begins, valid = tariff.local(from_time).date(), day_of(tariff.document["valid_from"], "the tariff's valid_from")
    if valid > begins:
        raise Failure(f"the tariff is valid from {valid} only; the stay begins on {begins}")


def line(kind: str, amount_minor: int, *, date: str = "", band: str = "", steps: int = 0) -> dict[str, Any]:  # noqa: A002, RUF100 - the field's name
    return {"kind": kind, "date": date, "band": band, "steps": steps, "amount_minor": amount_minor}


def total(lines: Lines) -> int:
    return sum(int(item["amount_minor"]) for item in lines)


def quote_lines(tariff: Tariff, from_time: int, to_time: int, permit_basis_points: int) -> Lines:
    """Lines 1 to 3: the stay, what is over a day's cap, a permit."""
    lines = _stay(tariff, from_time, to_time)
    lines += _caps(tariff, lines)
    return lines + _permit(total(lines), permit_basis_points)


def _stay(tariff: Tariff, from_time: int, to_time: int) -> Lines:
    if (to_time - from_time) // tariff.step_s > STEPS_MAX:
        raise Failure(f"a stay from {text_of(from_time)} to {text_of(to_time)} has more than {STEPS_MAX} steps")
    steps: Counter[tuple[date, int]] = Counter()
    for start in range(from_time, to_time, tariff.step_s):
        local = tariff.local(start)
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        steps[local.date(), tariff.week[minute % (WEEK_DAYS * DAY_MINUTES)]] += 1
    bands = tariff.document["bands"]
    return [
        line(
            "stay",
            count * bands[band]["price_minor_per_step"],
            date=day.isoformat(),
            band=bands[band]["name"],
            steps=count,
        )
        for (day, band), count in sorted(steps.items())
    ]


def _caps(tariff: Tariff, stay: Lines) -> Lines:
    cap = tariff.document["cap_minor_per_day"]
    days: dict[str, int] = {}
    for item in stay:
        days[item["date"]] = days.get(item["date"], 0) + item["amount_minor"]
    return [line("cap", cap - amount, date=day) for day, amount in sorted(days.items()) if cap and amount > cap]


def _permit(amount: int, basis_points: int) -> Lines:
    if basis_points >= FULL_PRICE:
        return []
    less = (2 * amount * basis_points + FULL_PRICE) // (2 * FULL_PRICE) - amount
    return [line("permit", less)] if less else []


def overstay_lines(tariff: Tariff, to_time: int, exit_time: int) -> Lines:
    """Line 4: the steps begun after the time paid for and the grace."""
    document = tariff.document
    over = exit_time - to_time - document["grace_minutes"] * _MINUTE_S
    steps = min(max(-(-over // tariff.step_s), 0), document["overstay_steps_max"])
    return [line("overstay", steps * document["overstay_minor_per_step"], steps=steps)] if steps else []


def no_show_lines(tariff: Tariff, quote_minor: int) -> Lines:
    return [line("no-show", min(tariff.document["no_show_minor"], quote_minor))]


def cancelled_lines(tariff: Tariff, quote_minor: int, from_time: int, time: int, *, was_held: bool) -> Lines:
    """None where it was only held, or cancelled early enough to be free."""
    if was_held or time <= from_time - tariff.document["cancel_free_minutes"] * _MINUTE_S:
        return []
    return [line("cancelled", min(tariff.document["cancel_minor"], quote_minor))]
