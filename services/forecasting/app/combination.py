"""How the models' forecasts become one: shares that sum to one, per series and horizon bucket, from the errors of past origins.

The shares minimise the mean square of the combined error (Bates and Granger 1969), held between 0 and 1 and drawn to equal shares as
long as few origins have been seen: equal shares are hard to beat with little evidence (Stock and Watson 2004).
"""

from __future__ import annotations

import numpy as np

from services.forecasting.app.panel import Floats

EVIDENCE = 20.0
"""Origins after which a series' own errors weigh as much as those of all series together."""
RIDGE = 2.0
"""Origins' worth of pull towards equal shares."""
_STEPS = 300
_RATE = 1.0


def buckets(horizon: int) -> list[slice]:
    """Steps ahead in groups that double: 1-2, 3-4, 5-8, 9-16, ..."""
    edges, edge = [0], 2
    while edge < horizon:
        edges.append(edge)
        edge *= 2
    return [slice(low, high) for low, high in zip(edges, [*edges[1:], horizon], strict=True)]


def shares(errors: Floats, scale: Floats) -> Floats:
    """Shape (K, S) of errors (K, O, S, B): K models, O past origins, S series, B steps of one bucket.

    Args:
        errors: forecast less truth; NaN where the truth is missing; a model that is NaN throughout gets no share.
        scale: shape (S,), so that series weigh alike.
    """
    models, origins, series, _ = errors.shape
    able = np.logical_not(np.isnan(errors).all(axis=(1, 2, 3)))
    if origins == 0 or not able.any():
        return np.full((models, series), 1.0 / models)
    gram, seen = _gram(errors[able] / scale[None, None, :, None])
    pooled = (gram * seen[:, None, None]).sum(axis=0) / max(1, seen.sum())
    own = seen[:, None, None] / (seen[:, None, None] + EVIDENCE)
    mixed = own * gram + (1 - own) * pooled
    pull = RIDGE / (origins + RIDGE) * np.trace(pooled) / able.sum()
    found = np.zeros((models, series))
    found[able] = _simplex(mixed, pull).T
    return found


def _gram(errors: Floats) -> tuple[Floats, Floats]:
    """(mean products of the models' errors (S, K, K), origins seen (S,))."""
    whole = np.logical_not(np.isnan(errors).any(axis=0))
    known = np.where(whole[None], errors, 0.0)
    count = whole.sum(axis=(0, 2))
    products: Floats = np.einsum("kosb,josb->skj", known, known, optimize=True) / np.maximum(count, 1)[:, None, None]
    return products, whole.any(axis=2).sum(axis=0).astype(float)


def _simplex(gram: Floats, pull: float) -> Floats:
    """Shape (S, K): minimises w G w + pull |w - equal|^2 over the simplex by exponentiated gradient (Kivinen and Warmuth 1997)."""
    series, models, _ = gram.shape
    equal = 1.0 / models
    weights = np.full((series, models), equal)
    size = np.trace(gram, axis1=1, axis2=2)[:, None] / models + pull + 1e-12
    for _ in range(_STEPS):
        gradient = (np.einsum("skj,sj->sk", gram, weights) + pull * (weights - equal)) / size
        weights = weights * np.exp(-_RATE * (gradient - gradient.min(axis=1, keepdims=True)))
        weights /= weights.sum(axis=1, keepdims=True)
    return weights


def combined(forecasts: Floats, weights: Floats) -> Floats:
    """Shape (S, B) of forecasts (K, S, B) and shares (K, S). A model that has no forecast leaves its share to the others."""
    able = np.logical_not(np.isnan(forecasts))
    known = np.where(able, forecasts, 0.0)
    heavy = weights[:, :, None] * able
    total = heavy.sum(axis=0)
    mean = known.sum(axis=0) / np.maximum(able.sum(axis=0), 1)
    weighted: Floats = np.where(total > 0, (known * heavy).sum(axis=0) / np.where(total > 0, total, 1.0), mean)
    return weighted
