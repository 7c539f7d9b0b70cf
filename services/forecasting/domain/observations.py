"""Observations as they come, made into series on a grid: what is impossible is cleaned and counted, what cannot be read is refused.

Called by the backtest command (CSV) and, row by row, by the service's consumers.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.forecasting.domain.grid import Grid

HEADER = ("series", "time", "value")
CAPACITY = "capacity"
SERIES_NAME_MAX = 200
ROWS_MAX = 10_000_000
_BOM = "\ufeff"


class RowError(ValueError):
    """A row that cannot be read; the message names its line."""


@dataclass(frozen=True, slots=True)
class Observation:
    """`seconds` of the series' own clock; `value` and `capacity` None where the row leaves them empty."""

    series: str
    seconds: float
    value: float | None
    capacity: float | None = None


@dataclass
class Series:
    """Values by slot, and the capacity said with each."""

    values: dict[int, float] = field(default_factory=dict)
    capacities: dict[int, float] = field(default_factory=dict)


@dataclass
class Cleaned:
    """How many observations were set aside, and why."""

    negative: int = 0
    above_capacity: int = 0
    duplicate: int = 0

    @property
    def total(self) -> int:
        return self.negative + self.above_capacity + self.duplicate


def gather(observations: Iterable[Observation], grid: Grid) -> tuple[dict[str, Series], Cleaned]:
    """Series by name, in order of names, whatever the order of the rows.

    Of several values in one slot the one nearest to the slot's time counts; of two as near, the earlier; of two at once, the smaller.
    """
    series: dict[str, Series] = {}
    ranks: dict[tuple[str, int], tuple[float, float, float]] = {}
    cleaned = Cleaned()
    for seen in observations:
        one = series.setdefault(seen.series, Series())
        if seen.value is None or not _possible(seen.value, seen.capacity, cleaned):
            continue
        slot = grid.slot(seen.seconds)
        rank = (abs(seen.seconds - grid.time(slot)), seen.seconds, seen.value)
        before = ranks.get((seen.series, slot))
        cleaned.duplicate += before is not None
        if before is None or rank < before:
            ranks[(seen.series, slot)] = rank
            _take(one, slot, seen.value, seen.capacity)
    return dict(sorted(series.items())), cleaned


def _take(series: Series, slot: int, value: float, capacity: float | None) -> None:
    series.values[slot] = value
    series.capacities.pop(slot, None)
    if capacity is not None:
        series.capacities[slot] = capacity


def _possible(value: float, capacity: float | None, cleaned: Cleaned) -> bool:
    if value < 0:
        cleaned.negative += 1
        return False
    if capacity is not None and value > capacity:
        cleaned.above_capacity += 1
        return False
    return True


def read_rows(lines: Iterable[str]) -> Iterator[Observation]:
    """The observations of a CSV `series,time,value[,capacity]`.

    Raises:
        RowError: no such header, or a row that cannot be read; the message names the line.
    """
    reader = csv.reader(lines, strict=True)
    try:
        width = _width([name.strip().lower() for name in next(reader, [])])
        aware: bool | None = None
        for number, row in enumerate(row for row in reader if row):
            _require_room(number, reader.line_num)
            moment = _moment(row, width, reader.line_num)
            aware = _require_alike(aware, moment, reader.line_num)
            yield _observation(row, moment, width, reader.line_num)
    except csv.Error as error:
        raise RowError(f"line {reader.line_num}: {error}") from None


def _require_room(number: int, line: int) -> None:
    if number >= ROWS_MAX:
        raise RowError(f"line {line}: a file holds at most {ROWS_MAX:,} rows; split it by series")


def _require_alike(aware: bool | None, moment: datetime, line: int) -> bool:
    found = moment.tzinfo is not None
    if aware is not None and aware != found:
        raise RowError(f"line {line}: times with and without an offset from UTC are mixed")
    return found


def _width(header: list[str]) -> int:
    header[:1] = [name.removeprefix(_BOM) for name in header[:1]]
    if tuple(header) not in (HEADER, (*HEADER, CAPACITY)):
        raise RowError(
            f"line 1: the header is {','.join(header)!r}; it must be series,time,value or series,time,value,capacity"
        )
    return len(header)


def _moment(row: Sequence[str], width: int, line: int) -> datetime:
    if len(row) != width:
        raise RowError(f"line {line}: {len(row)} fields where the header has {width}")
    try:
        return datetime.fromisoformat(row[1].strip())
    except ValueError:
        raise RowError(f"line {line}: time {row[1]!r} is not of the form 2016-10-04 08:00:00") from None


def _observation(row: Sequence[str], moment: datetime, width: int, line: int) -> Observation:
    name = row[0].strip()
    if not 0 < len(name) <= SERIES_NAME_MAX:
        raise RowError(f"line {line}: a series' name has 1 to {SERIES_NAME_MAX} characters")
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    value = _number(row[2], "value", line)
    return Observation(name, seconds, value, _number(row[3], CAPACITY, line) if width > len(HEADER) else None)


def _number(text: str, what: str, line: int) -> float | None:
    """None where the field is empty or says NaN: a missing value."""
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        raise RowError(f"line {line}: {what} {text!r} is no number") from None
    if math.isinf(number):
        raise RowError(f"line {line}: {what} {text!r} is not finite")
    return None if math.isnan(number) else number
