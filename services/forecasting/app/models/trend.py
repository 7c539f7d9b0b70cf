"""Prophet (Taylor and Letham 2018): piecewise-linear trend, daily and weekly seasons, holidays where a country is given.

Point forecasts only (`uncertainty_samples=0`): the intervals come from the backtest, as for every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from prophet import Prophet

from services.forecasting.app.panel import Floats, Panel

LEARNT_SEASONS = 26
ROWS_MIN = 20
_DAILY_ORDER, _WEEKLY_ORDER = 6, 8


@dataclass(frozen=True)
class Trend:
    """What the fits say of the columns after `start`: shape (S, L). New values do not move it, so the curve is all that is kept."""

    start: int
    curve: Floats

    def predict(self, panel: Panel, origin: int, horizon: int) -> Floats:
        """Shape (S, H); NaN in rows without a fit and beyond the curve's end."""
        found = np.full((len(panel.names), horizon), np.nan)
        known = self.curve[:, origin - self.start : origin - self.start + horizon]
        found[:, : known.shape[1]] = known
        return found


def train(panel: Panel, end: int, ahead: int, country: str = "") -> Trend:
    """Fits each series to its last 26 seasons before `end`, and says what it makes of the `ahead` columns from there."""
    start = max(0, end - LEARNT_SEASONS * panel.grid.season)
    columns = np.arange(start, end)
    when = pandas.DataFrame({"ds": _times(panel, np.arange(end, end + ahead))})
    fits = [_fit(panel, values[start:end], columns, country) for values in panel.values]
    curves = [np.full(ahead, np.nan) if fit is None else fit.predict(when)["yhat"].to_numpy() for fit in fits]
    return Trend(end, np.stack(curves))


def _fit(panel: Panel, values: Floats, columns: Any, country: str) -> Any | None:
    seen = ~np.isnan(values)
    if seen.sum() < ROWS_MIN:
        return None
    daily = panel.grid.day > 1
    model = Prophet(
        uncertainty_samples=0,
        yearly_seasonality=bool(columns.size * panel.grid.freq_s > 2 * 365 * 86_400),
        weekly_seasonality=_WEEKLY_ORDER if daily else 3,
        daily_seasonality=_DAILY_ORDER if daily else False,
    )
    if country:
        model.add_country_holidays(country)
    frame = pandas.DataFrame({"ds": _times(panel, columns[seen]), "y": values[seen]})
    return model.fit(frame)


def _times(panel: Panel, columns: Any) -> Any:
    return pandas.to_datetime((panel.first + columns) * panel.grid.freq_s, unit="s")
