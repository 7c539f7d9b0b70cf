"""Intervals that hold: split conformal on the newest origins' errors, with adaptive correction.

Scores are absolute errors over a scale of their own time of day and over how large errors were lately, so that nights get narrow bands,
rush hours wide ones, and a calm month narrower ones than the holidays before it (Lei et al. 2018, locally weighted conformal).
The level asked for moves with every miss and hit
(Gibbs and Candes 2021, adaptive conformal inference): alpha <- alpha + gamma (alpha* - share missed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.forecasting.app.panel import Floats

Places = npt.NDArray[np.int64]
LEVELS = (80, 90, 95)
WINDOW = 46
"""Newest origins whose errors make the intervals; four were measured to be too few (73 % for 80)."""
GAMMA = 0.06
_ALPHA_RANGE = (0.002, 0.6)
_SHRINK = 0.35
_EXTRA = 0.25
FORGET = 0.95
"""Weight of an origin's errors relative to the next one's."""
RECENT = 0.2
"""Weight of the newest origin in the level of recent errors."""
LEVEL_MIN = 0.2
SCORES_MAX = 2_000
"""Of one series and bucket that are ranked."""


@dataclass
class Adaptive:
    """The level that is asked for at present, per series: shape (S,) for each of `LEVELS`.

    Attributes:
        worth: of one origin as evidence: less than one where what is forecast from one overlaps with the next, or its misses count twice.
    """

    series: int
    worth: float = 1.0
    alphas: dict[int, Floats] = field(default_factory=dict)

    def alpha(self, level: int) -> Floats:
        return self.alphas.setdefault(level, np.full(self.series, 1 - level / 100))

    def learn(self, level: int, missed: Floats) -> None:
        """`missed`: shape (S,), share of the newest origin's truth outside the band; NaN where there was no truth."""
        step = self.worth * GAMMA * ((1 - level / 100) - np.nan_to_num(missed, nan=1 - level / 100))
        self.alphas[level] = np.clip(self.alpha(level) + step, *_ALPHA_RANGE)


def scales(errors: Floats, places: Places, day: int) -> Floats:
    """Shape (S, day): how large errors usually are at each time of day, drawn to the series' mean; 1 where nothing is known.

    Args:
        errors: shape (O, S, H), NaN where the truth is missing.
        places: shape (O, H): time of day of each step, 0 to day - 1.
    """
    sizes = np.abs(errors).transpose(1, 0, 2).reshape(errors.shape[1], -1)
    known = np.logical_not(np.isnan(sizes))
    at = places.reshape(-1)
    total = np.stack([np.bincount(at, row, day) for row in np.where(known, sizes, 0.0)])
    count = np.stack([np.bincount(at, row, day) for row in known.astype(float)])
    mean = total.sum(axis=1, keepdims=True) / np.maximum(count.sum(axis=1, keepdims=True), 1)
    own = np.where(count > 0, total / np.maximum(count, 1), mean)
    mixed: Floats = (1 - _SHRINK) * own + _SHRINK * mean
    return np.where(mixed > 0, mixed, 1.0)


def recent_levels(sizes: Floats, worth: float = 1.0) -> Floats:
    """Shape (O + 1, S): how large errors were lately before each origin, and now, against their scales (exponentially weighted).

    Args:
        sizes: shape (O, S): mean absolute error of each origin over its scales, oldest first; NaN where there was no truth.
    """
    levels, newest = np.ones((len(sizes) + 1, sizes.shape[1])), RECENT * worth
    for number, size in enumerate(np.where(np.isnan(sizes), 1.0, sizes)):
        levels[number + 1] = (1 - newest) * levels[number] + newest * size
    return np.maximum(levels, LEVEL_MIN)


def score_quantiles(scores: Floats, alphas: Sequence[Floats], worth: float = 1.0) -> list[Floats]:
    """For each of `alphas` (S,), the share that may lie outside, shape (S,): the conformal quantile of the newest scores.

    Newer origins weigh more (Barber et al. 2023, conformal prediction beyond exchangeability). The rank is raised where origins are few:
    errors of one origin move together, so a quarter of an origin is added, not one error. Infinite where there is no score.

    Args:
        scores: shape (O, S, B): absolute errors over their scales, of the newest origins, oldest first.
    """
    origins, series, steps = scores.shape
    weight = np.repeat(FORGET ** (worth * np.arange(origins - 1, -1, -1.0)), steps)
    effective = weight.sum() ** 2 / max((weight**2).sum(), 1e-12) / max(1, steps)
    ranks = [np.minimum(1.0, (1 - alpha) * (1 + _EXTRA / max(1.0, effective))) for alpha in alphas]
    stride = 2 * (origins * steps // (2 * SCORES_MAX)) + 1  # odd: it walks through all steps of the bucket
    flat = scores.transpose(1, 0, 2).reshape(series, -1)
    return _quantiles(flat[:, ::stride], weight[::stride], ranks)


def _quantiles(scores: Floats, weight: Floats, shares: Sequence[Floats]) -> list[Floats]:
    """The smallest score of each row below which that share of the weight lies, NaN left out; infinite in a row without any."""
    if not scores.shape[1]:
        return [np.full(len(scores), np.inf) for _ in shares]
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    mass = np.where(np.isnan(ordered), 0.0, weight[order]).cumsum(axis=1)
    total, rows = mass[:, -1:], np.arange(len(ordered))
    at = [np.minimum((mass < share[:, None] * total - 1e-12).sum(axis=1), scores.shape[1] - 1) for share in shares]
    return [np.where(total[:, 0] > 0, ordered[rows, place], np.inf) for place in at]
