"""Tariffs: time-of-use bands, steps, standing charge, VAT. Validated by the `tariffs` contract, used by billing. docs/PROOFS.md, "Tariff"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.metering.domain.errors import RuleBroken, TariffInvalid
from services.metering.domain.slots import parse_day

ESTIMATION = "profile-v1"
MINUTES_PER_DAY = 1_440
BANDS_MAX, WINDOWS_MAX, STEPS_MAX = 24, 100, 10
PRICE_MAX = 10**9
CURRENCY_LETTERS = 3
_KEYS = (
    "id", "version", "currency", "zone", "valid_from", "bands", "standing_micro_per_day", "vat_basis_points",
    "estimation", "contact", "dispute_days",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A price up to a threshold. `up_to_wh_per_day` None: without end."""

    up_to_wh_per_day: int | None
    price_micro_per_wh: int


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes [from_minute, to_minute) of the weekdays `days` (0 is Monday)."""

    days: tuple[int, ...]
    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True)
class Band:
    name: str
    windows: tuple[Window, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Tariff:
    """A validated tariff. `week` gives the band's index for each weekday and minute."""

    id: str
    version: int
    currency: str
    zone: str
    valid_from: str
    bands: tuple[Band, ...]
    standing_micro_per_day: int
    vat_basis_points: int
    dispute_days: int
    week: tuple[int, ...] = field(repr=False)

    def band_at(self, weekday: int, minute: int) -> int:
        """Index of the band that holds this minute."""
        return self.week[weekday * MINUTES_PER_DAY + minute]


def parse_tariff(document: Any) -> Tariff:
    """Validates the tariff document.

    Raises:
        TariffInvalid: names the field and what is allowed.
    """
    top = _object(document, "tariff", _KEYS)
    bands = tuple(_band(item, f"bands[{i}]") for i, item in enumerate(_list(top["bands"], "bands", BANDS_MAX)))
    _require(_distinct([band.name for band in bands]), "names of bands must differ", "bands")
    _require(top["estimation"] == ESTIMATION, f"the only method is {ESTIMATION!r}", "estimation")
    _require(isinstance(top["contact"], dict), "must be an object with the ways to reach us", "contact")
    currency = _text(top["currency"], "currency", CURRENCY_LETTERS)
    _require(
        len(currency) == CURRENCY_LETTERS and currency.isalpha() and currency.isupper(),
        "must be an ISO 4217 code",
        "currency",
    )
    return Tariff(
        id=_identifier(top["id"], "id"),
        version=_integer(top["version"], "version", 1, 10**6),
        currency=currency,
        zone=_text(top["zone"], "zone", 64),
        valid_from=_day(top["valid_from"]),
        bands=bands,
        standing_micro_per_day=_integer(top["standing_micro_per_day"], "standing_micro_per_day", 0, 10**12),
        vat_basis_points=_integer(top["vat_basis_points"], "vat_basis_points", 0, 10_000),
        dispute_days=_integer(top["dispute_days"], "dispute_days", 0, 3_650),
        week=_week(bands),
    )


def _band(value: Any, at: str) -> Band:
    item = _object(value, at, ("name", "windows", "steps"))
    windows = [
        _window(w, f"{at}.windows[{i}]") for i, w in enumerate(_list(item["windows"], f"{at}.windows", WINDOWS_MAX))
    ]
    steps = tuple(_step(s, f"{at}.steps[{i}]") for i, s in enumerate(_list(item["steps"], f"{at}.steps", STEPS_MAX)))
    _require(steps[-1].up_to_wh_per_day is None, "the last step has up_to_wh_per_day null", f"{at}.steps")
    limits = [step.up_to_wh_per_day for step in steps[:-1]]
    known = [limit for limit in limits if limit is not None]
    _require(len(known) == len(limits), "only the last step has up_to_wh_per_day null", f"{at}.steps")
    _require(known == sorted(known) and _distinct(known), "up_to_wh_per_day must grow from step to step", f"{at}.steps")
    return Band(_identifier(item["name"], f"{at}.name"), tuple(windows), steps)


def _window(value: Any, at: str) -> Window:
    item = _object(value, at, ("days", "from_minute", "to_minute"))
    days = tuple(_integer(d, f"{at}.days", 0, 6) for d in _list(item["days"], f"{at}.days", 7))
    _require(_distinct(days), "a day is named once", f"{at}.days")
    start = _integer(item["from_minute"], f"{at}.from_minute", 0, MINUTES_PER_DAY - 1)
    return Window(days, start, _integer(item["to_minute"], f"{at}.to_minute", start + 1, MINUTES_PER_DAY))


def _step(value: Any, at: str) -> Step:
    item = _object(value, at, ("up_to_wh_per_day", "price_micro_per_wh"))
    limit = item["up_to_wh_per_day"]
    if limit is not None:
        limit = _integer(limit, f"{at}.up_to_wh_per_day", 1, PRICE_MAX)
    return Step(limit, _integer(item["price_micro_per_wh"], f"{at}.price_micro_per_wh", 0, PRICE_MAX))


def _week(bands: tuple[Band, ...]) -> tuple[int, ...]:
    minutes = [-1] * (7 * MINUTES_PER_DAY)
    for index, band in enumerate(bands):
        for window in band.windows:
            for day in window.days:
                _claim(minutes, index, day, window, bands)
    if -1 in minutes:
        day, minute = divmod(minutes.index(-1), MINUTES_PER_DAY)
        raise TariffInvalid(
            f"minute {minute} of day {day} (0 is Monday) belongs to no band; every minute needs one", field="bands"
        )
    return tuple(minutes)


def _claim(minutes: list[int], index: int, day: int, window: Window, bands: tuple[Band, ...]) -> None:
    start, end = day * MINUTES_PER_DAY + window.from_minute, day * MINUTES_PER_DAY + window.to_minute
    taken = [position for position in range(start, end) if minutes[position] != -1]
    if taken:
        raise TariffInvalid(
            f"minute {taken[0] % MINUTES_PER_DAY} of day {day} (0 is Monday) is in the bands"
            f" {bands[minutes[taken[0]]].name!r} and {bands[index].name!r}; every minute belongs to exactly one",
            field="bands",
        )
    minutes[start:end] = [index] * (end - start)


def _distinct(values: Sequence[Any]) -> bool:
    return len(dict.fromkeys(values)) == len(values)


def _object(value: Any, at: str, keys: Sequence[str]) -> Mapping[str, Any]:
    _require(isinstance(value, dict), "must be an object", at)
    missing, unknown = [key for key in keys if key not in value], sorted(str(key) for key in value if key not in keys)
    _require(not missing, f"lacks {', '.join(missing)}", at)
    _require(not unknown, f"has unknown fields {', '.join(unknown)}", at)
    found: Mapping[str, Any] = value
    return found


def _list(value: Any, at: str, most: int) -> list[Any]:
    _require(isinstance(value, list) and 0 < len(value) <= most, f"must be a list of 1 to {most}", at)
    items: list[Any] = value
    return items


def _integer(value: Any, at: str, low: int, high: int) -> int:
    _require(type(value) is int and low <= value <= high, f"must be an integer from {low} to {high}", at)
    return int(value)


def _text(value: Any, at: str, most: int) -> str:
    _require(isinstance(value, str) and 0 < len(value) <= most, f"must be text of 1 to {most} characters", at)
    return str(value)


def _identifier(value: Any, at: str) -> str:
    text = _text(value, at, 64)
    allowed = all(char.isdigit() or char == "-" or "a" <= char <= "z" for char in text) and text.isascii()
    _require(allowed, "may hold a-z, 0-9 and hyphens", at)
    return text


def _day(value: Any) -> str:
    text = _text(value, "valid_from", 10)
    try:
        return parse_day(text, "valid_from").isoformat()
    except RuleBroken as error:
        raise TariffInvalid(str(error)) from None


def _require(holds: bool, message: str, at: str) -> None:
    if not holds:
        raise TariffInvalid(message, field=at)
