"""Which values a model may learn from: a sensor that shows the same figure for days is stuck, and what it shows is no measurement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from services.forecasting.app.panel import Floats, Panel

STUCK_DAYS = 3
STUCK_SLOTS_MIN = 14

Bools = npt.NDArray[np.bool_]


def stuck(panel: Panel) -> Bools:
    """Shape (S, T): values that repeat the ones before for three days (14 slots at least). Nothing is a measurement too: zeros are kept.

    A value is judged by the ones before it alone, so a backtest knows no more than the city did.
    """
    limit = max(STUCK_SLOTS_MIN, STUCK_DAYS * panel.grid.day)
    known = _carried_with_gaps(panel.values)
    changes = np.ones(known.shape, dtype=bool)
    changes[:, 1:] = known[:, 1:] != known[:, :-1]
    last_change = np.maximum.accumulate(np.where(changes, np.arange(known.shape[1]), 0), axis=1)
    seen = (~np.isnan(panel.values)).cumsum(axis=1)
    repeated = seen - np.take_along_axis(seen, last_change, axis=1)
    mask: Bools = (repeated >= limit) & (panel.values > 0)
    return mask


def learnable(panel: Panel) -> tuple[Panel, Bools]:
    """The panel without stuck values, and where they were."""
    mask = stuck(panel)
    return replace(panel, values=np.where(mask, np.nan, panel.values)), mask


def _carried_with_gaps(rows: Floats) -> Floats:
    """Gaps take the value before them, so that a gap does not end a run."""
    at = np.maximum.accumulate(np.where(np.isnan(rows), 0, np.arange(rows.shape[1])), axis=1)
    return np.nan_to_num(np.take_along_axis(rows, at, axis=1), nan=-1.0)
