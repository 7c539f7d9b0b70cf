"""Panels of series with a known pattern, for the tests of models."""

from __future__ import annotations

import numpy as np

from services.forecasting.app.panel import Floats, Panel
from services.forecasting.domain.grid import Grid

HOURLY = Grid(3_600, 168)
DAILY = Grid(86_400, 7)


def panel_of(values: Floats, grid: Grid = HOURLY, capacity: Floats | None = None, first: int = 0) -> Panel:
    names = tuple(f"s{row}" for row in range(len(values)))
    limits = np.full_like(values, np.nan) if capacity is None else capacity
    return Panel(grid, names, first, values, limits)


def weekly(series: int, weeks: int, grid: Grid = HOURLY, noise: float = 0.0, seed: int = 1) -> Floats:
    """The same positive week again and again, another for each series, with normal noise of the given deviation."""
    dice = np.random.default_rng(seed)
    week = 50 + 20 * dice.random((series, grid.season))
    found: Floats = np.tile(week, weeks) + noise * dice.standard_normal((series, weeks * grid.season))
    return found
