"""What the computing process is handed: series as plain bytes, so that this side needs no arrays, and where a trained model lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Snapshot:
    """Series side by side on local half hours.

    Attributes:
        first: slot of column 0.
        values, capacity: doubles in the machine's order, (S, T) row by row, NaN where unknown.
    """

    names: tuple[str, ...]
    first: int
    length: int
    values: bytes
    capacity: bytes


@dataclass(frozen=True)
class Forecasts:
    """Of each series of a snapshot, in its order: values and half widths (S, H) as doubles; a word for those that have none.

    Attributes:
        bands: level -> half widths.
        shares: per series, backend -> per cent in the first bucket.
    """

    horizon: int
    values: bytes
    bands: dict[int, bytes]
    reasons: tuple[str, ...]
    shares: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class Trained:
    """A training's outcome. `path` holds the parameters; None figures where history was too short for a backtest."""

    path: Path
    hash: bytes
    series: int
    origins: int
    mase: dict[str, float]
    coverage: dict[int, float]


@dataclass(frozen=True)
class Explained:
    """Why one forecast is what it is, in the series' unit."""

    profile: float
    value: float
    causes: tuple[tuple[str, float], ...]
