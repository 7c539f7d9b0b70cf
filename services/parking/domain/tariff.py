"""Published parking tariffs: every minute of the week has one band with a price per started step; a day is capped. docs/PROOFS.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from services.parking.domain.errors import TariffInvalid

WEEK_MINUTES = 7 * 1_440
DAY_MINUTES = 1_440
WEEK_DAYS, BANDS_MAX = 7, 50
_NO_BAND = 255
AMOUNT_MAX = 10_000_000
_NUMBERS = {
    "cap_minor_per_day": (0, AMOUNT_MAX),
    "overstay_minor_per_step": (0, AMOUNT_MAX),
    "overstay_steps_max": (0, 96),
    "no_show_minor": (0, AMOUNT_MAX),
    "cancel_minor": (0, AMOUNT_MAX),
    "cancel_free_minutes": (0, DAY_MINUTES),
    "grace_minutes": (0, 120),
    "hold_minutes": (1, 60),
    "step_minutes": (1, DAY_MINUTES),
    "vat_basis_points": (0, 10_000),
    "version": (1, 1_000_000),
}
_FIELDS = sorted([*_NUMBERS, "id", "currency", "zone", "valid_from", "bands"])
_CURRENCY_LETTERS = 3
_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class Band:
    """Part of the week with one price per started step."""

    name: str
    price_minor_per_step: int


@dataclass(frozen=True, slots=True)
class Tariff:
    """A tariff version; `week` names the band of each local minute of the week by its number in `bands`."""

    id: str
    version: int
    currency: str
    zone: str
    valid_from: str
    bands: tuple[Band, ...]
    week: bytes
    step_minutes: int
    cap_minor_per_day: int
    overstay_minor_per_step: int
    overstay_steps_max: int
    no_show_minor: int
    cancel_minor: int
    cancel_free_minutes: int
    grace_minutes: int
    hold_minutes: int
    vat_basis_points: int

    @property
    def overstay_max_minor(self) -> int:
        """The most an overstay costs: held back beside the quote when a reservation is confirmed."""
        return self.overstay_minor_per_step * self.overstay_steps_max


def parse_tariff(document: dict[str, Any]) -> Tariff:
    """The tariff of a document.

    Raises:
        TariffInvalid: an unknown or missing field, a number out of range, a minute of the week in no band or in two.
    """
    if sorted(document) != _FIELDS:
        raise TariffInvalid(f"a tariff has exactly the fields {', '.join(_FIELDS)}", "tariff_json")
    for name, (low, high) in _NUMBERS.items():
        if not _is_int(document[name]) or not low <= document[name] <= high:
            raise TariffInvalid(f"{name} is an integer from {low} to {high}", name)
    _require_names(document)
    bands = document["bands"]
    if (
        not isinstance(bands, list)
        or not 0 < len(bands) <= BANDS_MAX
        or not all(isinstance(band, dict) for band in bands)
    ):
        raise TariffInvalid(f"bands is a list of 1 to {BANDS_MAX} bands", "bands")
    return Tariff(
        id=document["id"],
        currency=document["currency"],
        zone=document["zone"],
        valid_from=document["valid_from"],
        bands=tuple(map(_band, bands)),
        week=_week(bands),
        **{name: document[name] for name in _NUMBERS},
    )


def _require_names(document: dict[str, Any]) -> None:
    texts = [document[name] for name in ("id", "currency", "zone", "valid_from")]
    if not all(isinstance(text, str) and 0 < len(text) <= _ID_MAX for text in texts):
        raise TariffInvalid("id, currency, zone and valid_from are texts of 1 to 64 characters", "id")
    currency = document["currency"]
    if len(currency) != _CURRENCY_LETTERS or not (currency.isascii() and currency.isalpha() and currency.isupper()):
        raise TariffInvalid("currency is three capital letters (ISO 4217)", "currency")
    try:
        written = date.fromisoformat(document["valid_from"]).isoformat()
    except ValueError:
        written = ""
    if written != document["valid_from"]:
        raise TariffInvalid("valid_from is a date YYYY-MM-DD", "valid_from")


def _band(band: dict[str, Any]) -> Band:
    price: Any = band.get("price_minor_per_step")
    if sorted(band) != ["name", "price_minor_per_step", "windows"] or not isinstance(band["name"], str):
        raise TariffInvalid("a band has name, windows and price_minor_per_step", "bands")
    if not _is_int(price) or not 0 <= price <= AMOUNT_MAX:
        raise TariffInvalid(f"price_minor_per_step is an integer from 0 to {AMOUNT_MAX}", "bands")
    return Band(band["name"], price)


def _week(bands: list[dict[str, Any]]) -> bytes:
    week = bytearray([_NO_BAND]) * WEEK_MINUTES
    for number, band in enumerate(bands):
        for start, end in _spans(band["windows"]):
            taken = next((minute for minute in range(start, end) if week[minute] != _NO_BAND), None)
            if taken is not None:
                raise TariffInvalid(
                    f"{moment(taken)} is in two bands: {bands[week[taken]]['name']} and {band['name']}", "bands"
                )
            week[start:end] = bytes([number]) * (end - start)
    hole = week.find(_NO_BAND)
    if hole >= 0:
        raise TariffInvalid(f"{moment(hole)} is in no band; every minute of the week needs a price", "bands")
    return bytes(week)


def _spans(windows: Any) -> list[tuple[int, int]]:
    if not isinstance(windows, list):
        raise TariffInvalid("windows is a list", "bands")
    return [span for window in windows for span in _window(window)]


def _window(window: Any) -> list[tuple[int, int]]:
    if not isinstance(window, dict) or sorted(window) != ["days", "from_minute", "to_minute"]:
        raise TariffInvalid("a window has days, from_minute and to_minute", "bands")
    start, end, days = window["from_minute"], window["to_minute"], window["days"]
    good = _is_int(start) and _is_int(end) and 0 <= start < end <= DAY_MINUTES
    if not good or not isinstance(days, list) or not all(_is_int(day) and 0 <= day < WEEK_DAYS for day in days):
        raise TariffInvalid("days are 0 (Monday) to 6, from_minute is below to_minute, up to 1440", "bands")
    return [(day * DAY_MINUTES + start, day * DAY_MINUTES + end) for day in days]


def moment(minute: int) -> str:
    """`Monday 07:30` of a minute of the week."""
    day, rest = divmod(minute, DAY_MINUTES)
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"{names[day]} {rest // 60:02d}:{rest % 60:02d}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
