"""Prophet (Taylor and Letham 2018): piecewise-linear trend, daily, weekly and yearly seasons, and the holidays that show in the data.

Point forecasts only (`uncertainty_samples=0`): the intervals come from the backtest, as for every model.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas
from prophet import Prophet

from services.forecasting.app.models.calendar import holidays_of
from services.forecasting.app.models.curve import Curve
from services.forecasting.app.panel import Floats, Panel

LEARNT_SEASONS = 16
LEARNT_SEASONS_DAILY = 156
ROWS_MIN = 20
_DAILY_ORDER, _WEEKLY_ORDER, _WEEKLY_ORDER_OF_DAYS = 6, 8, 3
_YEARLY_S = 1.5 * 365 * 86_400


def train(panel: Panel, end: int, ahead: int) -> Curve:
    """Fits each series to its last 16 seasons (of days: three years) before `end`, and says what it makes of the `ahead` columns from there."""
    learnt = LEARNT_SEASONS_DAILY if panel.grid.day == 1 else LEARNT_SEASONS
    start = max(0, end - learnt * panel.grid.season)
    columns = np.arange(start, end)
    when = pandas.DataFrame({"ds": _times(panel, np.arange(end, end + ahead))})
    days = holidays_of(panel, end, ahead)
    country = days.country if days else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Prophet's use of pandas is not ours to change
        fits = [_fit(panel, values[start:end], columns, country) for values in panel.values]
        curves = [np.full(ahead, np.nan) if fit is None else fit.predict(when)["yhat"].to_numpy() for fit in fits]
    return Curve(end, np.stack(curves))


def _fit(panel: Panel, values: Floats, columns: Any, country: str) -> Any | None:
    seen = ~np.isnan(values)
    if seen.sum() < ROWS_MIN:
        return None
    daily = panel.grid.day > 1
    model = Prophet(
        uncertainty_samples=0,
        yearly_seasonality=bool(columns.size * panel.grid.freq_s > _YEARLY_S),
        weekly_seasonality=_WEEKLY_ORDER if daily else _WEEKLY_ORDER_OF_DAYS,
        daily_seasonality=_DAILY_ORDER if daily else False,
    )
    if country:
        model.add_country_holidays(country)
    frame = pandas.DataFrame({"ds": _times(panel, columns[seen]), "y": values[seen]})
    return model.fit(frame)


def _times(panel: Panel, columns: Any) -> Any:
    return pandas.to_datetime((panel.first + columns) * panel.grid.freq_s, unit="s")
