"""A tariff, periods and bill inputs for the tests of this folder and the property tests."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

from services.metering.app.zones import period_of, zone_offsets
from services.metering.domain.billing import BillInput, Gap
from services.metering.domain.slots import Period

TARIFF: dict[str, Any] = {
    "id": "homes-2016",
    "version": 1,
    "currency": "GBP",
    "zone": "Europe/London",
    "valid_from": "2016-10-01",
    "bands": [
        {
            "name": "night",
            "windows": [{"days": [0, 1, 2, 3, 4, 5, 6], "from_minute": 0, "to_minute": 420}],
            "steps": [{"up_to_wh_per_day": None, "price_micro_per_wh": 7_190}],
        },
        {
            "name": "day",
            "windows": [
                {"days": [0, 1, 2, 3, 4], "from_minute": 420, "to_minute": 1_440},
                {"days": [5, 6], "from_minute": 420, "to_minute": 1_440},
            ],
            "steps": [
                {"up_to_wh_per_day": 8_000, "price_micro_per_wh": 14_370},
                {"up_to_wh_per_day": None, "price_micro_per_wh": 16_020},
            ],
        },
    ],
    "standing_micro_per_day": 24_560_000,
    "vat_basis_points": 500,
    "estimation": "profile-v1",
    "contact": {"phone": "0800 000 000"},
    "dispute_days": 28,
}


def tariff(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TARIFF), **changes}


def october() -> Period:
    """The demo's first bill: 31 days with the clock change of 30 October 2016 in it."""
    return period_of("Europe/London", date(2016, 10, 4), date(2016, 11, 4))


def bill_input(period: Period, measured: dict[int, int], held: dict[int, str] | None = None) -> BillInput:
    return BillInput(
        id="bill-2016-10-04-0011223344556677",
        meter_point="mp-0001",
        devices=("meter-0001",),
        period=period,
        offsets=zone_offsets(period.zone),
        tariff_transaction="ab" * 32,
        measured=measured,
        held=held or {},
        gaps=(Gap(3, 5),),
        corrects=None,
        issued="2016-11-08T00:00:00Z",
        issued_day=date(2016, 11, 8),
    )
