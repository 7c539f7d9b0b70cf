"""Forecasting: bands hold what comes on series with known noise, shares lie on the simplex, order does not matter, the naive is exact."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.forecasting.app.backtest import CHOICE, backtest
from services.forecasting.app.backtesting import Options, backtest_csv
from services.forecasting.app.combination import buckets, combined, shares
from services.forecasting.app.intervals import LEVELS, recent_levels, score_quantiles
from services.forecasting.app.models.simple import seasonal_naive
from services.forecasting.app.panel import Floats
from services.forecasting.app.scores import scores
from services.forecasting.domain.grid import Grid
from services.forecasting.domain.origins import rolling_origins
from tests.unit.forecasting.panels import panel_of, weekly

EIGHTHS = Grid(10_800, 56)
SIMPLE = ("naive", "smoothing", "profile")
seeds = st.integers(0, 10_000)


def silent(what: str, done: int, total: int) -> None:
    """No bars."""


def noisy(kind: str, seed: int, series: int = 12, weeks: int = 14) -> Floats:
    """A week that repeats, and noise whose size is known: normal, heavy-tailed, or growing over the day."""
    dice = np.random.default_rng(seed)
    values = weekly(series, weeks, EIGHTHS, seed=seed) + 60
    noise = dice.standard_t(3, values.shape) if kind == "heavy" else dice.standard_normal(values.shape)
    by_day = 1.0 + np.arange(values.shape[1]) % 8 if kind == "day" else 3.0
    found: Floats = values + noise * by_day
    return found


@pytest.mark.parametrize("kind", ["normal", "heavy", "day"])
@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=seeds)
def test_bands_hold_what_comes_on_series_with_known_noise(kind: str, seed: int) -> None:
    panel = panel_of(noisy(kind, seed), EIGHTHS)
    origins = rolling_origins(panel.length, 56, 8, 8, 20, 46, 8)
    run = backtest(panel, origins, 8, SIMPLE, silent)
    covered = scores(run, CHOICE)["coverage"]
    for level in LEVELS:
        assert abs(covered[str(level)]["mean"] - level / 100) < 0.03
        assert covered[str(level)]["within10"] >= 0.9
    assert scores(run, CHOICE)["mase"] < 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=seeds, models=st.integers(1, 5), origins=st.integers(0, 8), series=st.integers(1, 4), missing=st.floats(0, 1)
)
def test_shares_lie_on_the_simplex_whatever_is_missing(
    seed: int, models: int, origins: int, series: int, missing: float
) -> None:
    dice = np.random.default_rng(seed)
    errors = dice.standard_normal((models, origins, series, 6)) * dice.random((models, 1, series, 1)) * 100
    errors[dice.random(errors.shape) < missing] = np.nan
    found = shares(errors, dice.random(series) * 10)
    assert found.shape == (models, series)
    assert (found >= 0).all() and np.allclose(found.sum(axis=0), 1)
    mixed = combined(errors[:, 0], found) if origins else found
    assert not np.isnan(mixed).any() or np.isnan(errors).any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=seeds)
def test_the_best_model_gets_the_most_and_a_useless_one_little(seed: int) -> None:
    dice = np.random.default_rng(seed)
    errors = dice.standard_normal((3, 30, 4, 8)) * np.array([1.0, 4.0, 30.0])[:, None, None, None]
    found = shares(errors, np.ones(4))
    assert (found[0] > found[1]).all() and (found[1] >= found[2]).all() and (found[2] < 0.05).all()


@given(forecasts=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=5), data=st.data())
def test_a_combination_lies_between_the_least_and_the_largest(forecasts: list[float], data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(forecasts), max_size=len(forecasts))))
    found = combined(np.array(forecasts)[:, None, None], (weights / weights.sum())[:, None])
    assert min(forecasts) - 1e-6 <= found[0, 0] <= max(forecasts) + 1e-6


@given(st.integers(1, 400))
def test_buckets_cover_every_step_once(horizon: int) -> None:
    assert [step for part in buckets(horizon) for step in range(horizon)[part]] == list(range(horizon))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=seeds, alpha=st.floats(0.01, 0.6))
def test_a_quantile_leaves_no_more_outside_than_asked_for(seed: int, alpha: float) -> None:
    found = np.abs(np.random.default_rng(seed).standard_normal((20, 3, 5)))
    [reach] = score_quantiles(found, [np.full(3, alpha)])
    weight = np.repeat(0.95 ** np.arange(19, -1, -1.0), 5)
    for row in range(3):
        outside = weight[found[:, row].reshape(-1) > reach[row]].sum() / weight.sum()
        assert outside <= alpha + 1e-9


def test_without_scores_a_band_is_infinite_and_levels_stay() -> None:
    [reach] = score_quantiles(np.empty((0, 2, 3)), [np.full(2, 0.2)])
    assert np.isinf(reach).all()
    [reach] = score_quantiles(np.full((2, 2, 3), np.nan), [np.full(2, 0.2)])
    assert np.isinf(reach).all()
    assert (recent_levels(np.full((3, 2), np.nan)) == 1).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=seeds, horizon=st.integers(1, 130), origin=st.integers(224, 400))
def test_the_naive_repeats_the_newest_whole_week(seed: int, horizon: int, origin: int) -> None:
    values = np.abs(np.random.default_rng(seed).standard_normal((2, 560))) * 100
    found = seasonal_naive(panel_of(values, EIGHTHS), origin, horizon)
    for step in range(horizon):
        source = origin + step - 56 * (step // 56 + 1)
        np.testing.assert_array_equal(found[:, step], values[:, source])


def rows(seed: int) -> list[str]:
    """A CSV of two series with some impossible and some doubled rows."""
    dice, values = random.Random(seed), noisy("normal", seed, series=2, weeks=6)
    lines = []
    for series in range(2):
        for slot, value in enumerate(values[series]):
            day, hour = divmod(3 * slot, 24)
            stamp = f"2016-{10 + day // 28:02}-{1 + day % 28:02} {hour:02}"
            lines.append(f"s{series},{stamp}:{dice.choice(['00', '01', '05'])}:00,{value:.2f},500")
            if dice.random() < 0.05:
                lines.append(f"s{series},{stamp}:02:00,{dice.choice([-1.0, 600.0, value + 1]):.2f},500")
    return lines


OPTIONS = Options("3h", horizon=8, season=56, origins=5, backends=SIMPLE)


def figures_of(lines: list[str]) -> dict[str, Any]:
    found = backtest_csv(["series,time,value,capacity", *lines], OPTIONS, silent)
    for one in (*found["backends"].values(), found["choice"]):
        del one["train_ms"], one["predict_ms"]
    return found


@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=seeds)
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    lines = rows(seed)
    mixed = random.Random(seed).sample(lines, len(lines))
    found = figures_of(lines)
    assert figures_of(mixed) == found
    assert found["series"] == 2 and found["cleaned"] > 0
