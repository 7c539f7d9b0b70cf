"""Bills: recomputed another way, sums that hold whatever the readings, and estimates that only look at what was measured."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from citykit import canonical
from services.metering.app.zones import period_of, zone_offsets
from services.metering.domain.billing import half_up, make_bill, priced
from services.metering.domain.errors import NotBillable
from services.metering.domain.estimation import Estimator
from services.metering.domain.slots import SLOT_S, Offsets, weekday_minute
from services.metering.domain.tariff import parse_tariff
from tests.unit.metering.homes import bill_input, tariff

ZONES = ("Europe/London", "America/New_York", "Asia/Kolkata", "UTC", "Australia/Lord_Howe")
prices = st.integers(0, 50_000)


@st.composite
def tariffs(draw: st.DrawFn) -> dict[str, Any]:
    edge = 30 * draw(st.integers(1, 47))
    days = list(range(7))
    split = draw(st.integers(0, 7))
    limits = sorted(set(draw(st.lists(st.integers(1, 30_000), max_size=3))))
    steps = [{"up_to_wh_per_day": limit, "price_micro_per_wh": draw(prices)} for limit in [*limits, None]]
    early = [{"days": days, "from_minute": 0, "to_minute": edge}]
    late = [{"days": part, "from_minute": edge, "to_minute": 1_440} for part in (days[:split], days[split:]) if part]
    flat = [{"up_to_wh_per_day": None, "price_micro_per_wh": draw(prices)}]
    return tariff(
        bands=[{"name": "early", "windows": early, "steps": flat}, {"name": "late", "windows": late, "steps": steps}],
        standing_micro_per_day=draw(st.integers(0, 10**8)),
        vat_basis_points=draw(st.integers(0, 10_000)),
    )


@st.composite
def periods(draw: st.DrawFn) -> Any:
    start = date(2016, 1, 1) + timedelta(days=draw(st.integers(0, 400)))
    zone = draw(st.sampled_from(ZONES[:4]))
    return period_of(zone, start, start + timedelta(days=draw(st.integers(1, 35))))


def by_hand(document: dict[str, Any], zone: str, energy: dict[int, int], days: int) -> int:
    """The total in exact fractions, from the document alone and with the time zone database."""
    bands: dict[int, int] = {}
    for slot, wh in energy.items():
        local = datetime.fromtimestamp(slot, ZoneInfo(zone))
        minute = local.hour * 60 + local.minute
        index = next(
            n
            for n, band in enumerate(document["bands"])
            for w in band["windows"]
            if local.weekday() in w["days"] and w["from_minute"] <= minute < w["to_minute"]
        )
        bands[index] = bands.get(index, 0) + wh
    amounts = [rounded(Fraction(days * document["standing_micro_per_day"], 10**6))]
    for index, wh in bands.items():
        below = 0
        for step in document["bands"][index]["steps"]:
            limit = wh if step["up_to_wh_per_day"] is None else min(wh, step["up_to_wh_per_day"] * days)
            amounts.append(rounded(Fraction((limit - below) * step["price_micro_per_wh"], 10**6)))
            below = limit
    return sum(amounts) + rounded(Fraction(sum(amounts) * document["vat_basis_points"], 10_000))


def rounded(amount: Fraction) -> int:
    return int((amount + Fraction(1, 2)) // 1)


@settings(max_examples=40, deadline=None)
@given(tariffs(), periods(), st.randoms(use_true_random=False))
def test_a_bill_recomputed_by_hand_has_the_same_total(document: dict[str, Any], period: Any, dice: Any) -> None:
    energy = {slot: dice.randrange(4_000) for slot in period.slots}
    found = priced(parse_tariff(document), period, energy)
    assert found["total_minor"] == by_hand(document, period.zone, energy, period.days)
    lines = found["lines"]
    assert sum(line["energy_wh"] for line in lines if line["kind"] == "energy") == sum(energy.values())
    assert found["subtotal_minor"] == sum(line["amount_minor"] for line in lines if line["kind"] != "vat")
    assert found["total_minor"] == found["subtotal_minor"] + found["vat_minor"]


@settings(max_examples=40, deadline=None)
@given(periods(), st.randoms(use_true_random=False), st.integers(0, 100))
def test_every_slot_is_measured_or_estimated_once(period: Any, dice: Any, percent: int) -> None:
    measured = {slot: dice.randrange(2_000) for slot in period.slots if dice.randrange(100) >= percent}
    try:
        bill = make_bill(bill_input(period, measured), parse_tariff(tariff()))
    except NotBillable:
        assert len(measured) < len(period.slots)
        return
    estimated = {item["slot"] for item in bill["estimated"]}
    assert estimated | measured.keys() == set(period.slots)
    assert not estimated & measured.keys()
    assert (bill["measured"], bill["slots"]) == (len(measured), len(period.slots))
    assert canonical.decode(canonical.encode(bill)) == bill


@given(st.integers(0, 10**15), st.integers(1, 10**7))
def test_half_up_is_exact(numerator: int, denominator: int) -> None:
    assert half_up(numerator, denominator) == rounded(Fraction(numerator, denominator))


@given(
    st.dictionaries(st.integers(0, 3_000).map(lambda n: n * SLOT_S), st.integers(0, 5_000), max_size=80),
    st.integers(0, 3_000),
)
def test_an_estimate_lies_between_measured_values_and_is_repeatable(measured: dict[int, int], number: int) -> None:
    slot = number * SLOT_S
    known = {time: wh for time, wh in measured.items() if time != slot}
    found = Estimator(known, Offsets(((0, 0),))).estimate(slot)
    assert found == Estimator(dict(reversed(known.items())), Offsets(((0, 0),))).estimate(slot)
    if found is not None:
        assert min(known.values()) <= found <= max(known.values())
    else:
        assert all(abs(time - slot) > 7 * 86_400 for time in known)


@given(st.sampled_from(ZONES), st.integers(946_684_800, 4_102_444_800 - 1))
def test_offsets_agree_with_the_time_zone_database(zone: str, time: int) -> None:
    local = datetime.fromtimestamp(time, ZoneInfo(zone))
    offset = local.utcoffset()
    assert offset is not None
    assert zone_offsets(zone).at(time) == offset.total_seconds()
    assert weekday_minute(zone_offsets(zone).local(time)) == (local.weekday(), local.hour * 60 + local.minute)
