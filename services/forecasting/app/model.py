"""What a training leaves behind, and the file it lies in. Used in the computing process only."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.forecasting.app.backtest import Bands
from services.forecasting.app.models.backends import Bounded
from services.forecasting.app.panel import Floats

CURVES = "prophet"
"""The backend whose forecasts are drawn when it is trained, for the series it was trained on."""


@dataclass(frozen=True)
class Block:
    """The models of some series.

    Attributes:
        names: of the series it was trained on; shares and bands are in their order.
        first: grid slot of column 0 when it was trained.
        forecasters: backend -> what it learnt; None where it could not.
        weights: by bucket: (K, S).
        bands: None where no origin could be tried.
    """

    names: tuple[str, ...]
    first: int
    forecasters: dict[str, Bounded | None]
    weights: list[Floats]
    bands: Bands | None

    def rows(self, columns: Floats, names: Sequence[str]) -> Floats:
        """The last axis in the order of `names`; the mean over all for a series that was not learnt from."""
        known = {name: row for row, name in enumerate(self.names)}
        mean = np.nanmean(columns, axis=-1)
        return np.stack([columns[..., known[name]] if name in known else mean for name in names], axis=-1)

    def knows(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of the series it learnt from."""
        known = set(self.names)
        return np.array([name in known for name in names])


@dataclass(frozen=True)
class Model:
    """All series of a group, in blocks."""

    blocks: tuple[Block, ...]


def save(content: Any, folder: Path, suffix: str) -> tuple[Path, bytes]:
    """Written under the hash of its bytes, synced; returns both."""
    buffer = io.BytesIO()
    pickle.dump(content, buffer)
    digest = hashlib.sha256(buffer.getvalue())
    path = folder / f"{digest.hexdigest()}{suffix}"
    unfinished = path.with_suffix(".writing")
    with unfinished.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return path, digest.digest()


def read(path: Path) -> Any:
    """What `save` wrote; its bytes must have the hash that names it, for what is unpickled can act."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise ValueError(f"{path.name} does not have the hash it is named by")
    return pickle.loads(content)  # noqa: S301 - our own file, checked by its hash


@lru_cache(maxsize=4)
def loaded(path: Path) -> Model:
    """The model at `path`, read once."""
    found: Model = read(path)
    return found
