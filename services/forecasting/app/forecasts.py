"""Forecasts and their causes. Called by `api`; the arithmetic is the engine's."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from citykit.access import caller
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument, NotFound, PermissionDenied
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.snapshot import Explained, Forecasts
from services.forecasting.app.training import Training
from services.forecasting.domain.groups import GROUPS, HORIZON, HORIZON_MAX, group_of, may_see
from services.forecasting.domain.wall import SLOT_S

SERIES_MAX = 10_000
UNKNOWN = "unknown-series"
_CACHE_MAX = 8


@dataclass(frozen=True, slots=True)
class Point:
    """One half hour: unix time, value, and half widths by level."""

    time: int
    value: float
    halves: dict[int, float]


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """`points` is empty where `reason` says why."""

    series: str
    origin: int
    points: tuple[Point, ...] = ()
    reason: str = ""
    model: str = ""
    shares: dict[str, int] = field(default_factory=dict)


@dataclass
class Forecaster:
    """Groups of series at once; what was computed for a half hour is kept for it."""

    book: Book
    engine: Engine
    training: Training
    clock: Clock
    folder: Path
    _kept: OrderedDict[tuple[object, ...], dict[str, SeriesForecast]] = field(default_factory=OrderedDict)

    async def forecast(self, series: Sequence[str], horizon: int) -> AsyncIterator[SeriesForecast]:
        """One for each name, in order.

        Raises:
            InvalidArgument: too many series or too far ahead.
            PermissionDenied: a series that is not the caller's to see.
        """
        if not 0 < len(series) <= SERIES_MAX:
            raise InvalidArgument(f"name 1 to {SERIES_MAX} series", field="series")
        steps = horizon or HORIZON
        if not 0 < steps <= HORIZON_MAX:
            raise InvalidArgument(f"a horizon is 1 to {HORIZON_MAX} half hours", field="horizon")
        for name in series:
            require_seen(name)
        for name in GROUPS:
            wanted = sorted({one for one in series if one.startswith(f"{name}/") and self.book.has(one)})
            if wanted:
                await self._computed(name, wanted, steps)
        for one in series:
            yield await self._one(one, steps)

    async def _one(self, series: str, horizon: int) -> SeriesForecast:
        group = group_of(series)
        if group is None or not self.book.has(series):
            return SeriesForecast(series, self._origin(), reason=UNKNOWN)
        return (await self._computed(group.name, [series], horizon))[series]

    async def _computed(self, group: str, names: list[str], horizon: int) -> dict[str, SeriesForecast]:
        row, origin = self.training.newest.get(group), self._origin()
        key = (group, row.id if row else "", origin, horizon)
        kept = self._kept.setdefault(key, {})
        while len(self._kept) > _CACHE_MAX:
            self._kept.popitem(last=False)
        missing = [name for name in names if name not in kept]
        if missing:
            snapshot = self.book.snapshot(missing, origin)
            path = self.folder / row.file if row else None
            found: Forecasts = await self.engine.run("forecast", snapshot, path, horizon + _CLOCK_CHANGE)
            end = snapshot.first + snapshot.length
            for number, name in enumerate(missing):
                kept[name] = self._shaped(found, number, name, end, origin, horizon, row.id if row else "")
        return kept

    def _shaped(
        self, found: Forecasts, number: int, series: str, end: int, origin: int, horizon: int, model: str
    ) -> SeriesForecast:
        reason = found.reasons[number]
        if reason:
            return SeriesForecast(series, origin, reason=reason, model=model)
        width = found.horizon
        values = _row(found.values, number, width)
        halves = {level: _row(data, number, width) for level, data in found.bands.items()}
        points = tuple(
            Point(time, values[at], {level: half[at] for level, half in halves.items() if isfinite(half[at])})
            for time, column in self.book.target_columns(end, origin, horizon)
            if 0 <= (at := column) < width
        )
        return SeriesForecast(series, origin, points, model=model, shares=found.shares[number])

    async def explain(self, series: str, time: int) -> tuple[Explained, str]:
        """(causes, model) of the forecast for the half hour that holds `time`.

        Raises:
            NotFound: no such series, PermissionDenied, InvalidArgument: not within the horizon.
        """
        require_seen(series)
        group = group_of(series)
        if group is None or not self.book.has(series):
            raise NotFound(f"no series {series!r}; ListSeries names them", field="series")
        origin = self._origin()
        columns = dict(self.book.target_columns(0, origin, HORIZON_MAX))
        slot = time // SLOT_S * SLOT_S
        if slot not in columns:
            raise InvalidArgument("only the next 336 half hours are forecast", field="time")
        snapshot = self.book.snapshot([series], origin)
        row = self.training.newest.get(group.name)
        path = self.folder / row.file if row else None
        explained: Explained = await self.engine.run("explain", snapshot, path, columns[slot] - snapshot.first)
        return explained, row.id if row else ""

    def _origin(self) -> int:
        """The half hour city time is in: the first that is not known yet."""
        return unix(self.clock) // SLOT_S * SLOT_S


_CLOCK_CHANGE = 4
"""Columns more than asked for, in case clocks go forward on the way."""


def require_seen(series: str) -> None:
    """Raises: PermissionDenied where the caller may not see the series."""
    group = group_of(series)
    if group is not None and not may_see(group, caller().subject):
        raise PermissionDenied(f"series of {group.name} are shown to {', '.join(group.seen_by)} only", field="series")


def _row(data: bytes, number: int, width: int) -> array[float]:
    """Row `number` of doubles."""
    row = array("d")
    row.frombytes(data[number * width * row.itemsize : (number + 1) * width * row.itemsize])
    return row
