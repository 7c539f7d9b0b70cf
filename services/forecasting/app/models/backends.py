"""The list of models, by name. Each is trained on the past of a panel and then forecasts every series from any later origin."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from services.forecasting.app.models.seasonal import bounded, filled
from services.forecasting.app.models.simple import profile_level, seasonal_naive, smoothing
from services.forecasting.app.panel import Floats, Panel

Forecaster = Callable[[Panel, int, int], Floats]
"""(panel, origin, horizon) to (S, H), from columns before `origin` only."""
Trainer = Callable[[Panel, int, int, int], Forecaster | None]
"""(panel, end, horizon, until): learns from columns before `end`; its origins are `end` to `end + until`. None: too little to learn from."""


@dataclass(frozen=True)
class Bounded:
    """A forecaster whose holes are filled and whose bounds are kept."""

    inner: Forecaster

    def __call__(self, panel: Panel, origin: int, horizon: int) -> Floats:
        return bounded(filled(self.inner(panel, origin, horizon), panel, origin), panel, origin)


@dataclass(frozen=True)
class Backend:
    """A model by name. `trained` says whether training costs anything."""

    name: str
    train: Trainer
    trained: bool = True

    def forecaster(self, panel: Panel, end: int, horizon: int, until: int) -> Bounded | None:
        """What it learnt, with holes filled and bounds kept."""
        learnt = self.train(panel, end, horizon, until)
        return None if learnt is None else Bounded(learnt)


def _plain(forecaster: Forecaster) -> Trainer:
    return lambda panel, end, horizon, until: forecaster


def _boosting(panel: Panel, end: int, horizon: int, until: int) -> Forecaster | None:
    from services.forecasting.app.models import boosting  # noqa: PLC0415 - LightGBM takes a second to import

    learnt = boosting.train(panel, end, horizon, until)
    return None if learnt is None else learnt.predict


def _trend(panel: Panel, end: int, horizon: int, until: int) -> Forecaster | None:
    for name in ("prophet", "prophet.plot", "cmdstanpy"):
        logging.getLogger(name).disabled = True  # they report every fit, and what they could not import
    from services.forecasting.app.models import trend  # noqa: PLC0415 - Prophet takes a second to import

    return trend.train(panel, end, until + horizon).predict


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("naive", _plain(seasonal_naive), trained=False),
        Backend("smoothing", _plain(smoothing), trained=False),
        Backend("profile", _plain(profile_level), trained=False),
        Backend("lightgbm", _boosting),
        Backend("prophet", _trend),
    )
}
