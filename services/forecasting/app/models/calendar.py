"""Public holidays, found in the data: of the calendars of many countries the one on whose holidays the series left their week the most.

A backtest of somebody's file, or a city, need not say where it lies; a file without a trace of holidays gets none.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from services.forecasting.app.panel import Floats, Panel
from services.forecasting.domain.grid import DAY_S

COUNTRIES = (
    ("US", None), ("CA", "ON"), ("MX", None), ("BR", None), ("GB", "ENG"), ("GB", "SCT"), ("IE", None), ("FR", None), ("BE", None),
    ("NL", None), ("DE", "BE"), ("DE", "BY"), ("DE", "NW"), ("DE", "HH"), ("AT", None), ("CH", "ZH"), ("IT", None), ("ES", None),
    ("ES", "AN"), ("ES", "MD"), ("ES", "CT"), ("PT", None), ("PL", None), ("CZ", None), ("DK", None), ("SE", None), ("NO", None),
    ("FI", None), ("GR", None), ("TR", None), ("AU", "NSW"), ("AU", "VIC"), ("AU", "QLD"), ("NZ", None), ("JP", None), ("KR", None),
    ("IN", "KA"), ("ZA", None),
)  # fmt: skip
"""Country and subdivision."""
WEEK_DAYS = 7
_LAGS = (7, 14, 21, 28)
_SCORE_MIN = 3.5
_HOLIDAYS_MIN = 4
_CLIP = 8.0
_APART_DAYS = 60
"""Less than this apart, two days of one name are one holiday."""
_THURSDAY = 3  # of 1970-01-01
_SATURDAY = 5
NONE, HOLIDAY, BEFORE, AFTER = 0, 1, 2, 3
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Days:
    """The holidays of some days.

    Attributes:
        country, subdivision: whose.
        first: number of day 0 (days since 1970).
        kinds: shape (D,): NONE, HOLIDAY, BEFORE or AFTER.
        previous: shape (D,): how many days ago the same holiday, or the day before or after it, was; 0 where never.
    """

    country: str
    subdivision: str | None
    first: int
    kinds: Ints
    previous: Ints


def holidays_of(panel: Panel, end: int, ahead: int) -> Days | None:
    """The holidays that show in the columns before `end`, for the days of the panel up to `ahead` columns after; None where none show."""
    day = DAY_S // panel.grid.freq_s
    if day < 1 or day * panel.grid.freq_s != DAY_S or panel.grid.season % (WEEK_DAYS * day):
        return None
    first = panel.first // day
    scores = _surprises(_daily(panel, end, day))
    count = -(-(end + ahead + panel.first % day) // day) + 1
    best, score = None, _SCORE_MIN
    for country, subdivision in COUNTRIES:
        names = _names(country, subdivision, first, count)
        fit = _fit(scores, first, names)
        if fit > score:
            best, score = _days(country, subdivision, first, count, names), fit
    return best


def _daily(panel: Panel, end: int, day: int) -> Floats:
    """Shape (S, days): mean of each day, NaN where less than half of it was seen."""
    lead = panel.first % day
    values = np.full((len(panel.names), -(-(lead + end) // day) * day), np.nan)
    values[:, lead : lead + end] = panel.values[:, :end]
    by_day = values.reshape(len(values), -1, day)
    seen = np.logical_not(np.isnan(by_day)).sum(axis=2)
    usual = np.median(seen[seen > 0]) if (seen > 0).any() else 1
    total: Floats = np.nansum(by_day, axis=2) / np.maximum(seen, 1)
    return np.where(seen * 2 >= usual, total, np.nan)


def _surprises(daily: Floats) -> Floats:
    """Shape (S, days): how far each day lies from the same weekday of the four weeks before, in robust standard deviations."""
    lagged = np.full((len(_LAGS), *daily.shape), np.nan)
    for number, lag in enumerate(_LAGS):
        lagged[number, :, lag:] = daily[:, : max(0, daily.shape[1] - lag)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # days without any history are NaN, as wanted
        off = daily - np.nanmedian(lagged, axis=0)
        spread = 1.4826 * np.nanmedian(np.abs(off), axis=1)
    spread = np.where(spread > 0, spread, np.nan)
    found: Floats = np.clip(off / spread[:, None], -_CLIP, _CLIP)
    return found


def _names(country: str, subdivision: str | None, first: int, count: int) -> dict[int, str]:
    """Holiday by day, counted from `first`."""
    import holidays  # noqa: PLC0415 - half a second, and only training asks

    start = datetime.fromtimestamp(first * DAY_S, UTC).date()
    years = range(start.year, (start + timedelta(days=count)).year + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some calendars do not reach that far back
        listed = holidays.country_holidays(country, subdiv=subdivision, years=years)
    numbered = {(date - start).days: name for date, name in listed.items()}
    return {day: name for day, name in numbered.items() if 0 <= day < count}


def weekdays(first: int, count: int) -> Ints:
    """0 Monday to 6 Sunday of `count` days from `first` (days since 1970) on."""
    found: Ints = (first + np.arange(count) + _THURSDAY) % WEEK_DAYS
    return found


def _fit(surprises: Floats, first: int, names: dict[int, str]) -> float:
    """How much more the series leave their week on these days than on others, up or down: the t statistic of all series' sizes together."""
    weekday = weekdays(first, surprises.shape[1])
    seen = np.logical_not(np.isnan(surprises))
    size = np.nansum(np.abs(surprises), axis=0) / np.maximum(seen.sum(axis=0), 1)
    known = seen.any(axis=0) & (weekday <= _SATURDAY)
    chosen = np.zeros(len(size), dtype=bool)
    chosen[[day for day in names if day < len(size)]] = True
    on, off = size[known & chosen], size[known & np.logical_not(chosen)]
    if len(on) < _HOLIDAYS_MIN or len(off) < _HOLIDAYS_MIN:
        return 0.0
    return float((on.mean() - off.mean()) * np.sqrt(len(on)) / (off.std() + 1e-9))


def _days(country: str, subdivision: str | None, first: int, count: int, names: dict[int, str]) -> Days:
    labels: dict[int, tuple[int, str]] = {}
    for kind, shift in (
        (BEFORE, -1),
        (AFTER, 1),
        (HOLIDAY, 0),
    ):  # a holiday is a holiday even on the day before another
        labels.update({day + shift: (kind, name) for day, name in names.items()})
    kinds, previous = np.zeros(count, np.int64), np.zeros(count, np.int64)
    last: dict[tuple[int, str], int] = {}
    for day in sorted(day for day in labels if 0 <= day < count):
        label = labels[day]
        kinds[day] = label[0]
        if label in last and day - last[label] >= _APART_DAYS:
            previous[day] = day - last[label]
        if label not in last or day - last[label] >= _APART_DAYS:
            last[label] = day
    return Days(country, subdivision, first, kinds, previous)
