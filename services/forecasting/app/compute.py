"""What runs in the computing process: training and forecasting on snapshots. Called through `engine` only; imports the arrays and models."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from services.forecasting.app.backtest import CHOICE, Bands, Run, backtest, calibrate
from services.forecasting.app.combination import buckets, combined, shares
from services.forecasting.app.intervals import LEVELS, WINDOW
from services.forecasting.app.models.backends import BACKENDS, Bounded
from services.forecasting.app.models.seasonal import bounded, past_seasons, profile
from services.forecasting.app.panel import Floats, Panel, carried
from services.forecasting.app.quality import learnable
from services.forecasting.app.scores import scores
from services.forecasting.app.snapshot import Explained, Forecasts, Snapshot, Trained
from services.forecasting.domain.grid import Grid, week_grid
from services.forecasting.domain.groups import HORIZON
from services.forecasting.domain.origins import known_before, rolling_origins
from services.forecasting.domain.wall import SLOT_S

GRID: Grid = week_grid(SLOT_S)
TEST_ORIGINS = 7
WEEK = GRID.season
SHORT, STUCK, SILENT = "too-short", "stuck", "silent"
SILENT_SLOTS = 3 * GRID.day
FIRST_SLOTS = WEEK
"""History a series needs before anything is said of it."""


@dataclass(frozen=True)
class Model:
    """What a training leaves behind.

    Attributes:
        names: of the series it was trained on; shares and bands are in their order.
        forecasters: backend -> what it learnt; None where it could not.
        weights: bucket -> (K, S).
        bands: None where no origin could be tried.
    """

    names: tuple[str, ...]
    first: int
    forecasters: dict[str, Bounded | None]
    weights: list[Floats]
    bands: Bands | None


def prepare() -> None:
    """Once at the start of the process: the city's loop goes first."""
    os.nice(10)


def train(snapshot: Snapshot, backends: tuple[str, ...], until: int, folder: Path) -> Trained:
    """Backtests and trains on everything there is; the parameters are durable in `folder` when it returns.

    Args:
        until: slots the models must serve before the next training.
    """
    panel = panel_of(snapshot)
    run = _tried(panel, backends)
    seen, _ = learnable(panel)
    forecasters = {name: _learnt(name, seen, until) for name in backends}
    model = Model(snapshot.names, panel.first, forecasters, _weights(run, panel, backends), _bands(run))
    path, digest = _save(model, folder)
    figures = {name: scores(run, name) for name in (*backends, CHOICE)} if run else {}
    return Trained(
        path,
        digest,
        len(snapshot.names),
        len(run.origins.all) if run else 0,
        {name: one["mase"] for name, one in figures.items() if one["mase"] is not None},
        {level: inside for level in LEVELS if (inside := _inside(figures, level)) is not None},
    )


def forecast(snapshot: Snapshot, path: Path | None, horizon: int) -> Forecasts:
    """Every series of the snapshot, from its end on. Without a model: the simple models in equal shares, without bands."""
    panel = panel_of(snapshot)
    seen, stuck_at = learnable(panel)
    model = _loaded(path) if path else None
    stacked, names = _stacked(seen, model, horizon)
    weights = [_rows(w, model, snapshot.names) for w in model.weights] if model else []
    values = _mixed(stacked, weights, horizon)
    reasons = _reasons(panel, stuck_at)
    bands = {level: _halves(model, panel, horizon, level) for level in LEVELS} if model and model.bands else {}
    first = weights[0] if weights else np.full((len(names), len(snapshot.names)), 1 / len(names))
    return Forecasts(
        horizon,
        np.ascontiguousarray(values).tobytes(),
        {level: np.ascontiguousarray(half).tobytes() for level, half in bands.items()},
        tuple(reasons),
        tuple({name: round(100 * first[k, row]) for k, name in enumerate(names)} for row in range(len(snapshot.names))),
    )


def explain(snapshot: Snapshot, path: Path | None, column: int) -> Explained:
    """Which inputs moved the forecast of the snapshot's only series at `column`, which is at or after its end."""
    panel = panel_of(snapshot)
    seen, _ = learnable(panel)
    step, horizon = column - panel.length, column - panel.length + 1
    model = _loaded(path) if path else None
    stacked, names = _stacked(seen, model, horizon)
    weights = [_rows(w, model, snapshot.names) for w in model.weights] if model else []
    value = float(_mixed(stacked, weights, horizon)[0, step])
    base = float(np.nan_to_num(profile(past_seasons(seen, panel.length, horizon, 4))[0, step]))
    at = next((number for number, steps in enumerate(buckets(horizon)) if step in range(horizon)[steps]), 0)
    share = weights[min(at, len(weights) - 1)][:, 0] if weights else np.full(len(names), 1 / len(names))
    causes = [(f"the {_TITLES[name]}", float(share[k] * (stacked[k, 0, step] - base))) for k, name in enumerate(names)]
    return Explained(base, value, tuple(sorted(causes, key=lambda cause: -abs(cause[1]))))


_TITLES = {
    "naive": "value a week before",
    "smoothing": "trend of the last weeks",
    "profile": "newest values",
    "lightgbm": "learnt pattern of all series",
    "prophet": "trend and season",
}


def panel_of(snapshot: Snapshot) -> Panel:
    """The arrays of a snapshot."""
    shape = (len(snapshot.names), snapshot.length)
    values = np.frombuffer(snapshot.values).reshape(shape)
    capacity = np.frombuffer(snapshot.capacity).reshape(shape)
    return Panel(GRID, snapshot.names, snapshot.first, values, carried(capacity) if snapshot.length else capacity)


def _tried(panel: Panel, backends: tuple[str, ...]) -> Run | None:
    """The backtest over the newest week, or over as many days as there are; None with less than four weeks and a day."""
    room = panel.length - HORIZON - 4 * WEEK
    if room < 0:
        return None
    tests = min(TEST_ORIGINS, 1 + room // GRID.day)
    origins = rolling_origins(panel.length, WEEK, HORIZON, GRID.day, tests, WINDOW)
    return backtest(panel, origins, HORIZON, backends, lambda what, done, total: None)


def _learnt(name: str, seen: Panel, until: int) -> Bounded | None:
    return BACKENDS[name].forecaster(seen, seen.length, HORIZON, until)


def _weights(run: Run | None, panel: Panel, backends: tuple[str, ...]) -> list[Floats]:
    if run is None:
        return [np.full((len(backends), len(panel.names)), 1 / len(backends)) for _ in buckets(HORIZON)]
    errors = np.stack([run.forecasts[name] for name in backends]) - run.truth[None]
    return [shares(errors[:, -WINDOW:][..., steps], run.scale[-1]) for steps in buckets(HORIZON)]


def _bands(run: Run | None) -> Bands | None:
    if run is None:
        return None
    origins = run.origins.all
    past = known_before((*origins, origins[-1] + HORIZON), len(origins), HORIZON, WINDOW)
    return calibrate(run, run.forecasts[CHOICE] - run.truth, past, run.alphas)


def _inside(figures: dict[str, Any], level: int) -> float | None:
    return figures[CHOICE]["coverage"][str(level)]["mean"] if figures else None


def _stacked(seen: Panel, model: Model | None, horizon: int) -> tuple[Floats, list[str]]:
    """(forecasts (K, S, H), backends)."""
    if model is None:
        names = ["naive", "smoothing", "profile"]
        found = [BACKENDS[name].forecaster(seen, seen.length, horizon, 0) for name in names]
        return np.stack([one(seen, seen.length, horizon) for one in found if one is not None]), names
    names = list(model.forecasters)
    return np.stack([_of_model(model, name, seen, horizon) for name in names]), names


def _of_model(model: Model, name: str, seen: Panel, horizon: int) -> Floats:
    forecaster = model.forecasters[name]
    if forecaster is None:
        return np.full((len(seen.names), horizon), np.nan)
    if name != "prophet":
        return forecaster(seen, seen.length, horizon)
    trained_on = replace(seen, names=model.names)  # its curves belong to these series, and to their columns
    curves = forecaster.inner(trained_on, seen.first + seen.length - model.first, horizon)
    return bounded(_rows(curves.T, model, seen.names).T, seen, seen.length)


def _rows(columns: Floats, model: Model | None, names: tuple[str, ...]) -> Floats:
    """The last axis in the order of `names`; the mean over all for a series the model does not know."""
    known = {name: row for row, name in enumerate(model.names)} if model else {}
    mean = np.nanmean(columns, axis=1)
    return np.stack([columns[:, known[name]] if name in known else mean for name in names], axis=1)


def _mixed(stacked: Floats, weights: list[Floats], horizon: int) -> Floats:
    values = np.empty(stacked.shape[1:])
    for number, steps in enumerate(buckets(horizon)):
        share = weights[min(number, len(weights) - 1)] if weights else np.ones(stacked.shape[:2])
        values[:, steps] = combined(stacked[:, :, steps], share)
    return values


def _halves(model: Model, panel: Panel, horizon: int, level: int) -> Floats:
    bands = model.bands
    assert bands is not None  # noqa: S101 - asked for only where there are bands
    reach, scale = _rows(bands.reach[level].T, model, panel.names).T, _rows(bands.scale.T, model, panel.names).T
    at = (panel.first + panel.length + np.arange(horizon)) % GRID.day
    number = [min(k, reach.shape[1] - 1) for k, steps in enumerate(buckets(horizon)) for _ in range(horizon)[steps]]
    found: Floats = reach[:, number] * scale[:, at]
    return found


def _reasons(panel: Panel, stuck_at: Any) -> list[str]:
    """Why a series gets no forecast; empty where it gets one."""
    seen = np.logical_not(np.isnan(panel.values))
    last = np.where(seen.any(axis=1), panel.length - 1 - seen[:, ::-1].argmax(axis=1), -SILENT_SLOTS)
    span = last - np.where(seen.any(axis=1), seen.argmax(axis=1), 0)
    held = stuck_at[np.arange(len(last)), np.maximum(last, 0)]
    words = np.where(
        held,
        STUCK,
        np.where(panel.length - last > SILENT_SLOTS, SILENT, np.where(span < FIRST_SLOTS - GRID.day, SHORT, "")),
    )
    return [str(word) for word in words]


def _save(model: Model, folder: Path) -> tuple[Path, bytes]:
    """Written under the hash of its bytes, synced."""
    buffer = io.BytesIO()
    pickle.dump(model, buffer)
    digest = hashlib.sha256(buffer.getvalue())
    path = folder / f"{digest.hexdigest()}.model"
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return path, digest.digest()


@lru_cache(maxsize=4)
def _loaded(path: Path) -> Model:
    """The model at `path`; its bytes must have the hash that names it, for what is unpickled can act."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise ValueError(f"the model {path.name} does not have the hash it is named by")
    model: Model = pickle.loads(content)  # noqa: S301 - our own file, checked by its hash
    return model
