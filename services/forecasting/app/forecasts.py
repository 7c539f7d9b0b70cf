"""Forecasts and their causes. Called by `api`; the arithmetic is the engine's."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from citykit.access import caller
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument, NotFound, PermissionDenied
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.snapshot import BLOCK, NOTHING, Explained, Forecasts
from services.forecasting.app.training import Training
from services.forecasting.domain.groups import GROUPS, HORIZON, HORIZON_MAX, group_of, may_see
from services.forecasting.domain.wall import SLOT_S
from services.forecasting.store.models import ModelRow

SERIES_MAX = 10_000
UNKNOWN, SHORT = "unknown-series", "too-short"
_CACHE_MAX = 4
_CLOCK_CHANGE = 4
"""Columns more than asked for, in case clocks go forward on the way."""
Milli = array  # of 64-bit integers, thousandths of the series' unit


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """Half hours `times` (unix seconds), which stand in `columns` of the arrays; those the series is closed at have NOTHING there.

    `times` is empty where `reason` says why.
    """

    series: str
    origin: int
    reason: str = ""
    model: str = ""
    shares: dict[str, int] = field(default_factory=dict)
    times: Sequence[int] = ()
    columns: Sequence[int] = ()
    values: Milli[int] = field(default_factory=lambda: array("q"))
    bands: dict[int, tuple[Milli[int], Milli[int]]] = field(default_factory=dict)

    def open(self) -> list[tuple[int, int]]:
        """(time, column) of what is forecast."""
        return [(time, at) for time, at in zip(self.times, self.columns, strict=True) if self.values[at] != NOTHING]


Kept = dict[str, tuple[int, SeriesForecast]]
"""Series -> version of its observations, and what was computed from it."""


@dataclass
class Forecaster:
    """Blocks of series at once; what was computed for a half hour is kept until something new is observed."""

    book: Book
    engine: Engine
    training: Training
    clock: Clock
    folder: Path
    _kept: OrderedDict[tuple[object, ...], Kept] = field(default_factory=OrderedDict)

    async def forecast(self, series: Sequence[str], horizon: int) -> AsyncIterator[SeriesForecast]:
        """One for each name, in order, a block at a time.

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
        origin = self._origin()
        for at in range(0, len(series), BLOCK):
            block = series[at : at + BLOCK]
            found = await self._block(block, origin, steps)
            for name in block:
                yield found.get(name) or SeriesForecast(name, origin, reason=UNKNOWN)

    async def _block(self, block: Sequence[str], origin: int, horizon: int) -> dict[str, SeriesForecast]:
        found: dict[str, SeriesForecast] = {}
        for group in GROUPS:
            names = sorted({one for one in block if one.startswith(f"{group}/") and self.book.has(one)})
            if names:
                found.update(await self._of_group(group, names, origin, horizon))
        return found

    async def _of_group(self, group: str, names: list[str], origin: int, horizon: int) -> dict[str, SeriesForecast]:
        row = self.training.newest.get(group)
        kept = self._kept_for((group, row.id if row else "", origin, horizon))
        found = {name: kept[name][1] for name in names if name in kept and kept[name][0] == self.book.version(name)}
        missing = [name for name in names if name not in found]
        if missing:
            versions = {name: self.book.version(name) for name in missing}
            computed = await self._computed(row, missing, origin, horizon)
            kept.update({name: (versions[name], one) for name, one in computed.items()})
            found.update(computed)
        return found

    def _kept_for(self, key: tuple[object, ...]) -> Kept:
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > _CACHE_MAX:
            self._kept.popitem(last=False)
        return kept

    async def _computed(
        self, row: ModelRow | None, names: list[str], origin: int, horizon: int
    ) -> dict[str, SeriesForecast]:
        model = row.id if row else ""
        snapshot = self.book.snapshot(names, origin)
        if not snapshot.length:
            return {name: SeriesForecast(name, origin, SHORT, model) for name in names}
        found: Forecasts = await self.engine.run("forecast", snapshot, self._path(row), horizon + _CLOCK_CHANGE)
        end = snapshot.first + snapshot.length
        targets = [one for one in self.book.target_columns(end, origin, horizon) if 0 <= one[1] < found.horizon]
        times, columns = tuple(time for time, _ in targets), tuple(at for _, at in targets)
        return {
            name: SeriesForecast(name, origin, found.reasons[number], model)
            if found.reasons[number]
            else _shaped(found, number, SeriesForecast(name, origin, "", model, found.shares[number], times, columns))
            for number, name in enumerate(names)
        }

    def _path(self, row: ModelRow | None) -> Path | None:
        return self.folder / row.file if row else None

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
        explained: Explained = await self.engine.run(
            "explain", snapshot, self._path(row), columns[slot] - snapshot.first
        )
        return explained, row.id if row else ""

    def _origin(self) -> int:
        """The half hour city time is in: the first that is not known yet."""
        return unix(self.clock) // SLOT_S * SLOT_S


def require_seen(series: str) -> None:
    """Raises: PermissionDenied where the caller may not see the series."""
    group = group_of(series)
    if group is not None and not may_see(group, caller().subject):
        raise PermissionDenied(f"series of {group.name} are shown to {', '.join(group.seen_by)} only", field="series")


def _shaped(found: Forecasts, number: int, into: SeriesForecast) -> SeriesForecast:
    width = found.horizon
    bands = {level: (_row(low, number, width), _row(high, number, width)) for level, (low, high) in found.bands.items()}
    return SeriesForecast(
        into.series, into.origin, "", into.model, into.shares, into.times, into.columns,
        _row(found.values, number, width), bands,
    )  # fmt: skip


def _row(data: bytes, number: int, width: int) -> Milli[int]:
    """Row `number` of 64-bit integers."""
    row = array("q")
    row.frombytes(data[number * width * row.itemsize : (number + 1) * width * row.itemsize])
    return row
