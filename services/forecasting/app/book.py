"""Every series' observations in memory, for snapshots; the store holds the same and fills it at start."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import nan

from services.forecasting.app.snapshot import Snapshot
from services.forecasting.domain.wall import SLOT_S, wall_slot


@dataclass
class Row:
    """One series from local slot `first` on."""

    first: int
    values: array[float] = field(default_factory=lambda: array("d"))
    capacity: array[float] = field(default_factory=lambda: array("d"))
    count: int = 0

    def put(self, slot: int, value: float, capacity: float) -> None:
        while slot >= self.first + len(self.values):
            self.values.append(nan)
            self.capacity.append(nan)
        at = slot - self.first
        self.count += self.values[at] != self.values[at]
        self.values[at], self.capacity[at] = value, capacity


class Book:
    """The series by name. `history_slots` is the most that is kept of one."""

    def __init__(self, zone: str, history_slots: int) -> None:
        self._zone = zone
        self._history = history_slots
        self._rows: dict[str, Row] = {}
        self.last_time: dict[str, int] = {}

    def put(self, series: str, time: int, value: float, capacity: float) -> None:
        """Takes an observation of the half hour that holds `time` (unix seconds); older than the history is let go."""
        slot = wall_slot(self._zone, time)
        row = self._rows.setdefault(series, Row(slot))
        if slot < row.first:
            row = self._rows[series] = _extended(row, max(slot, row.first + len(row.values) - self._history))
        if slot >= row.first:
            row.put(slot, value, capacity)
        self.last_time[series] = max(time, self.last_time.get(series, 0))
        if len(row.values) > 2 * self._history:
            self._rows[series] = _cut(row, self._history)

    def names(self, prefix: str) -> list[str]:
        """The series of a group, in order."""
        return sorted(name for name in self._rows if name.startswith(prefix))

    def count(self, series: str) -> int:
        return self._rows[series].count

    def has(self, series: str) -> bool:
        return series in self._rows

    def snapshot(self, names: Sequence[str], until: int) -> Snapshot:
        """The named series up to the half hour before `until` (unix seconds), which is the first to forecast."""
        end = wall_slot(self._zone, until)
        first = max(min(self._rows[name].first for name in names), end - self._history)
        length = max(0, end - first)
        return Snapshot(
            tuple(names),
            first,
            length,
            b"".join(_columns(self._rows[name].values, self._rows[name].first, first, length) for name in names),
            b"".join(_columns(self._rows[name].capacity, self._rows[name].first, first, length) for name in names),
        )

    def target_columns(self, first: int, origin: int, horizon: int) -> Iterable[tuple[int, int]]:
        """(unix time, column after the origin's) of the `horizon` half hours from `origin` (unix seconds) on."""
        start = origin // SLOT_S * SLOT_S
        for step in range(horizon):
            time = start + step * SLOT_S
            yield time, wall_slot(self._zone, time) - first


def _columns(values: array[float], own_first: int, first: int, length: int) -> bytes:
    """`length` doubles from slot `first` on, NaN outside."""
    start = first - own_first
    inside = values[max(0, start) : max(0, start + length)]
    before = array("d", [nan]) * max(0, min(length, -start))
    after = array("d", [nan]) * (length - len(before) - len(inside))
    return (before + inside + after).tobytes()


def _extended(row: Row, first: int) -> Row:
    """The row with room before its first slot."""
    if first >= row.first:
        return row
    room = array("d", [nan]) * (row.first - first)
    return Row(first, room + row.values, room + row.capacity, row.count)


def _cut(row: Row, history: int) -> Row:
    return Row(row.first + len(row.values) - history, row.values[-history:], row.capacity[-history:], row.count)
