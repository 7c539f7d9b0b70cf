"""The models and what they share: exact on what repeats, no look ahead, closed hours, stuck sensors, moving capacities, holidays."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from services.forecasting.app.models import boosting, calendar, seasonal
from services.forecasting.app.models.backends import BACKENDS
from services.forecasting.app.models.curve import Curve
from services.forecasting.app.models.simple import level_error, profile_level, seasonal_naive, smoothing
from services.forecasting.app.panel import Panel, carried, make_panel
from services.forecasting.app.quality import closed, learnable, reasons, stuck
from services.forecasting.domain.grid import Grid
from services.forecasting.domain.observations import Series
from tests.unit.forecasting.panels import DAILY, HOURLY, panel_of, weekly

SIMPLE = ("naive", "smoothing", "profile")
HALF_HOURS = Grid(1_800, 336)


def test_series_stand_side_by_side_and_capacities_are_carried() -> None:
    series = {"a": Series({5: 1.0, 7: 3.0}, {5: 10.0}), "b": Series({6: 2.0}), "c": Series()}
    found = make_panel(series, HOURLY)
    np.testing.assert_array_equal(found.values, [[1, np.nan, 3], [np.nan, 2, np.nan], [np.nan] * 3])
    np.testing.assert_array_equal(found.capacity[0], [10, 10, 10])
    assert list(found.limits(2)) == [10, np.inf, np.inf]
    assert found.only([1]).names == ("b",)
    np.testing.assert_array_equal(carried(np.array([[np.nan, 4, np.nan, 5]])), [[4, 4, 4, 5]])


@pytest.mark.parametrize("name", SIMPLE)
def test_the_simple_models_are_exact_on_what_repeats_at_any_horizon(name: str) -> None:
    panel = panel_of(weekly(3, 7))
    forecaster = BACKENDS[name].forecaster(panel, 600, 400, 0)
    assert forecaster is not None
    np.testing.assert_allclose(forecaster(panel, 600, 400), panel.values[:, 600:1_000])


@pytest.mark.parametrize("name", SIMPLE)
def test_nothing_after_the_origin_is_looked_at(name: str) -> None:
    values = weekly(2, 7, noise=3.0)
    later = values.copy()
    later[:, 700:] = np.nan
    forecaster = BACKENDS[name].forecaster(panel_of(values), 700, 168, 0)
    assert forecaster is not None
    np.testing.assert_array_equal(forecaster(panel_of(values), 700, 168), forecaster(panel_of(later), 700, 168))


def test_the_naive_says_the_newest_week_there_is() -> None:
    values = np.arange(4.0 * 168)[None, :]
    values[0, 3 * 168 + 5] = np.nan
    found = seasonal_naive(panel_of(values), 4 * 168, 10)
    np.testing.assert_array_equal(found[0], [*range(504, 509), 5 + 2 * 168, *range(510, 514)])


def test_smoothing_chooses_the_weight_with_the_least_error() -> None:
    steps = np.repeat(np.arange(10.0), 168)[None, :] * 10 + 5
    found = smoothing(panel_of(steps), 10 * 168, 1)
    assert 80 < found[0, 0] < 95, "a level that climbs asks for the largest weight"


def test_the_level_correction_decays() -> None:
    values = np.tile(50.0, (1, 5 * 168))
    values[0, -4:] += 20
    panel = panel_of(values)
    assert level_error(panel, 840)[0] == pytest.approx(20)
    found = profile_level(panel, 840, 48)[0]
    assert 69 < found[0] < 70 and found[47] < found[0] - 10 and (np.diff(found) < 0).all()
    assert level_error(panel_of(np.full((1, 840), np.nan)), 840)[0] == 0


def test_holes_are_filled_from_the_same_time_of_day_then_from_the_mean_then_with_nothing() -> None:
    values = np.full((3, 4 * 168), np.nan)
    values[0, 8::24] = 7
    values[1, 9::24] = 5
    found = seasonal_naive(panel_of(values), 672, 24)
    assert found[0, 8] == 7 and found[0, 9] == 7 and found[1, 8] == 5
    assert (found[2] == 0).all()
    short = seasonal.filled(np.full((1, 3), np.nan), panel_of(np.full((1, 5), 4.0)), 5)
    np.testing.assert_array_equal(short, [[4, 4, 4]])
    nothing = seasonal.filled(np.full((1, 3), np.nan), panel_of(np.full((1, 5), 4.0)), 0)
    np.testing.assert_array_equal(nothing, [[0, 0, 0]])


def test_no_forecast_exceeds_the_capacity_that_was_said_last() -> None:
    values, capacity = weekly(1, 5), np.full((1, 840), 100.0)
    capacity[0, 800:] = 55
    forecaster = BACKENDS["naive"].forecaster(panel_of(values, capacity=capacity), 840, 168, 0)
    assert forecaster is not None
    assert forecaster(panel_of(values, capacity=capacity), 840, 168).max() == 55
    assert forecaster(panel_of(values, capacity=capacity), 790, 168).max() > 55


def test_a_stuck_sensor_is_not_learnt_from_until_it_moves() -> None:
    values = weekly(2, 3)
    values[0, 200:400] = 33
    values[1, 200:400] = 0
    values[0, 300] = np.nan
    panel = panel_of(values)
    mask = stuck(panel)
    assert not mask[0, :272].any() and mask[0, 273:300].all() and mask[0, 301:400].all() and not mask[0, 400:].any()
    assert not mask[1].any(), "an empty car park is no stuck sensor"
    seen, held = learnable(panel)
    assert np.isnan(seen.values[0, 350]) and (held == mask).all()


def test_an_hour_never_seen_is_closed_and_a_gap_is_not() -> None:
    values = weekly(4, 6)
    hour = np.arange(values.shape[1]) % 24
    values[0, (hour < 8) | (hour > 16)] = np.nan
    values[1, np.random.default_rng(1).random(values.shape[1]) < 0.3] = np.nan
    values[2, :] = np.nan
    values[3, : 5 * 168] = np.nan
    values[3, hour == 3] = np.nan
    shut = closed(panel_of(values), 1_008, 24)
    np.testing.assert_array_equal(shut[0], [h < 8 or h > 16 for h in range(24)])
    assert not shut[1].any() and not shut[2].any()
    np.testing.assert_array_equal(shut[3], [h == 3 for h in range(24)])


def test_days_closed_each_week_are_closed() -> None:
    values = weekly(1, 6)
    values[:, np.arange(values.shape[1]) // 24 % 7 == 6] = np.nan
    shut = closed(panel_of(values), 1_008, 168)[0].reshape(7, 24)
    assert shut[6].all() and not shut[:6].any()


def test_series_without_a_forecast_have_a_reason() -> None:
    values = weekly(5, 5)
    values[1, -100:] = 12
    values[2, -80:] = np.nan
    values[3, :-100] = np.nan
    values[4, :] = np.nan
    panel = panel_of(values)
    assert reasons(panel, stuck(panel)) == ["", "stuck", "silent", "too-short", "silent"]


def test_the_seasonal_error_is_the_mean_difference_from_a_season_before() -> None:
    values = np.concatenate([np.zeros((1, 168)), np.full((1, 168), 3.0), np.full((1, 168), 99.0)], axis=1)
    assert seasonal.seasonal_error(panel_of(values), 336)[0] == 3
    assert np.isnan(seasonal.seasonal_error(panel_of(values), 100)[0])


def american(weeks: int, dice: np.random.Generator) -> tuple[Panel, set[int]]:
    """Stations that are half empty on the holidays of the United States, by day since 2009."""
    import holidays  # noqa: PLC0415 - what the model should find

    first = (date(2009, 1, 5) - date(1970, 1, 1)).days
    values = weekly(4, weeks, DAILY, noise=0.5)
    off = {(day - date(2009, 1, 5)).days for day in holidays.country_holidays("US", years=range(2009, 2016))}
    days = {day for day in off if 0 <= day < values.shape[1]}
    values[:, sorted(days)] *= 0.5
    return panel_of(values, DAILY, first=first), days


def test_holidays_are_found_in_the_data_and_the_boosted_model_learns_them() -> None:
    panel, days = american(170, np.random.default_rng(3))
    found = calendar.holidays_of(panel, panel.length - 60, 60)
    assert found is not None and found.country == "US"
    assert {day for day in np.flatnonzero(found.kinds == calendar.HOLIDAY) if day < panel.length} == days
    christmas = max(day for day in days if (panel.first + day) % 365 > 0 and found.previous[day] in (365, 366))
    assert christmas - found.previous[christmas] in days
    origin = max(day for day in days if day < panel.length - 1) - 3
    model = boosting.train(panel, origin, 7, 7)
    assert model is not None and model.days is not None
    forecast = model.predict(panel, origin, 7)
    off = np.abs(forecast - panel.values[:, origin : origin + 7])
    assert off.mean() < 3 and np.abs(seasonal_naive(panel, origin, 7) - panel.values[:, origin : origin + 7]).mean() > off.mean()  # fmt: skip


def test_no_holidays_are_found_where_there_are_none_or_the_grid_has_no_days() -> None:
    ordinary = panel_of(weekly(3, 60, DAILY, noise=2.0), DAILY, first=14_000)
    assert calendar.holidays_of(ordinary, ordinary.length, 7) is None
    assert calendar.holidays_of(replace(ordinary, grid=Grid(7 * 3_600, 24)), 100, 7) is None
    assert calendar.holidays_of(replace(ordinary, grid=Grid(86_400, 5)), 100, 7) is None
    empty = panel_of(np.full((1, 100), np.nan), DAILY)
    assert calendar.holidays_of(empty, 100, 7) is None


def test_the_boosted_model_needs_a_past_and_says_what_moved_it() -> None:
    values = weekly(6, 12, noise=4.0)
    values[:, -30:] *= 1.3
    panel = panel_of(values)
    assert boosting.train(panel, 300, 24, 24) is None
    assert boosting.train(panel_of(values[:, :400] * np.nan), 400, 24, 24) is None
    model = boosting.train(panel, panel.length, 24, 24)
    assert model is not None and model.days is None
    forecast = model.predict(panel, panel.length, 24)
    effects = dict(model.effects(panel, panel.length, 24, 5))
    assert set(effects) < set(boosting.FEATURES)
    base = boosting.cut(boosting.residuals(panel, panel.length, None), panel.length, 24).base
    constant = forecast[0, 5] - base[0, 5] - sum(effects.values())
    assert abs(constant) < 1.0, "the effects and one constant make the forecast"
    np.testing.assert_array_equal(forecast, model.predict(panel, panel.length, 24))


def test_a_curve_ends_where_it_ends() -> None:
    curve = Curve(100, np.arange(10.0)[None, :])
    found = curve.predict(panel_of(np.zeros((1, 200))), 107, 5)
    np.testing.assert_array_equal(found, [[7, 8, 9, np.nan, np.nan]])
