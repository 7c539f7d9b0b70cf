"""One gradient-boosted model for all series (LightGBM), direct for each step ahead, learning the difference from the weekly profile.

Learning the raw value instead was measured to be worse than the seasonal naive: the profile carries what is regular, the model what deviates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from services.forecasting.app.models.seasonal import WEEKS, filled, past_seasons, profile
from services.forecasting.app.models.simple import smoothing
from services.forecasting.app.panel import Floats, Panel

LEARNT_SEASONS = 30
ROWS_MAX = 120_000
ORIGINS_MAX = 400
TREES = 300
_YEAR_DAYS = (364, 365)
_SEED = 20_161_004
_PARAMETERS: dict[str, Any] = {
    "objective": "regression_l1",
    "learning_rate": 0.05,
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
    "num_threads": 2,
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
)


@dataclass(frozen=True)
class Residuals:
    """What every origin's features are cut from: differences from the profile, and their running sums.

    Attributes:
        difference: shape (S, T).
        sums, counts: shape (S, T + 1), of the differences there are.
        scale: shape (S,): mean absolute difference; 1 where there is none.
    """

    panel: Panel
    difference: Floats
    sums: Floats
    counts: Floats
    scale: Floats

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


def residuals(panel: Panel, end: int) -> Residuals:
    """Of the columns before `end`; nothing later is looked at."""
    season = panel.grid.season
    values = np.where(np.arange(panel.length) < end, panel.values, np.nan)
    lagged = np.full((len(panel.names), WEEKS, panel.length), np.nan)
    for week in range(1, WEEKS + 1):
        lagged[:, week - 1, season * week :] = values[:, : max(0, panel.length - season * week)]
    difference = values - profile(lagged)
    seen = ~np.isnan(difference)
    known = np.where(seen, difference, 0.0)
    edge = np.zeros((len(panel.names), 1))
    sums = np.concatenate([edge, known.cumsum(axis=1)], axis=1)
    counts = np.concatenate([edge, seen.cumsum(axis=1)], axis=1)
    recent = slice(max(0, end - 12 * season), end)
    scale = np.abs(known[:, recent]).sum(axis=1) / np.maximum(seen[:, recent].sum(axis=1), 1)
    return Residuals(panel, difference, sums, counts, np.where(scale > 0, scale, 1.0))


@dataclass(frozen=True)
class Cut:
    """One origin's rows: features (S, H, F), and the profile (S, H) the answer is added to."""

    features: Floats
    base: Floats


def cut(past: Residuals, origin: int, horizon: int) -> Cut:
    """The features of every series and step at one origin, from columns before it only."""
    panel, scale = past.panel, past.scale[:, None]
    day, season = panel.grid.day, panel.grid.season
    seasons = past_seasons(panel, origin, horizon, WEEKS)
    base = filled(profile(seasons), panel, origin)
    steps = np.arange(horizon)
    place = (panel.first + origin + steps) % season
    yesterday = origin + steps - day * (1 + steps // day)
    by_step = [
        steps,
        place % day,
        place // day,
    ]
    hour = max(1, 3_600 // panel.grid.freq_s)
    levels = [past.mean(origin, slots) for slots in (1, 2 * hour, 6 * hour, day, season)]
    common = np.full(len(panel.names), _mean(past.mean(origin, day)))
    spread = profile(seasons, np.nanstd)
    cells = [
        base / scale,
        base / panel.limits(origin)[:, None],
        spread / scale,
        (seasons[:, 0] - base) / scale,
        (seasons[:, 1] - base) / scale,
        (smoothing(panel, origin, horizon) - base) / scale,
    ]
    years = [past.at(origin + steps - days * day) for days in _YEAR_DAYS]
    rows = [
        *(np.broadcast_to(item, base.shape) for item in by_step),
        *cells,
        *(np.broadcast_to(item[:, None], base.shape) for item in levels),
        past.at(yesterday),
        past.at(yesterday - day),
        np.broadcast_to(common[:, None], base.shape),
        *years,
    ]
    return Cut(np.stack(rows, axis=2), base)


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


@dataclass(frozen=True)
class Boosting:
    """A trained model; `text` is all of it."""

    booster: lightgbm.Booster

    def predict(self, panel: Panel, origin: int, horizon: int) -> Floats:
        """Shape (S, H)."""
        past = residuals(panel, origin)
        rows = cut(past, origin, horizon)
        raw = self.booster.predict(rows.features.reshape(-1, len(FEATURES)), num_threads=2)
        return rows.base + np.asarray(raw).reshape(rows.base.shape) * past.scale[:, None]


def train(panel: Panel, end: int, horizon: int) -> Boosting | None:
    """Learns from the columns before `end`; None where no origin has both a history and a known future."""
    season = panel.grid.season
    first = max(2 * season, end - LEARNT_SEASONS * season)
    last = end - horizon
    if last <= first:
        return None
    past = residuals(panel, end)
    count = min(ORIGINS_MAX, max(8, last - first))
    origins = np.unique(np.linspace(first, last, count).astype(int))
    share = ROWS_MAX / (len(origins) * len(panel.names) * horizon)
    random = np.random.default_rng(_SEED)
    inputs, targets = [], []
    for origin in origins:
        rows = cut(past, int(origin), horizon)
        target = (panel.values[:, origin : origin + horizon] - rows.base) / past.scale[:, None]
        chosen = ~np.isnan(target) & (random.random(target.shape) < share)
        inputs.append(rows.features[chosen])
        targets.append(target[chosen])
    data = np.concatenate(inputs)
    if len(data) < 10 * _PARAMETERS["min_data_in_leaf"]:
        return None
    return Boosting(lightgbm.train(_PARAMETERS, lightgbm.Dataset(data, np.concatenate(targets)), TREES))
