"""What runs in the computing process, run here: blocks, their joining, forecasts, causes; Prophet; the figure that cannot be measured."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest

from services.commands.bench import holds
from services.forecasting import bench
from services.forecasting.app import backtest, compute, model
from services.forecasting.app.combination import buckets
from services.forecasting.app.models import trend
from services.forecasting.app.panel import Floats
from services.forecasting.app.snapshot import NOTHING, Part, Snapshot
from services.forecasting.domain.grid import Grid
from tests.unit.forecasting.panels import DAILY, panel_of, weekly

HALF_HOURS = Grid(1_800, 336)
SIMPLE = ("naive", "smoothing", "profile")
WEEKS = 7
UNTIL = 8 * 48


def snapshot(values: Floats, names: tuple[str, ...], capacity: float | None = None) -> Snapshot:
    limits = b"" if capacity is None else np.full(values.shape, capacity, np.float32).tobytes()
    return Snapshot(names, 800_016, values.shape[1], values.astype(np.float32).tobytes(), limits)


def trained(folder: Path, values: Floats, names: tuple[str, ...], backends: tuple[str, ...] = SIMPLE) -> Part:
    return compute.train(snapshot(values, names), backends, UNTIL, folder)


def rows(data: bytes, series: int) -> list[list[int]]:
    found = array("q")
    found.frombytes(data)
    width = len(found) // series
    return [list(found[row * width : (row + 1) * width]) for row in range(series)]


def test_blocks_are_joined_and_each_answers_for_its_series(tmp_path: Path) -> None:
    values = weekly(5, WEEKS, HALF_HOURS, noise=2.0)
    values[3] *= 10
    parts = [trained(tmp_path, values[:2], ("a", "b")), trained(tmp_path, values[2:4], ("c", "d"))]
    joined = compute.join(parts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [joined.path.name], "the parts are removed"
    assert joined.series == 4 and joined.origins == parts[0].origins > 40
    assert joined.mase["choice"] == pytest.approx(np.mean([part.mase["choice"] for part in parts]))
    assert 0.7 < joined.coverage[80] < joined.coverage[95] <= 1
    found = compute.forecast(snapshot(values, ("d", "a", "new", "c", "b"), 700.0), joined.path, 60)
    wrong_order = compute.forecast(snapshot(values[[3, 0]], ("d", "a"), 700.0), joined.path, 60)
    assert found.reasons == ("",) * 5 and [set(one) for one in found.shares] == [set(SIMPLE)] * 5
    low, high = rows(found.bands[95][0], 5), rows(found.bands[95][1], 5)
    assert set(low[2]) == set(high[2]) == {NOTHING}, "errors of a series that was not there are not known"
    assert max(map(max, high)) <= 700_000 and min(low[0]) >= 0
    assert wrong_order.horizon == 60


def test_forecasts_repeat_what_repeats_and_closed_places_have_none(tmp_path: Path) -> None:
    values = weekly(1, WEEKS, HALF_HOURS)
    expected = np.rint(1_000 * values[0, :48].astype(np.float32))
    values[0, 20::48] = np.nan
    found = rows(compute.forecast(snapshot(values, ("a",)), None, 48).values, 1)[0]
    assert found[20] == NOTHING
    np.testing.assert_allclose(np.delete(found, 20), np.delete(expected, 20), atol=1)


def test_lots_shut_at_night_have_bands_at_every_step_ahead(tmp_path: Path) -> None:
    """Whenever the forecast is made: errors of the first steps are known from other times of day than midnight, too."""
    values = weekly(3, WEEKS, HALF_HOURS, noise=4.0)
    night = np.arange(values.shape[1]) % 48
    values[:, (night < 16) | (night > 33)] = np.nan
    tried = compute._tried(compute.panel_of(snapshot(values, ("a", "b", "c"))), SIMPLE)
    assert tried is not None
    for steps in buckets(tried.horizon):
        assert not np.isnan(tried.truth[..., steps]).all(), f"nothing came {steps} ahead"
    path = compute.join([trained(tmp_path, values, ("a", "b", "c"))], tmp_path).path
    for hours_open in (2, 10):
        until_now = np.concatenate([values, values[:, : 16 + hours_open]], axis=1)
        found = compute.forecast(snapshot(until_now, ("a", "b", "c")), path, 6)
        low, high = (rows(bound, 3) for bound in found.bands[80])
        assert all(0 <= a < b for lows, highs in zip(low, high, strict=True) for a, b in zip(lows, highs, strict=True))


def test_a_step_ahead_of_which_nothing_is_known_is_no_surer_than_a_longer_one() -> None:
    reach = np.array([[np.inf, 2.0, np.inf, 5.0], [1.0, np.inf, np.inf, np.inf]])
    found = backtest.from_longer(reach)
    np.testing.assert_array_equal(found, [[2.0, 2.0, 5.0, 5.0], [1.0, np.inf, np.inf, np.inf]])


def test_causes_sum_to_the_forecast_with_and_without_a_boosted_model(tmp_path: Path) -> None:
    values = weekly(2, 5, HALF_HOURS, noise=5.0)
    part = trained(tmp_path, values, ("a", "b"), ("naive", "lightgbm"))
    path = compute.join([part], tmp_path).path
    column = values.shape[1] + 7
    for at in (None, path):
        found = compute.explain(snapshot(values[:1], ("a",)), at, column)
        assert found.profile + sum(effect for _, effect in found.causes) == pytest.approx(found.value, abs=1e-6)
        sizes = [abs(effect) for _, effect in found.causes]
        assert sizes == sorted(sizes, reverse=True)
    assert "last week against the profile" in dict(found.causes)


def test_a_file_that_is_not_what_its_name_says_is_not_read(tmp_path: Path) -> None:
    path, _ = model.save("anything", tmp_path, ".model")
    assert model.read(path) == "anything"
    path.write_bytes(b"otherwise")
    with pytest.raises(ValueError, match="does not have the hash"):
        model.read(path)


def test_without_enough_history_there_are_equal_shares_and_no_bands(tmp_path: Path) -> None:
    values = weekly(2, 3, HALF_HOURS)
    part = trained(tmp_path, values, ("a", "b"))
    assert (part.origins, part.mase, part.coverage) == (0, {}, {})
    found = compute.forecast(snapshot(values, ("a", "b")), compute.join([part], tmp_path).path, 4)
    assert found.bands == {} and found.shares[0] == {"naive": 33, "smoothing": 33, "profile": 33}


def test_prophet_follows_a_week_and_says_nothing_of_a_series_without_values() -> None:
    values = weekly(2, 20, DAILY)
    values[1] = np.nan
    curve = trend.train(panel_of(values, DAILY, first=14_000), 133, 7)
    found = curve.predict(panel_of(values, DAILY), 133, 7)
    np.testing.assert_allclose(found[0], values[0, 133:140], atol=2)
    assert np.isnan(found[1]).all()


def test_a_figure_without_its_data_says_that_it_was_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_birmingham", lambda: None)
    figure = bench.birmingham_rate()
    assert figure["value"] is None and figure["how"].startswith("not run") and holds(figure)
