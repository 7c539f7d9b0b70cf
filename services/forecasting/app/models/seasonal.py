"""What the seasonal models share: the values one, two, ... seasons before each target, and how holes are filled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from services.forecasting.app.panel import Floats, Panel

WEEKS = 4
"""Seasons that make a profile."""


def past_seasons(panel: Panel, origin: int, horizon: int, seasons: int) -> Floats:
    """Shape (S, seasons, H): the values at whole seasons before each target, newest first; only columns before `origin`.

    Args:
        origin: the first column that is not known yet; targets are origin to origin + horizon - 1.
    """
    return past_of(panel, origin, origin + np.arange(horizon), seasons)


def past_of(panel: Panel, origin: int, targets: Any, seasons: int) -> Floats:
    """`past_seasons` of any columns."""
    season = panel.grid.season
    newest = targets - season * np.maximum(0, (targets - origin) // season + 1)
    columns = newest[None, :] - season * np.arange(seasons)[:, None]
    found = panel.values[:, np.clip(columns, 0, None)]
    return np.where(columns[None] >= 0, found, np.nan)


def measure_of(panel: Panel) -> Callable[..., Floats]:
    """What makes a profile of several seasons: the median of days, where one holiday in four would move a mean far, else the mean."""
    return np.nanmedian if panel.grid.day == 1 else np.nanmean


def profile(past: Floats, measure: Callable[..., Floats] = np.nanmean) -> Floats:
    """Shape (S, H) of (S, seasons, H): the measure over the seasons there are; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice" is the NaN we want
        return measure(past, axis=1)


def filled(forecast: Floats, panel: Panel, origin: int) -> Floats:
    """Holes filled from the same time of day of the last four weeks, then from the series' own mean there."""
    if not np.isnan(forecast).any():
        return forecast
    day, season = panel.grid.day, panel.grid.season
    start = max(0, origin - WEEKS * season)
    whole = profile(panel.values[:, start:origin, None])
    result = np.where(np.isnan(forecast), _by_time_of_day(panel, start, origin, forecast.shape[1], day), forecast)
    return np.nan_to_num(np.where(np.isnan(result), whole, result))


def _by_time_of_day(panel: Panel, start: int, origin: int, horizon: int, day: int) -> Floats:
    """Shape (S, H): the means of the columns from `start` to `origin` at each target's time of day; NaN where none was seen."""
    days = -(-(origin - start) // day)
    values = np.full((len(panel.names), days * day), np.nan)
    values[:, days * day - (origin - start) :] = panel.values[:, start:origin]
    means = profile(values.reshape(len(values), days, day))
    return means[:, np.arange(horizon) % day]


def bounded(forecast: Floats, panel: Panel, origin: int) -> Floats:
    """Between nothing and what the place holds."""
    return np.clip(forecast, 0.0, panel.limits(origin)[:, None])


def seasonal_error(panel: Panel, end: int) -> Floats:
    """Shape (S,): mean absolute difference from the value one season before, over the columns before `end` (MASE, Hyndman 2006)."""
    season = panel.grid.season
    difference = np.abs(panel.values[:, season:end] - panel.values[:, : max(0, end - season)])
    return profile(difference[:, :, None])[:, 0]
