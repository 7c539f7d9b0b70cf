"""Sessions with their price worked out by hand: three tariffs, a capped day, the night the clocks go back, a permit that rounds half up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_WEEK, _WORK, _END = [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4], [5, 6]
_FLAT: dict[str, Any] = {
    "id": "bays-2016", "version": 1, "currency": "GBP", "zone": "Europe/London", "valid_from": "2016-10-01", "step_minutes": 30,
    "bands": [{"name": "day", "windows": [{"days": _WEEK, "from_minute": 0, "to_minute": 1_440}], "price_minor_per_step": 60}],
    "cap_minor_per_day": 900, "overstay_minor_per_step": 150, "overstay_steps_max": 8, "no_show_minor": 200, "cancel_minor": 100,
    "cancel_free_minutes": 60, "grace_minutes": 10, "hold_minutes": 10, "vat_basis_points": 2_000,
}  # fmt: skip
_NIGHTS = _FLAT | {
    "id": "nights-2016",
    "bands": [
        {"name": "day", "windows": [{"days": _WEEK, "from_minute": 420, "to_minute": 1_320}], "price_minor_per_step": 60},
        {"name": "night", "windows": [
            {"days": _WEEK, "from_minute": 0, "to_minute": 420}, {"days": _WEEK, "from_minute": 1_320, "to_minute": 1_440},
        ], "price_minor_per_step": 25},
    ],
}  # fmt: skip
_FREE_WEEKENDS = _FLAT | {
    "id": "work-2016", "zone": "Europe/Berlin", "currency": "EUR", "step_minutes": 20, "cap_minor_per_day": 0, "grace_minutes": 5,
    "overstay_minor_per_step": 40, "overstay_steps_max": 3,
    "bands": [
        {"name": "work", "windows": [{"days": _WORK, "from_minute": 0, "to_minute": 1_440}], "price_minor_per_step": 35},
        {"name": "weekend", "windows": [{"days": _END, "from_minute": 0, "to_minute": 1_440}], "price_minor_per_step": 0},
    ],
}  # fmt: skip


def _example(
    tariff: dict[str, Any], from_: str, to: str, exit_: str, permit_basis_points: int, total_minor: int
) -> dict[str, Any]:
    times = [int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in (from_, to, exit_)]
    return {
        "tariff": tariff, "from_time": times[0], "to_time": times[1], "exit_time": times[2], "permit_basis_points": permit_basis_points,
        "total_minor": total_minor,
    }  # fmt: skip


EXAMPLES = [
    # 6 steps of 60; 125 minutes over less 10 of grace are 4 steps of 150
    _example(_FLAT, "2016-10-26T09:00", "2016-10-26T12:00", "2016-10-26T14:05", 10_000, 360 + 600),
    # left within the grace
    _example(_FLAT, "2016-10-26T09:00", "2016-10-26T12:00", "2016-10-26T12:10", 10_000, 360),
    # 24 steps of 60 are capped at 900; never more than 8 steps of overstay
    _example(_FLAT, "2016-10-26T06:00", "2016-10-26T18:00", "2016-10-28T06:00", 10_000, 900 + 1_200),
    # Saturday, local 07:00 to 24:00: 30 x 60 + 4 x 25 = 1,900, capped at 900. Sunday has 25 hours: 16 x 25 before 07:00, 30 x 60 by day:
    # 2,200, capped at 900. The permit leaves 40 % of 1,800
    _example(_NIGHTS, "2016-10-29T06:00", "2016-10-30T22:00", "2016-10-30T22:10", 4_000, 720),
    # the hour from 01:00 to 02:00 local comes twice: 4 steps of 25
    _example(_NIGHTS, "2016-10-30T00:00", "2016-10-30T02:00", "2016-10-30T02:00", 10_000, 100),
    # Friday 23:00 to 24:00 local in Berlin: 3 x 35 = 105; Saturday is free. A third of it: 34.9965, half up 35. 7 minutes late: 1 step of 40
    _example(_FREE_WEEKENDS, "2016-10-28T21:00", "2016-10-29T00:10", "2016-10-29T00:22", 3_333, 35 + 40),
    # nothing left to pay: 105 x 0.0047 is 0.4935
    _example(_FREE_WEEKENDS, "2016-10-28T21:00", "2016-10-28T22:00", "2016-10-28T22:00", 47, 0),
    # 105 x 0.0048 is 0.504
    _example(_FREE_WEEKENDS, "2016-10-28T21:00", "2016-10-28T22:00", "2016-10-28T22:00", 48, 1),
]
