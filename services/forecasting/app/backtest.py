"""The rolling-origin backtest: what each model, and the choice among them, would have forecast, and how far off it was.

Called by `city forecast backtest` and, on the city's own series, by training.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.forecasting.app.combination import buckets, combined, shares
from services.forecasting.app.intervals import LEVELS, WINDOW, Adaptive, Places, recent_levels, scales, score_quantiles
from services.forecasting.app.models.backends import BACKENDS, Forecaster
from services.forecasting.app.models.seasonal import seasonal_error
from services.forecasting.app.panel import Floats, Panel
from services.forecasting.app.quality import Bools, last_seen, learnable
from services.forecasting.domain.origins import TRAININGS_MAX, Origins, known_before, training_interval

Report = Callable[[str, int, int], None]
CHOICE = "choice"


@dataclass
class Cost:
    """Seconds of core time."""

    train_s: float = 0.0
    predict_s: float = 0.0


@dataclass(frozen=True)
class Run:
    """Every forecast of a backtest.

    Attributes:
        truth: shape (O, S, H), NaN where missing.
        forecasts: by backend, and the choice: shape (O, S, H); NaN where a backend had nothing to say.
        halves: by backend, level: half widths of the bands, shape (O, S, H); NaN before there is any calibration.
        scale: shape (O, S): mean absolute seasonal error of the data before each origin.
        weights: per origin and bucket, the shares (K, S) of the choice.
        alphas: per bucket, the level the choice's bands ask for after the newest origin.
    """

    panel: Panel
    origins: Origins
    horizon: int
    names: tuple[str, ...]
    truth: Floats
    scale: Floats
    forecasts: dict[str, Floats] = field(default_factory=dict)
    halves: dict[str, dict[int, Floats]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    weights: list[list[Floats]] = field(default_factory=list)
    alphas: list[Adaptive] = field(default_factory=list)


def backtest(
    panel: Panel,
    origins: Origins,
    horizon: int,
    names: Sequence[str],
    report: Report,
    banded: Sequence[str] = (),
    trainings: int = TRAININGS_MAX,
) -> Run:
    """Forecasts from every origin with every backend, then the choice, then the bands of each, or of those `banded` names.

    Args:
        trainings: about how often each backend is trained on the way.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of slices without data are NaN, as wanted
        seen, stuck_at = learnable(panel)
        truth = np.stack([panel.values[:, at : at + horizon] for at in origins.all])
        scale = np.stack([seasonal_error(panel, at) for at in origins.all])
        run = Run(panel, origins, horizon, tuple(names), truth, scale)
        every = training_interval(origins.all, panel.grid.season, trainings)
        for name in names:
            run.costs[name] = Cost()
            run.forecasts[name] = _rolled(seen, stuck_at, run, name, every, report)
        run.costs[CHOICE] = Cost(
            sum(run.costs[name].train_s for name in names), sum(run.costs[name].predict_s for name in names)
        )
        run.forecasts[CHOICE] = _chosen(run)
        for name in banded or (*names, CHOICE):
            run.halves[name] = _bands(run, name)
    return run


def _rolled(seen: Panel, stuck_at: Bools, run: Run, name: str, every: int, report: Report) -> Floats:
    """One backend's forecasts from every origin; trained anew after `every` columns, and always at the first origin that is scored."""
    cost, rows = run.costs[name], []
    forecaster: Forecaster | None = None
    trained: int | None = None
    for number, origin in enumerate(run.origins.all):
        report(f"origins, {name}", number + 1, len(run.origins.all))
        turn = (origin - run.origins.test[0]) // every
        if turn != trained:
            began = time.process_time()
            forecaster, trained = BACKENDS[name].forecaster(seen, origin, run.horizon, every), turn
            cost.train_s += time.process_time() - began
        began = time.process_time()
        rows.append(_forecast(forecaster, seen, stuck_at, origin, run))
        cost.predict_s += time.process_time() - began
    return np.stack(rows)


def _forecast(forecaster: Forecaster | None, seen: Panel, stuck_at: Bools, origin: int, run: Run) -> Floats:
    if forecaster is None:
        return np.full((len(seen.names), run.horizon), np.nan)
    rows, last = np.arange(len(seen.names)), last_seen(run.panel, origin)
    found = forecaster(seen, origin, run.horizon)
    return np.where(stuck_at[rows, last][:, None], run.panel.values[rows, last][:, None], found)


def _chosen(run: Run) -> Floats:
    """The choice at each origin, from the errors whose truth was known by then."""
    stacked = np.stack([run.forecasts[name] for name in run.names])
    errors = stacked - run.truth[None]
    chosen = np.full(run.truth.shape, np.nan)
    began, parts = time.process_time(), buckets(run.horizon)
    before: list[Floats | None] = [None for _ in parts]
    for number in range(len(run.origins.all)):
        past = known_before(run.origins.all, number, run.horizon, WINDOW)
        found = [
            shares(errors[:, past][..., steps], run.scale[number], worth(run), start)
            for steps, start in zip(parts, before, strict=True)
        ]
        for steps, weights in zip(parts, found, strict=True):
            chosen[number][:, steps] = combined(stacked[:, number][..., steps], weights)
        run.weights.append(found)
        before = [*found] if past else before
    run.costs[CHOICE].predict_s += time.process_time() - began
    return chosen


def worth(run: Run) -> float:
    """Of one origin as evidence: origins closer than a horizon forecast some of the same slots."""
    origins = run.origins.all
    apart = (origins[-1] - origins[0]) / max(1, len(origins) - 1)
    return min(1.0, apart / run.horizon) if len(origins) > 1 else 1.0


def refitted(run: Run, past: list[int], weights: list[Floats]) -> Floats:
    """Shape (len(past), S, H): errors the choice would have made with these shares. What it did make tells of shares it no longer has."""
    errors = np.empty((len(past), *run.truth.shape[1:]))
    stacked = np.stack([run.forecasts[name][past] for name in run.names])
    for steps, share in zip(buckets(run.horizon), weights, strict=True):
        errors[..., steps] = combined(stacked[..., steps], share) - run.truth[past][..., steps]
    return errors


def _bands(run: Run, name: str) -> dict[int, Floats]:
    """Half widths at each origin, learning from the bands that went before."""
    errors = run.forecasts[name] - run.truth
    halves = {level: np.full(run.truth.shape, np.nan) for level in LEVELS}
    state = [Adaptive(len(run.panel.names), worth(run)) for _ in buckets(run.horizon)]
    learnt = 0
    for number in range(len(run.origins.all)):
        past = known_before(run.origins.all, number, run.horizon, WINDOW)
        if not past:
            continue
        learnt = _learn(state, errors, halves, range(learnt, past[-1] + 1))
        known = refitted(run, past, run.weights[number]) if name == CHOICE else errors[past]
        bands = calibrate(run, known, past, state)
        for level in LEVELS:
            halves[level][number] = bands.halves(level, places(run, [number])[0])
    if name == CHOICE:
        run.alphas.extend(state)
    return halves


@dataclass(frozen=True)
class Bands:
    """What makes a band: scale by time of day (S, day), and for each level the score it reaches to in each bucket (S, buckets)."""

    scale: Floats
    reach: dict[int, Floats]

    def halves(self, level: int, at: Places) -> Floats:
        """Shape (S, H): half widths of steps 1 to H, which fall on the times of day `at`."""
        reach = self.reach[level]
        by_step = np.repeat(reach, [len(range(len(at))[steps]) for steps in buckets(len(at))], axis=1)
        return by_step * self.scale[:, at]


def calibrate(run: Run, errors: Floats, past: list[int], state: list[Adaptive]) -> Bands:
    """The bands that the errors (P, S, H) of the origins `past` ask for."""
    at = places(run, past)
    scale = scales(errors, at, run.panel.grid.day)
    scores = np.abs(errors) / np.stack([scale[:, row] for row in at])
    levels = recent_levels(np.nanmean(scores, axis=2), worth(run))
    scores /= levels[:-1, :, None]
    found = [
        score_quantiles(scores[..., steps], [adaptive.alpha(level) for level in LEVELS], worth(run))
        for steps, adaptive in zip(buckets(run.horizon), state, strict=True)
    ]
    reach = {level: from_longer(np.stack([bucket[k] for bucket in found], axis=1)) for k, level in enumerate(LEVELS)}
    return Bands(scale * levels[-1][:, None], reach)


def from_longer(reach: Floats) -> Floats:
    """Shape (S, buckets): a bucket in which nothing came takes over from the next longer one, which is never surer."""
    for bucket in range(reach.shape[1] - 2, -1, -1):
        unknown = np.isinf(reach[:, bucket])
        reach[unknown, bucket] = reach[unknown, bucket + 1]
    return reach


def places(run: Run, numbers: list[int]) -> Places:
    """Shape (O, H): time of day of every step of the named origins."""
    starts = np.array([run.panel.first + run.origins.all[number] for number in numbers])
    found: Places = (starts[:, None] + np.arange(run.horizon)) % run.panel.grid.day
    return found


def _learn(state: list[Adaptive], errors: Floats, halves: dict[int, Floats], numbers: range) -> int:
    """Tells each bucket's state of the origins' misses; returns the next origin to tell of."""
    for number in numbers:
        for level in LEVELS:
            width, error = halves[level][number], errors[number]
            missed = np.where(np.isnan(error) | np.isnan(width), np.nan, np.abs(error) > width)
            for steps, adaptive in zip(buckets(error.shape[1]), state, strict=True):
                adaptive.learn(level, np.nanmean(missed[:, steps], axis=1))
    return numbers.stop
