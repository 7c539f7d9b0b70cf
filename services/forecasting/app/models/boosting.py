"""One gradient-boosted model for all series (LightGBM), direct for each step ahead, learning the difference from the weekly profile.

Learning the raw value instead was measured to be worse than the seasonal naive: the profile carries what is regular, the model what deviates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from services.forecasting.app.models.calendar import HOLIDAY, WEEK_DAYS, Days, holidays_of, weekdays
from services.forecasting.app.models.seasonal import WEEKS, filled, measure_of, past_of, past_seasons, profile
from services.forecasting.app.models.simple import smoothing
from services.forecasting.app.panel import Floats, Panel

LEARNT_SEASONS = 30
LEARNT_SEASONS_DAILY = 156
"""Of slots of a day: holidays come once a year."""
ROWS_MAX = 120_000
ORIGINS_MAX = 250
TREES = 200
_YEAR_DAYS = (364, 365)
_SEED = 20_161_004
_PARAMETERS: dict[str, Any] = {
    "objective": "regression_l1",
    "learning_rate": 0.07,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "verbosity": -1,
    "seed": _SEED,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}
FEATURES = (
    "steps ahead",
    "time of day",
    "day of the season",
    "weekly profile",
    "share of capacity",
    "spread of the last weeks",
    "last week against the profile",
    "the week before against the profile",
    "smoothing against the profile",
    "newest value against the profile",
    "last two hours against the profile",
    "last six hours against the profile",
    "last day against the profile",
    "last week's level against the profile",
    "same time yesterday against the profile",
    "same time two days ago against the profile",
    "all series' last day against their profiles",
    "same weekday a year ago against its profile",
    "same date a year ago against its profile",
    "holiday, or the day before or after one",
    "same holiday before against its profile",
    "Sunday's profile against this day's, on a holiday",
)


@dataclass(frozen=True)
class Residuals:
    """What every origin's features are cut from: differences from the profile, and their running sums.

    Attributes:
        difference: shape (S, T).
        sums, counts: shape (S, T + 1), of the differences there are.
        scale: shape (S,): mean absolute difference; 1 where there is none.
        days: the holidays, where the series show any.
    """

    panel: Panel
    difference: Floats
    sums: Floats
    counts: Floats
    scale: Floats
    days: Days | None

    def mean(self, origin: int, slots: int) -> Floats:
        """Shape (S,): mean difference over the `slots` columns before `origin`, in scales; NaN where none was seen."""
        low = max(0, origin - slots)
        count = self.counts[:, origin] - self.counts[:, low]
        total = self.sums[:, origin] - self.sums[:, low]
        return np.where(count > 0, total / np.maximum(count, 1), np.nan) / self.scale

    def at(self, columns: Any) -> Floats:
        """Shape (S, len(columns)): differences in scales; NaN before the first column."""
        chosen = self.difference[:, np.clip(columns, 0, None)]
        return np.where(np.asarray(columns) >= 0, chosen, np.nan) / self.scale[:, None]

    def only(self, rows: Any) -> Residuals:
        """Of some of the series."""
        picked = (self.difference[rows], self.sums[rows], self.counts[rows], self.scale[rows])
        return Residuals(self.panel.only(rows), *picked, self.days)


def residuals(panel: Panel, end: int, days: Days | None) -> Residuals:
    """Of the columns before `end`; nothing later is looked at."""
    season = panel.grid.season
    values = np.where(np.arange(panel.length) < end, panel.values, np.nan)
    lagged = np.full((len(panel.names), WEEKS, panel.length), np.nan)
    for week in range(1, WEEKS + 1):
        lagged[:, week - 1, season * week :] = values[:, : max(0, panel.length - season * week)]
    difference = values - profile(lagged, measure_of(panel))
    seen = ~np.isnan(difference)
    known = np.where(seen, difference, 0.0)
    edge = np.zeros((len(panel.names), 1))
    sums = np.concatenate([edge, known.cumsum(axis=1)], axis=1)
    counts = np.concatenate([edge, seen.cumsum(axis=1)], axis=1)
    recent = slice(max(0, end - 12 * season), end)
    scale = np.abs(known[:, recent]).sum(axis=1) / np.maximum(seen[:, recent].sum(axis=1), 1)
    return Residuals(panel, difference, sums, counts, np.where(scale > 0, scale, 1.0), days)


@dataclass(frozen=True)
class Cut:
    """One origin's rows: features (S, H, F), and the profile (S, H) the answer is added to."""

    features: Floats
    base: Floats


def cut(past: Residuals, origin: int, horizon: int) -> Cut:
    """The features of every series and step at one origin, from columns before it only."""
    panel = past.panel
    seasons = past_seasons(panel, origin, horizon, WEEKS)
    base = filled(profile(seasons, measure_of(panel)), panel, origin)
    rows = [
        *_places(panel, origin, horizon),
        *_against_profile(past, seasons, base, origin),
        *_levels(past, origin),
        *_days_before(past, origin, horizon),
        *_holidays(past, base, origin),
    ]
    return Cut(np.stack([np.broadcast_to(row, base.shape) for row in rows], axis=2), base)


def _places(panel: Panel, origin: int, horizon: int) -> list[Any]:
    steps, day = np.arange(horizon), panel.grid.day
    place = (panel.first + origin + steps) % panel.grid.season
    return [steps, place % day, place // day]


def _against_profile(past: Residuals, seasons: Floats, base: Floats, origin: int) -> list[Floats]:
    panel, scale = past.panel, past.scale[:, None]
    return [
        base / scale,
        base / panel.limits(origin)[:, None],
        profile(seasons, np.nanstd) / scale,
        (seasons[:, 0] - base) / scale,
        (seasons[:, 1] - base) / scale,
        (smoothing(panel, origin, base.shape[1]) - base) / scale,
    ]


def _levels(past: Residuals, origin: int) -> list[Floats]:
    grid = past.panel.grid
    hour = max(1, 3_600 // grid.freq_s)
    spans = (1, 2 * hour, 6 * hour, grid.day, grid.season)
    return [past.mean(origin, slots)[:, None] for slots in spans]


def _days_before(past: Residuals, origin: int, horizon: int) -> list[Any]:
    """Yesterday, two days ago, all series' last day, and the days of a year ago."""
    day, targets = past.panel.grid.day, origin + np.arange(horizon)
    yesterday = targets - day * (1 + np.arange(horizon) // day)
    years = [past.at(targets - days * day) for days in _YEAR_DAYS]
    return [past.at(yesterday), past.at(yesterday - day), _mean(past.mean(origin, day)), *years]


def _holidays(past: Residuals, base: Floats, origin: int) -> list[Any]:
    """What kind of day it is, how the same holiday was before, and how Sundays are; not a number on ordinary days."""
    days, panel = past.days, past.panel
    if days is None:
        return []
    blank = np.full(base.shape, np.nan)
    targets = origin + np.arange(base.shape[1])
    at = (panel.first + targets) // panel.grid.day - days.first
    kinds, back = days.kinds[at], days.previous[at] * panel.grid.day
    if not kinds.any():
        return [kinds, blank, blank]
    before = past.at(np.where((back > 0) & (targets - back < origin), targets - back, -1))
    since = (weekdays(days.first, int(at[-1]) + 1)[at] + 1) % WEEK_DAYS
    sunday = profile(past_of(panel, origin, targets - since * panel.grid.day, WEEKS), measure_of(panel))
    return [kinds, before, np.where(kinds == HOLIDAY, (sunday - base) / past.scale[:, None], np.nan)]


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


@dataclass(frozen=True)
class Boosting:
    """A trained model. `days` are the holidays it knows."""

    booster: lightgbm.Booster
    days: Days | None

    def predict(self, panel: Panel, origin: int, horizon: int) -> Floats:
        """Shape (S, H)."""
        past = residuals(panel, origin, self.days)
        rows = cut(past, origin, horizon)
        raw = self.booster.predict(rows.features.reshape(-1, rows.features.shape[2]), num_threads=1)
        return rows.base + np.asarray(raw).reshape(rows.base.shape) * past.scale[:, None]

    def effects(self, panel: Panel, origin: int, horizon: int, step: int) -> list[tuple[str, float]]:
        """(input, how far it moved the first series' forecast at one step from the profile)."""
        past = residuals(panel, origin, self.days)
        row = cut(past, origin, horizon).features[0, step]
        found = np.asarray(self.booster.predict(row[None, :], pred_contrib=True))[0]
        return [(name, float(effect * past.scale[0])) for name, effect in zip(FEATURES, found[:-1], strict=False)]


def train(panel: Panel, end: int, horizon: int, until: int) -> Boosting | None:
    """Learns from the columns before `end`; None where no origin has both a history and a known future."""
    season = panel.grid.season
    learnt = LEARNT_SEASONS_DAILY if panel.grid.day == 1 else LEARNT_SEASONS
    first, last = max(2 * season, end - learnt * season), end - horizon
    if last <= first:
        return None
    days = holidays_of(panel, end, until + horizon)
    origins = np.unique(np.linspace(first, last, min(ORIGINS_MAX, max(8, last - first))).astype(int))
    data, targets = _rows(residuals(panel, end, days), origins, horizon)
    if len(data) < 10 * _PARAMETERS["min_data_in_leaf"]:
        return None
    return Boosting(lightgbm.train(_PARAMETERS, lightgbm.Dataset(data, targets), TREES), days)


def _rows(past: Residuals, origins: Any, horizon: int) -> tuple[Floats, Floats]:
    """(features, targets), about `ROWS_MAX` of those there are: of some series at each origin, and of some of their steps."""
    series = len(past.panel.names)
    share = min(1.0, ROWS_MAX / (len(origins) * series * horizon))
    some = max(1, min(series, round(series * 2 * share)))
    of_steps = min(1.0, share * series / some)
    random = np.random.default_rng(_SEED)
    inputs, targets = [], []
    for origin in origins:
        picked = past if some == series else past.only(np.sort(random.choice(series, some, replace=False)))
        rows = cut(picked, int(origin), horizon)
        target = (picked.panel.values[:, origin : origin + horizon] - rows.base) / picked.scale[:, None]
        chosen = ~np.isnan(target) & (random.random(target.shape) < of_steps)
        inputs.append(rows.features[chosen])
        targets.append(target[chosen])
    return np.concatenate(inputs), np.concatenate(targets)
