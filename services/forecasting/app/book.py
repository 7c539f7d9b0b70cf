"""Every series' observations in memory, for snapshots; the store holds the same and fills it at start."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan

from services.forecasting.app.snapshot import Snapshot
from services.forecasting.domain.wall import SLOT_S, wall_slot


@dataclass
class Row:
    """One series from local slot `first` on, in floats of four bytes. `version` counts what was put in."""

    first: int
    values: array[float] = field(default_factory=lambda: array("f"))
    capacity: array[float] = field(default_factory=lambda: array("f"))
    count: int = 0
    version: int = 0

    def put(self, slot: int, value: float, capacity: float) -> None:
        at = slot - self.first
        _grow(self.values, at)
        self.count += isnan(self.values[at])
        self.values[at] = value
        if not isnan(capacity):
            _grow(self.capacity, at)
            self.capacity[at] = capacity
        self.version += 1

    def clear(self, slot: int) -> None:
        at = slot - self.first
        if 0 <= at < len(self.values) and not isnan(self.values[at]):
            self.values[at] = nan
            self.count -= 1
            self.version += 1


def _grow(values: array[float], at: int) -> None:
    missing = at + 1 - len(values)
    if missing > 0:
        values.extend(array("f", [nan]) * missing)


class Book:
    """The series by name. `history_slots` is the most that is kept of one."""

    def __init__(self, zone: str, history_slots: int) -> None:
        self._zone = zone
        self._history = history_slots
        self._rows: dict[str, Row] = {}
        self.last_time: dict[str, int] = {}

    def put(self, series: str, time: int, value: float, capacity: float) -> None:
        """Takes an observation for the half hour nearest to `time` (unix seconds); older than the history is let go."""
        slot = wall_slot(self._zone, time + SLOT_S // 2)
        row = self._rows.setdefault(series, Row(slot))
        if slot < row.first:
            row = self._rows[series] = _extended(row, max(slot, row.first + len(row.values) - self._history))
        if slot >= row.first + len(row.values) + self._history:  # nothing of it would be kept
            row = self._rows[series] = Row(slot, version=row.version)
        if slot >= row.first:
            row.put(slot, value, capacity)
        self.last_time[series] = max(time, self.last_time.get(series, 0))
        if len(row.values) > 2 * self._history:
            self._rows[series] = _cut(row, self._history)

    def forget(self, series: str, from_time: int, to_time: int) -> None:
        """Unknown from now on: the half hours of a series in [from_time, to_time); a series of which nothing is left is gone."""
        row = self._rows.get(series)
        if row is None:
            return
        for time in range(from_time, to_time, SLOT_S):
            row.clear(wall_slot(self._zone, time))
        if not row.count:
            del self._rows[series], self.last_time[series]

    def names(self, prefix: str) -> list[str]:
        """The series of a group, in order."""
        return sorted(name for name in self._rows if name.startswith(prefix))

    def count(self, series: str) -> int:
        return self._rows[series].count

    def has(self, series: str) -> bool:
        return series in self._rows

    def version(self, series: str) -> int:
        """Another number whenever something was put into the series."""
        return self._rows[series].version

    def span(self, names: Sequence[str], until: int) -> int:
        """Half hours from the first observation of any of the series to `until` (unix seconds)."""
        return wall_slot(self._zone, until) - min((self._rows[name].first for name in names), default=0)

    def snapshot(self, names: Sequence[str], until: int) -> Snapshot:
        """The named series up to the half hour before `until` (unix seconds), which is the first to forecast."""
        end = wall_slot(self._zone, until)
        rows = [self._rows[name] for name in names]
        first = max(min(row.first for row in rows), end - self._history)
        length = max(0, end - first)
        values = b"".join(_columns(row.values, row.first, first, length) for row in rows)
        limited = any(row.capacity for row in rows)
        capacity = b"".join(_columns(row.capacity, row.first, first, length) for row in rows) if limited else b""
        return Snapshot(tuple(names), first, length, values, capacity)

    def target_columns(self, first: int, origin: int, horizon: int) -> Iterable[tuple[int, int]]:
        """(unix time, column after the origin's) of the `horizon` half hours from `origin` (unix seconds) on."""
        start = origin // SLOT_S * SLOT_S
        for step in range(horizon):
            time = start + step * SLOT_S
            yield time, wall_slot(self._zone, time) - first


def _columns(values: array[float], own_first: int, first: int, length: int) -> bytes:
    """`length` floats from slot `first` on, NaN outside."""
    start = first - own_first
    inside = values[max(0, start) : max(0, start + length)]
    before = array("f", [nan]) * max(0, min(length, -start))
    after = array("f", [nan]) * (length - len(before) - len(inside))
    return (before + inside + after).tobytes()


def _extended(row: Row, first: int) -> Row:
    """The row with room before its first slot."""
    if first >= row.first:
        return row
    room = array("f", [nan]) * (row.first - first)
    capacity = room + row.capacity if row.capacity else row.capacity
    return Row(first, room + row.values, capacity, row.count, row.version)


def _cut(row: Row, history: int) -> Row:
    gone = len(row.values) - history
    values = row.values[gone:]
    seen = sum(not isnan(value) for value in values)
    return Row(row.first + gone, values, row.capacity[gone:], seen, row.version)
