"""What runs in the computing process: training and forecasting on snapshots. Called through `engine` only; imports the arrays and models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from services.forecasting.app import model as kept
from services.forecasting.app.backtest import CHOICE, Bands, Run, backtest, calibrate, refitted, worth
from services.forecasting.app.combination import buckets, combined, shares
from services.forecasting.app.intervals import LEVELS, WINDOW
from services.forecasting.app.model import CURVES, Block, Model
from services.forecasting.app.models.backends import BACKENDS, Bounded
from services.forecasting.app.models.seasonal import bounded, past_seasons, profile
from services.forecasting.app.panel import Floats, Panel, carried
from services.forecasting.app.quality import Bools, closed, learnable, reasons
from services.forecasting.app.scores import scores
from services.forecasting.app.snapshot import NOTHING, Explained, Forecasts, Part, Snapshot, Trained
from services.forecasting.domain.grid import Grid, week_grid
from services.forecasting.domain.groups import HORIZON
from services.forecasting.domain.origins import known_before, rolling_origins
from services.forecasting.domain.wall import SLOT_S

GRID: Grid = week_grid(SLOT_S)
WEEK = GRID.season
TRAININGS = 3
"""In the backtest of a training: shares and bands are measured with models up to some weeks older than those that serve."""
STEP = 19
"""Slots between origins of the backtest, prime to those of a day: whatever the step ahead, every time of day is forecast."""
SIMPLE = ("naive", "smoothing", "profile")
MILLI = 1_000
PART, MODEL = ".part", ".model"
TITLES = {
    "naive": "the value a week before",
    "smoothing": "the trend of the last weeks",
    "profile": "the newest values",
    "lightgbm": "the pattern learnt from all series",
    "prophet": "trend and season",
}


def prepare() -> None:
    """Once at the start of the process: the city's loop goes first."""
    os.nice(10)
    warnings.simplefilter("ignore", RuntimeWarning)  # means of slices without data are NaN, as wanted


def train(snapshot: Snapshot, backends: tuple[str, ...], until: int, folder: Path) -> Part:
    """Backtests and trains on one block of series; what it learnt is durable in `folder` when it returns.

    Args:
        until: slots the models must serve before the next training.
    """
    panel = panel_of(snapshot)
    run = _tried(panel, backends)
    seen, _ = learnable(panel)
    forecasters = {name: BACKENDS[name].forecaster(seen, seen.length, HORIZON, until) for name in backends}
    weights = _weights(run, panel, backends)
    block = Block(snapshot.names, panel.first, forecasters, weights, _bands(run, weights))
    path, _ = kept.save(block, folder, PART)
    figures = {name: scores(run, name) for name in (*backends, CHOICE)} if run else {}
    return Part(
        path,
        len(snapshot.names),
        len(run.origins.all) if run else 0,
        {name: one["mase"] for name, one in figures.items() if one["mase"] is not None},
        {level: inside for level in LEVELS if (inside := _inside(figures, level)) is not None},
    )


def join(parts: Sequence[Part], folder: Path) -> Trained:
    """One model of all parts; their figures weigh as their series."""
    path, digest = kept.save(Model(tuple(kept.read(part.path) for part in parts)), folder, MODEL)
    for part in parts:
        part.path.unlink(missing_ok=True)
    return Trained(
        path,
        digest,
        sum(part.series for part in parts),
        max(part.origins for part in parts),
        _mean([(part.series, part.mase) for part in parts]),
        _mean([(part.series, part.coverage) for part in parts]),
    )


def _mean(weighed: Sequence[tuple[int, dict[Any, float]]]) -> dict[Any, float]:
    keys = dict.fromkeys(key for _, figures in weighed for key in figures)
    return {
        key: sum(weight * figures[key] for weight, figures in weighed if key in figures)
        / sum(weight for weight, figures in weighed if key in figures)
        for key in keys
    }


def forecast(snapshot: Snapshot, path: Path | None, horizon: int) -> Forecasts:
    """Every series of the snapshot, from its end on. Without a model: the simple models in equal shares, without bands."""
    panel = panel_of(snapshot)
    seen, stuck_at = learnable(panel)
    shut = closed(seen, seen.length, horizon)
    blocks = _blocks(snapshot.names, path)
    found = [_by_block(seen, block, rows, horizon) for block, rows in blocks]
    order = np.argsort([row for _, rows in blocks for row in rows])
    values = np.concatenate([one.values for one in found])[order]
    shared = [one for block in found for one in block.shares]
    return Forecasts(
        horizon,
        _whole(np.where(shut, np.nan, values)),
        _bounds(found, order, values, seen.limits(seen.length)[:, None], shut),
        tuple(reasons(panel, stuck_at)),
        tuple(shared[row] for row in order),
    )


def explain(snapshot: Snapshot, path: Path | None, column: int) -> Explained:
    """Which inputs moved the forecast of the snapshot's only series at `column`, which is at or after its end."""
    seen, _ = learnable(panel_of(snapshot))
    step, horizon = column - seen.length, column - seen.length + 1
    [(block, _)] = _blocks(snapshot.names, path)
    stacked, names = _stacked(seen, block, horizon)
    weights = _shares(block, snapshot.names, len(names))
    value = float(_mixed(stacked, weights, horizon)[0, step])
    base = float(np.nan_to_num(profile(past_seasons(seen, seen.length, horizon, 4))[0, step]))
    at = next(number for number, steps in enumerate(buckets(horizon)) if step in range(horizon)[steps])
    share = weights[min(at, len(weights) - 1)][:, 0]
    causes: dict[str, float] = {}
    for k, name in enumerate(names):
        for what, effect in _effects(block, name, seen, horizon, step, float(stacked[k, 0, step] - base)):
            causes[what] = causes.get(what, 0.0) + float(share[k]) * effect
    return Explained(base, value, tuple(sorted(causes.items(), key=lambda cause: -abs(cause[1]))))


def _effects(
    block: Block | None, name: str, seen: Panel, horizon: int, step: int, whole: float
) -> list[tuple[str, float]]:
    """(input, effect) of one model; the effects sum to `whole`. A boosted model says what each of its inputs did (Lundberg and Lee 2017)."""
    forecaster = block.forecasters[name] if block else None
    inputs = getattr(getattr(forecaster, "inner", None), "__self__", None)
    if inputs is None or not hasattr(inputs, "effects"):
        return [(TITLES[name], whole)]
    found: list[tuple[str, float]] = inputs.effects(seen, seen.length, horizon, step)
    return [*found, (TITLES[name], whole - sum(effect for _, effect in found))]


def panel_of(snapshot: Snapshot) -> Panel:
    """The arrays of a snapshot."""
    shape = (len(snapshot.names), snapshot.length)
    values = np.frombuffer(snapshot.values, np.float32).reshape(shape).astype(float)
    if not snapshot.capacity or not snapshot.length:
        return Panel(GRID, snapshot.names, snapshot.first, values, np.full(shape, np.nan))
    capacity = np.frombuffer(snapshot.capacity, np.float32).reshape(shape).astype(float)
    return Panel(GRID, snapshot.names, snapshot.first, values, carried(capacity))


def _tried(panel: Panel, backends: tuple[str, ...]) -> Run | None:
    """The backtest over the newest week, or over half of what there is: the other half calibrates. None with less than four weeks and a day."""
    room = panel.length - HORIZON - 4 * WEEK
    if room < 0:
        return None
    tests = 1 + min(room // 2, WEEK) // STEP
    origins = rolling_origins(panel.length, WEEK, HORIZON, STEP, tests, WINDOW, STEP)
    return backtest(panel, origins, HORIZON, backends, lambda what, done, total: None, (CHOICE,), TRAININGS)


def _weights(run: Run | None, panel: Panel, backends: tuple[str, ...]) -> list[Floats]:
    if run is None:
        return [np.full((len(backends), len(panel.names)), 1 / len(backends)) for _ in buckets(HORIZON)]
    errors = np.stack([run.forecasts[name] for name in backends]) - run.truth[None]
    return [shares(errors[:, -WINDOW:][..., steps], run.scale[-1], worth(run)) for steps in buckets(HORIZON)]


def _bands(run: Run | None, weights: list[Floats]) -> Bands | None:
    if run is None:
        return None
    origins = run.origins.all
    past = known_before((*origins, origins[-1] + HORIZON), len(origins), HORIZON, WINDOW)
    return calibrate(run, refitted(run, past, weights), past, run.alphas)


def _inside(figures: dict[str, Any], level: int) -> float | None:
    return figures[CHOICE]["coverage"][str(level)]["mean"] if figures else None


@dataclass(frozen=True)
class _Found:
    """Forecasts of the rows of one block: values and half widths (S, H)."""

    values: Floats
    halves: dict[int, Floats]
    shares: list[dict[str, int]]


def _blocks(names: Sequence[str], path: Path | None) -> list[tuple[Block | None, list[int]]]:
    """Which rows each block of the model answers for."""
    if path is None:
        return [(None, list(range(len(names))))]
    model = kept.loaded(path)
    rows: dict[int, list[int]] = {}
    place = {name: number for number, block in enumerate(model.blocks) for name in block.names}
    for row, name in enumerate(names):
        rows.setdefault(place.get(name, 0), []).append(row)
    return [(model.blocks[number], found) for number, found in rows.items()]


def _by_block(seen: Panel, block: Block | None, rows: list[int], horizon: int) -> _Found:
    panel = seen.only(rows)
    stacked, names = _stacked(panel, block, horizon)
    weights = _shares(block, panel.names, len(names))
    first = [{name: round(100 * float(weights[0][k, row])) for k, name in enumerate(names)} for row in range(len(rows))]
    halves = {level: _halves(block, panel, horizon, level) for level in LEVELS} if block and block.bands else {}
    return _Found(_mixed(stacked, weights, horizon), halves, first)


def _bounds(
    found: Sequence[_Found], order: Any, values: Floats, limits: Floats, shut: Bools
) -> dict[int, tuple[bytes, bytes]]:
    """Lows and highs: never below nothing nor above what the place holds."""
    bounds = {}
    for level in LEVELS:
        if not any(level in one.halves for one in found):
            continue
        half = np.concatenate([one.halves.get(level, np.full_like(one.values, np.inf)) for one in found])[order]
        none = shut | np.logical_not(np.isfinite(half))
        low, high = np.maximum(values - half, 0), np.minimum(values + half, limits)
        bounds[level] = (_whole(np.where(none, np.nan, low)), _whole(np.where(none, np.nan, high)))
    return bounds


def _whole(values: Floats) -> bytes:
    """Thousandths; `NOTHING` where there is none."""
    return np.where(np.isnan(values), NOTHING, np.rint(np.nan_to_num(values) * MILLI)).astype(np.int64).tobytes()


def _stacked(seen: Panel, block: Block | None, horizon: int) -> tuple[Floats, list[str]]:
    """(forecasts (K, S, H), backends)."""
    if block is None:
        found = [BACKENDS[name].forecaster(seen, seen.length, horizon, 0) for name in SIMPLE]
        return np.stack([one(seen, seen.length, horizon) for one in found if one is not None]), list(SIMPLE)
    return np.stack([_of(block, name, seen, horizon) for name in block.forecasters]), list(block.forecasters)


def _of(block: Block, name: str, seen: Panel, horizon: int) -> Floats:
    forecaster = block.forecasters[name]
    if forecaster is None:
        return np.full((len(seen.names), horizon), np.nan)
    if name != CURVES:
        return forecaster(seen, seen.length, horizon)
    return _curves(forecaster, block, seen, horizon)


def _curves(forecaster: Bounded, block: Block, seen: Panel, horizon: int) -> Floats:
    """Drawn for the series and the columns of the training; none for a series that was not there."""
    trained_on = replace(seen, names=block.names)
    curves = forecaster.inner(trained_on, seen.first + seen.length - block.first, horizon)
    return np.where(
        block.knows(seen.names)[:, None], bounded(block.rows(curves.T, seen.names).T, seen, seen.length), np.nan
    )


def _shares(block: Block | None, names: Sequence[str], models: int) -> list[Floats]:
    """By bucket: (K, S)."""
    if block is None:
        return [np.full((models, len(names)), 1 / models)]
    return [block.rows(weights, names) for weights in block.weights]


def _mixed(stacked: Floats, weights: list[Floats], horizon: int) -> Floats:
    values = np.empty(stacked.shape[1:])
    for number, steps in enumerate(buckets(horizon)):
        values[:, steps] = combined(stacked[:, :, steps], weights[min(number, len(weights) - 1)])
    return values


def _halves(block: Block, panel: Panel, horizon: int, level: int) -> Floats:
    """Infinite for a series that was not learnt from: its errors are not known."""
    assert block.bands is not None  # noqa: S101 - asked for only where there are bands
    reach, scale = block.rows(block.bands.reach[level].T, panel.names).T, block.rows(block.bands.scale.T, panel.names).T
    at = (panel.first + panel.length + np.arange(horizon)) % GRID.day
    number = [min(k, reach.shape[1] - 1) for k, steps in enumerate(buckets(horizon)) for _ in range(horizon)[steps]]
    return np.where(block.knows(panel.names)[:, None], reach[:, number] * scale[:, at], np.inf)
