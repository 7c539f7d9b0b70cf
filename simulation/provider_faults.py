"""What goes wrong at the sandbox provider, and how often: seeded, so that a run can be repeated. Used by `simulation.provider`."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class ProviderFaults:
    """Shares of calls and callbacks, 0 to 1.

    Attributes:
        refuse_calls: answered 503, nothing done.
        fail_after: done, then answered 500.
        drop_after: done, then the connection is cut without an answer.
        answer_late: done, answered only after `late_s`.
        lose_callbacks, double_callbacks, delay_callbacks: what becomes of a callback; a delayed one comes `late_s` later.
        hold_callbacks: kept back until another callback has gone out: out of order.
        late_s: machine seconds.
    """

    refuse_calls: float = 0.0
    fail_after: float = 0.0
    drop_after: float = 0.0
    answer_late: float = 0.0
    lose_callbacks: float = 0.0
    double_callbacks: float = 0.0
    delay_callbacks: float = 0.0
    hold_callbacks: float = 0.0
    late_s: float = 0.2


class Dice:
    """Throws for the faults."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation, reproducible

    def __call__(self, share: float) -> bool:
        """True in that share of the throws."""
        return share > 0 and self._random.random() < share


NO_FAULTS = ProviderFaults()
EVERY_FAULT = ProviderFaults(0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2)
