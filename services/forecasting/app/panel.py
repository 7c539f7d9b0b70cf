"""Many series on one grid as arrays. Made of domain series, used by every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.forecasting.domain.grid import Grid
from services.forecasting.domain.observations import Series

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Series side by side.

    Attributes:
        names: of the S series.
        first: grid slot of column 0.
        values: shape (S, T), NaN where nothing was observed.
        capacity: shape (S, T), NaN where unknown; carried forward between observations.
    """

    grid: Grid
    names: tuple[str, ...]
    first: int
    values: Floats
    capacity: Floats

    @property
    def length(self) -> int:
        return int(self.values.shape[1])

    def limits(self, origin: int) -> Floats:
        """Shape (S,): the capacity that holds at column `origin`; infinite where unknown."""
        known = self.capacity[:, max(0, origin - 1)]
        return np.where(np.isnan(known), np.inf, known)

    def only(self, rows: Sequence[int]) -> Panel:
        """The panel of the named rows."""
        index = list(rows)
        names = tuple(self.names[row] for row in index)
        return Panel(self.grid, names, self.first, self.values[index], self.capacity[index])


def make_panel(series: Mapping[str, Series], grid: Grid) -> Panel:
    """Rows in the order of `series`; at least one of them has a value."""
    slots = [slot for one in series.values() for slot in (*one.values, *one.capacities)]
    first, end = min(slots), max(slots) + 1
    values = np.full((len(series), end - first), np.nan)
    capacity = np.full_like(values, np.nan)
    for row, one in enumerate(series.values()):
        _fill(values[row], one.values, first)
        _fill(capacity[row], one.capacities, first)
    return Panel(grid, tuple(series), first, values, carried(capacity))


def _fill(row: Floats, values: Mapping[int, float], first: int) -> None:
    if values:
        row[np.fromiter(values, int, len(values)) - first] = np.fromiter(values.values(), float, len(values))


def carried(rows: Floats) -> Floats:
    """The last known value carried forward; before the first one, that one."""
    known = ~np.isnan(rows)
    at = np.where(known, np.arange(rows.shape[1]), 0)
    forward = np.take_along_axis(rows, np.maximum.accumulate(at, axis=1), axis=1)
    first = np.take_along_axis(rows, known.argmax(axis=1)[:, None], axis=1)
    return np.where(np.isnan(forward), first, forward)
