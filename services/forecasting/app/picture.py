"""A picture of a backtest's last origin: what was known, what was forecast with its bands, and what came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from services.forecasting.app.backtest import CHOICE, Run
from services.forecasting.app.intervals import LEVELS

SERIES_MAX = 6


def draw(run: Run, path: Path) -> None:
    """Up to six series, one below the other."""
    count = min(SERIES_MAX, len(run.panel.names))
    figure, axes = plt.subplots(count, 1, figsize=(10, 2.2 * count), squeeze=False, constrained_layout=True)
    for row in range(count):
        _one(axes[row, 0], run, row)
    figure.savefig(path)
    plt.close(figure)


def _one(axis: Any, run: Run, row: int) -> None:
    origin = run.origins.test[-1]
    before = np.arange(max(0, origin - run.horizon), origin)
    ahead = np.arange(origin, origin + run.horizon)
    forecast = run.forecasts[CHOICE][-1][row]
    axis.plot(before, run.panel.values[row, before], color="0.4", linewidth=1)
    for level in reversed(LEVELS):
        half = run.halves[CHOICE][level][-1][row]
        low = np.clip(forecast - half, 0, None)
        axis.fill_between(ahead, low, forecast + half, color="tab:blue", alpha=0.15, linewidth=0, label=f"{level} %")
    axis.plot(ahead, forecast, color="tab:blue", linewidth=1.2, label="forecast")
    axis.plot(ahead, run.truth[-1][row], color="black", linewidth=1, label="what came")
    axis.set_title(run.panel.names[row], fontsize=9, loc="left")
    axis.legend(fontsize=7, loc="upper left", ncols=5)
