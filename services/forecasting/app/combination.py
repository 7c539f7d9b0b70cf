"""How the models' forecasts become one: shares that sum to one, per series and horizon bucket, from the errors of past origins.

The shares minimise the mean absolute error of the combination, held between 0 and 1 (squares, as of Bates and Granger 1969, were measured
to follow single holidays) and drawn to equal shares as long as few origins have been seen: equal shares are hard to beat with little
evidence (Stock and Watson 2004). Found by exponentiated gradient (Kivinen and Warmuth 1997).
"""

from __future__ import annotations

import numpy as np

from services.forecasting.app.panel import Floats

EVIDENCE = 40.0
"""Origins after which a series' own errors weigh as much as those of all series together."""
RIDGE = 1.0
"""Origins' worth of pull towards equal shares."""
FIRST_STEPS, NEXT_STEPS = 150, 40
"""Of the gradient: from equal shares, and from shares found before."""
_RATE = 0.5
_COOLING = 10.0
THIN = 8
"""Steps of one bucket that are looked at: neighbours err alike."""


def buckets(horizon: int) -> list[slice]:
    """Steps ahead in groups that double: 1-2, 3-4, 5-8, 9-16, ..."""
    edges, edge = [0], 2
    while edge < horizon:
        edges.append(edge)
        edge *= 2
    return [slice(low, high) for low, high in zip(edges, [*edges[1:], horizon], strict=True)]


def shares(errors: Floats, scale: Floats, worth: float = 1.0, start: Floats | None = None) -> Floats:
    """Shape (K, S) of errors (K, O, S, B): K models, O past origins, S series, B steps of one bucket.

    Args:
        errors: forecast less truth; NaN where the truth is missing; a model that is NaN throughout gets no share.
        scale: shape (S,), so that series weigh alike.
        worth: of one origin as evidence: less than one where what is forecast from one overlaps with the next.
        start: shares found before, (K, S), to go on from.
    """
    models, origins, series, steps = errors.shape
    able = np.logical_not(np.isnan(errors).all(axis=(1, 2, 3)))
    if origins == 0 or not able.any():
        return np.full((models, series), 1.0 / models)
    thinned = errors[able][..., :: -(-steps // THIN)] / np.where(scale > 0, scale, 1.0)[None, None, :, None]
    begun = None if start is None or not (start[able] > 0).all() else start[able].T
    found = np.zeros((models, series))
    found[able] = _simplex(thinned, worth, begun).T
    return found


def _simplex(errors: Floats, worth: float, start: Floats | None) -> Floats:
    """Shape (S, K): the shares of the able models."""
    models, origins, series, _ = errors.shape
    whole = np.logical_not(np.isnan(errors).any(axis=0))
    known = np.ascontiguousarray(np.where(whole[None], errors, 0.0).transpose(2, 0, 1, 3).reshape(series, models, -1))
    count = whole.sum(axis=(0, 2))
    seen = worth * whole.any(axis=2).sum(axis=0)
    own = (seen / (seen + EVIDENCE))[:, None]
    size = np.abs(known).sum() / models / max(1, count.sum()) + 1e-12
    pull = RIDGE / (worth * origins + RIDGE) * size * models
    weights = np.full((series, models), 1.0 / models) if start is None else start / start.sum(axis=1, keepdims=True)
    for step in range(FIRST_STEPS if start is None else NEXT_STEPS):
        side = np.sign(np.matmul(weights[:, None, :], known)[:, 0])
        slope = np.matmul(known, side[:, :, None])[:, :, 0]
        each, pooled = slope / np.maximum(count, 1)[:, None], slope.sum(axis=0) / max(1, count.sum())
        gradient = own * each + (1 - own) * pooled + pull * (weights - 1.0 / models)
        rate = _RATE / np.sqrt(1 + step / _COOLING) / size
        weights = weights * np.exp(-rate * (gradient - gradient.min(axis=1, keepdims=True)))
        weights = np.maximum(weights / weights.sum(axis=1, keepdims=True), 1e-9)
    found: Floats = weights / weights.sum(axis=1, keepdims=True)
    return found


def combined(forecasts: Floats, weights: Floats) -> Floats:
    """Shape (..., S, B) of forecasts (K, ..., S, B) and shares (K, S). A model that has no forecast leaves its share to the others."""
    able = np.logical_not(np.isnan(forecasts))
    known = np.where(able, forecasts, 0.0)
    between = (1,) * (forecasts.ndim - 3)
    heavy = weights.reshape(len(weights), *between, -1, 1) * able
    total = heavy.sum(axis=0)
    mean = known.sum(axis=0) / np.maximum(able.sum(axis=0), 1)
    weighted: Floats = np.where(total > 0, (known * heavy).sum(axis=0) / np.where(total > 0, total, 1.0), mean)
    return np.where(able.any(axis=0), weighted, np.nan)
