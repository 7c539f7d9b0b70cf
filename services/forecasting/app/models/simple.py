"""The models that need no training: seasonal naive, weekly exponential smoothing, weekly profile with a decaying level correction."""

from __future__ import annotations

import numpy as np

from services.forecasting.app.models.seasonal import WEEKS, filled, measure_of, past_seasons, profile
from services.forecasting.app.panel import Floats, Panel

SMOOTHED_SEASONS = 16
WEIGHTS = (0.1, 0.2, 0.3, 0.45, 0.65)
HALF_HOUR_S = 1_800
DECAY = 0.985
"""Of the level correction, for each half hour ahead."""
RECENT = 4
"""Newest values that tell the level."""


def seasonal_naive(panel: Panel, origin: int, horizon: int) -> Floats:
    """The newest value at the same place of the season, at most four seasons old."""
    past = past_seasons(panel, origin, horizon, WEEKS)
    newest = (~np.isnan(past)).argmax(axis=1)[:, None, :]
    return filled(np.take_along_axis(past, newest, axis=1)[:, 0, :], panel, origin)


def smoothing(panel: Panel, origin: int, horizon: int) -> Floats:
    """Exponential smoothing over seasons, each place of the season for itself (Holt 1957; Gardner 2006, method N-A with season only).

    The weight is the one of `WEIGHTS` with the least error one season ahead, for each series.
    """
    past = past_seasons(panel, origin, horizon, SMOOTHED_SEASONS)[:, ::-1, :]
    levels, errors = _smoothed(past, np.array(WEIGHTS)[:, None, None])
    best = np.argmin(errors, axis=0)
    return filled(levels[best, np.arange(len(panel.names))], panel, origin)


def _smoothed(past: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """(level (W, S, H), mean absolute error one season ahead (W, S)) of values oldest first, for each weight."""
    level = np.repeat(past[None, :, 0, :], len(weight), axis=0)
    total, count = np.zeros(level.shape[:2]), np.full(len(past), 1e-9)
    for values in np.moveaxis(past[:, 1:, :], 1, 0):
        error = values - level
        seen = ~np.isnan(error)
        known = np.where(seen, error, 0.0)
        total += np.abs(known).sum(axis=2)
        count += seen[0].sum(axis=1)
        level = np.where(seen, level + weight * known, np.where(np.isnan(level), values, level))
    return level, total / count


def profile_level(panel: Panel, origin: int, horizon: int) -> Floats:
    """Four-week profile plus how far the newest values lie from theirs, decaying with the horizon."""
    base = profile(past_seasons(panel, origin, horizon, WEEKS), measure_of(panel))
    decay = DECAY ** (panel.grid.freq_s / HALF_HOUR_S * (1 + np.arange(horizon)))
    return filled(base, panel, origin) + level_error(panel, origin)[:, None] * decay


def level_error(panel: Panel, origin: int, recent: int = RECENT) -> Floats:
    """Shape (S,): mean of the newest values less their own four-week profile; 0 where there is none."""
    start = max(0, origin - recent)
    expected = profile(past_seasons(panel, start, origin - start, WEEKS))
    error = profile((panel.values[:, start:origin] - expected)[:, :, None])
    return np.nan_to_num(error[:, 0])
