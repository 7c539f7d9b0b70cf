"""What a fit says of the future, drawn once: all that is kept of a model that new values do not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.forecasting.app.panel import Floats, Panel


@dataclass(frozen=True)
class Curve:
    """The columns after `start`: shape (S, L). Kept apart from its maker, so that whoever reads it need not import that."""

    start: int
    curve: Floats

    def predict(self, panel: Panel, origin: int, horizon: int) -> Floats:
        """Shape (S, H); NaN in rows without a fit and beyond the curve's end."""
        found = np.full((len(panel.names), horizon), np.nan)
        known = self.curve[:, origin - self.start : origin - self.start + horizon]
        found[:, : known.shape[1]] = known
        return found
