"""What a backtest says in figures: per origin, per series, then the plain mean over series. Missing truth is not scored."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from services.forecasting.app.backtest import CHOICE, Run
from services.forecasting.app.intervals import LEVELS
from services.forecasting.app.panel import Floats

WITHIN = 0.10
_MS = 1_000


def figures(run: Run) -> dict[str, Any]:
    """`{"backends": {name: scores}, "choice": scores, "origins", "calibration_origins"}`, rounded for reading."""
    return {
        "backends": {name: scores(run, name) for name in run.names},
        "choice": scores(run, CHOICE),
        "origins": len(run.origins.test),
        "calibration_origins": len(run.origins.calibration),
    }


def scores(run: Run, name: str) -> dict[str, Any]:
    """Mean absolute error, its rate of the capacity, its ratio to the seasonal naive's in-sample error, coverage, cost a series."""
    test = slice(len(run.origins.calibration), None)
    error = np.abs(run.forecasts[name] - run.truth)[test]
    capacity = np.stack([run.panel.capacity[:, at : at + run.horizon] for at in run.origins.test])
    series, cost = len(run.panel.names), run.costs[name]
    scale = run.scale[test][:, :, None]
    return {
        "mae": _rounded(_mean_of_series(error), 4),
        "rate": _rounded(_mean_of_series(error / np.where(capacity > 0, capacity, np.nan)), 5),
        "mase": _rounded(_mean_of_series(error / np.where(scale > 0, scale, np.nan)), 4),
        "coverage": {str(level): _coverage(error, run, name, level) for level in LEVELS},
        "train_ms": round(cost.train_s * _MS / series, 3),
        "predict_ms": round(cost.predict_s * _MS / series, 3),
    }


def _coverage(error: Floats, run: Run, name: str, level: int) -> dict[str, float | None]:
    half = run.halves[name][level][-len(error) :] if name in run.halves else np.full_like(error, np.nan)
    inside = np.where(np.isnan(error) | np.isnan(half), np.nan, error <= half)
    covered = _by_series(inside)
    known = covered[~np.isnan(covered)]
    if not known.size:
        return {"mean": None, "within10": None, "worst": None}
    near = np.abs(known - level / 100) <= WITHIN
    return {
        "mean": round(float(known.mean()), 4),
        "within10": round(float(near.mean()), 4),
        "worst": round(float(known.min()), 4),
    }


def _by_series(values: Floats) -> Floats:
    """Shape (S,) of (O, S, H): the mean of each origin, then of the origins that have any truth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Floats = np.nanmean(np.nanmean(values, axis=2), axis=0)
    return found


def _mean_of_series(values: Floats) -> float | None:
    by_series = _by_series(values)
    known = by_series[~np.isnan(by_series)]
    return float(known.mean()) if known.size else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
