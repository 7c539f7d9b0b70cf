"""Tariffs and times for parking's tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from services.parking.domain.tariff import Tariff, parse_tariff

ALL_DAYS = [0, 1, 2, 3, 4, 5, 6]


def tariff(**changes: Any) -> dict[str, Any]:
    """Days at 60 and nights at 20 for each half hour, 900 a day at most."""
    return {
        "id": "bays", "version": 1, "currency": "GBP", "zone": "Europe/London", "valid_from": "2016-10-01", "step_minutes": 30,
        "bands": [band("day", 60, 480, 1_080), {**band("night", 20, 0, 480), "windows": [window(0, 480), window(1_080, 1_440)]}],
        "cap_minor_per_day": 900, "overstay_minor_per_step": 150, "overstay_steps_max": 8, "no_show_minor": 200,
        "cancel_minor": 100, "cancel_free_minutes": 60, "grace_minutes": 10, "hold_minutes": 10, "vat_basis_points": 2_000,
        **changes,
    }  # fmt: skip


def free_tariff(**changes: Any) -> dict[str, Any]:
    """Nothing costs anything."""
    return tariff(
        bands=[band("all", 0, 0, 1_440)], overstay_minor_per_step=0, no_show_minor=0, cancel_minor=0, **changes
    )


def band(name: str, price: int, from_minute: int, to_minute: int) -> dict[str, Any]:
    return {"name": name, "price_minor_per_step": price, "windows": [window(from_minute, to_minute)]}


def window(from_minute: int, to_minute: int, days: list[int] | None = None) -> dict[str, Any]:
    return {"days": ALL_DAYS if days is None else days, "from_minute": from_minute, "to_minute": to_minute}


def parsed(**changes: Any) -> Tariff:
    return parse_tariff(tariff(**changes))


def at(text: str, zone: str = "Europe/London") -> int:
    """Unix seconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())
