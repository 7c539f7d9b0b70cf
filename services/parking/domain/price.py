"""The price of a session, line by line, from the published tariff. The offline verifier computes the same from docs/PROOFS.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from services.parking.domain.errors import AmountInvalid
from services.parking.domain.tariff import DAY_MINUTES, Tariff

STAY, CAP, OVERSTAY, NO_SHOW, CANCELLED, PERMIT = "stay", "cap", "overstay", "no-show", "cancelled", "permit"
REFUND = "refund"
FULL_PRICE = 10_000
MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Line:
    """One line: local date and band of a stay, started steps, amount in minor units (negative where the cap takes off)."""

    kind: str
    date: str
    band: str
    steps: int
    amount_minor: int


def stay_lines(tariff: Tariff, from_time: int, to_time: int) -> list[Line]:
    """Started steps of [from, to), each at the price of the band its local start lies in; then what the day's cap takes off."""
    zone, step_s = ZoneInfo(tariff.zone), tariff.step_minutes * MINUTE_S
    counts: dict[tuple[str, int], int] = {}
    for start in range(from_time, to_time, step_s):
        local = datetime.fromtimestamp(start, UTC).astimezone(zone)
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        key = (local.date().isoformat(), tariff.week[minute])
        counts[key] = counts.get(key, 0) + 1
    lines = [
        Line(STAY, day, tariff.bands[band].name, steps, steps * tariff.bands[band].price_minor_per_step)
        for (day, band), steps in sorted(counts.items())
    ]
    return lines + _cap_lines(tariff, lines)


def _cap_lines(tariff: Tariff, lines: list[Line]) -> list[Line]:
    totals: dict[str, int] = {}
    for line in lines:
        totals[line.date] = totals.get(line.date, 0) + line.amount_minor
    over = {day: total - tariff.cap_minor_per_day for day, total in totals.items() if tariff.cap_minor_per_day}
    return [Line(CAP, day, "", 0, -much) for day, much in sorted(over.items()) if much > 0]


def overstay_lines(tariff: Tariff, to_time: int, exit_time: int) -> list[Line]:
    """Started steps after the reserved end and its grace, at most as many as the tariff says."""
    late_s = exit_time - to_time - tariff.grace_minutes * MINUTE_S
    steps = min(tariff.overstay_steps_max, max(0, -(-late_s // (tariff.step_minutes * MINUTE_S))))
    return [Line(OVERSTAY, "", "", steps, steps * tariff.overstay_minor_per_step)] if steps else []


def quote_lines(tariff: Tariff, from_time: int, to_time: int, permit_basis_points: int) -> list[Line]:
    """The reserved span and what a permit takes off it."""
    stay = stay_lines(tariff, from_time, to_time)
    return stay + _permit_lines(total(stay), permit_basis_points)


def session_lines(tariff: Tariff, from_time: int, to_time: int, exit_time: int, permit_basis_points: int) -> list[Line]:
    """The reserved span, the overstay, and what a permit takes off the span."""
    return quote_lines(tariff, from_time, to_time, permit_basis_points) + overstay_lines(tariff, to_time, exit_time)


def quote_minor(tariff: Tariff, from_time: int, to_time: int, permit_basis_points: int = FULL_PRICE) -> int:
    """What the reserved span costs."""
    return total(quote_lines(tariff, from_time, to_time, permit_basis_points))


def _permit_lines(amount: int, basis_points: int) -> list[Line]:
    """The permit leaves `basis_points` of the amount, half up."""
    left = (2 * amount * basis_points + FULL_PRICE) // (2 * FULL_PRICE)
    return [Line(PERMIT, "", "", 0, left - amount)] if left != amount else []


def no_show_lines(tariff: Tariff, quote: int) -> list[Line]:
    """The fee for not coming: never more than the quote."""
    return [Line(NO_SHOW, "", "", 0, min(tariff.no_show_minor, quote))]


def cancel_lines(tariff: Tariff, quote: int, from_time: int, now: int) -> list[Line]:
    """Nothing until `cancel_free_minutes` before the start; then the fee, never more than the quote."""
    free = now <= from_time - tariff.cancel_free_minutes * MINUTE_S
    return [] if free else [Line(CANCELLED, "", "", 0, min(tariff.cancel_minor, quote))]


def refund_line(amount_minor: int) -> Line:
    """What the city's billing desk gives back."""
    return Line(REFUND, "", "", 0, -amount_minor)


def shares(amount_minor: int, limits: list[int]) -> list[int]:
    """`amount_minor` over payments in order, each up to its limit.

    Raises:
        AmountInvalid: it is negative, or more than all of them hold.
    """
    if not 0 <= amount_minor <= sum(limits):
        raise AmountInvalid(f"an amount of 0 to {sum(limits)} can be taken, not {amount_minor}", "amount_minor")
    taken: list[int] = []
    for limit in limits:
        taken.append(min(limit, amount_minor - sum(taken)))
    return taken


def total(lines: list[Line]) -> int:
    return sum(line.amount_minor for line in lines)
