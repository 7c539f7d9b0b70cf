"""What the computing process is handed and hands back: series as plain bytes, so that this side needs no arrays, and where models lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NOTHING = -1
"""In `Forecasts`: no value there, for the place is closed or the band has no bound yet."""
BLOCK = 250
"""Series handed over at once: what 120 days of them are can be put together in a few milliseconds."""


@dataclass(frozen=True)
class Snapshot:
    """Series side by side on local half hours.

    Attributes:
        first: slot of column 0.
        values: floats of four bytes in the machine's order, (S, T) row by row, NaN where unknown.
        capacity: the same; empty where none of the series has one.
    """

    names: tuple[str, ...]
    first: int
    length: int
    values: bytes
    capacity: bytes


@dataclass(frozen=True)
class Forecasts:
    """Of each series of a snapshot, in its order: whole thousandths of its unit (S, H) as 64-bit integers, `NOTHING` where there is none.

    Attributes:
        bands: level -> (lows, highs).
        reasons: per series a word for those that have no forecast, else empty.
        shares: per series, backend -> per cent in the first bucket.
    """

    horizon: int
    values: bytes
    bands: dict[int, tuple[bytes, bytes]]
    reasons: tuple[str, ...]
    shares: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class Part:
    """What training made of one block of series. Figures are means over its series; empty where history was too short for a backtest."""

    path: Path
    series: int
    origins: int
    mase: dict[str, float]
    coverage: dict[int, float]


@dataclass(frozen=True)
class Trained:
    """A training's outcome; `path` holds the parameters and `hash` is of its bytes."""

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
