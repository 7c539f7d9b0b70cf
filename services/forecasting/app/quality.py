"""Which values a model may learn from, which half hours are closed, and which series have nothing to forecast from.

A sensor that shows the same figure for days is stuck, and what it shows is no measurement. A place that is never observed at some time of the
week is closed then: that is no zero, nothing is learnt from it and nothing is forecast for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from services.forecasting.app.models.seasonal import WEEKS, past_seasons
from services.forecasting.app.panel import Floats, Panel

STUCK_DAYS = 3
STUCK_SLOTS_MIN = 14

SHORT, STUCK, SILENT = "too-short", "stuck", "silent"
SILENT_DAYS = 3
FIRST_DAYS = 6
"""Days a series must span before anything is said of it."""
CLOSED_SEASONS_MIN, CLOSED_DAYS_MIN = 3, 3

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


def closed(panel: Panel, origin: int, horizon: int) -> Bools:
    """Shape (S, H): targets at a place of the season that no season of the last four saw, three of which saw something;
    or, in a young series, at a time of day that none of its days saw, three at least."""
    season, day = panel.grid.season, panel.grid.day
    past = np.logical_not(np.isnan(past_seasons(panel, origin, horizon, WEEKS))).any(axis=1)
    start = max(0, origin - WEEKS * season)
    seen = np.logical_not(np.isnan(panel.values[:, start:origin]))
    seasons, days = _active(seen, season), _active(seen, day)
    times = np.stack([seen[:, (at - start) % day :: day].any(axis=1) for at in range(origin, origin + day)], axis=1)
    at_time = times[:, np.arange(horizon) % day]
    never = ~past & (seasons >= CLOSED_SEASONS_MIN)[:, None]
    young = ~past & ~at_time & (days >= CLOSED_DAYS_MIN)[:, None]
    shut: Bools = never | young
    return shut


def _active(seen: Bools, slots: int) -> npt.NDArray[np.int64]:
    """Shape (S,): how many of the stretches of `slots` columns, counted back from the end, saw anything."""
    edges = range(seen.shape[1], 0, -slots)
    found: npt.NDArray[np.int64] = np.zeros(len(seen), np.int64)
    for edge in edges:
        found += seen[:, max(0, edge - slots) : edge].any(axis=1)
    return found


def reasons(panel: Panel, stuck_at: Bools) -> list[str]:
    """Why a series gets no forecast; empty where it gets one."""
    seen, day = np.logical_not(np.isnan(panel.values)), panel.grid.day
    any_seen = seen.any(axis=1)
    last = np.where(any_seen, panel.length - 1 - seen[:, ::-1].argmax(axis=1), -SILENT_DAYS * day)
    span = last - np.where(any_seen, seen.argmax(axis=1), 0)
    held = stuck_at[np.arange(len(last)), np.maximum(last, 0)]
    short = np.where(span < FIRST_DAYS * day, SHORT, "")
    silent = np.where(panel.length - last > SILENT_DAYS * day, SILENT, short)
    return [str(word) for word in np.where(held, STUCK, silent)]


def last_seen(panel: Panel, origin: int) -> npt.NDArray[np.int64]:
    """Shape (S,): the newest column before `origin` that has a value; 0 where none has."""
    seen = np.logical_not(np.isnan(panel.values[:, :origin]))
    found: npt.NDArray[np.int64] = np.where(seen.any(axis=1), origin - 1 - seen[:, ::-1].argmax(axis=1), 0)
    return found


def _carried_with_gaps(rows: Floats) -> Floats:
    """Gaps take the value before them, so that a gap does not end a run."""
    at = np.maximum.accumulate(np.where(np.isnan(rows), 0, np.arange(rows.shape[1])), axis=1)
    return np.nan_to_num(np.take_along_axis(rows, at, axis=1), nan=-1.0)
