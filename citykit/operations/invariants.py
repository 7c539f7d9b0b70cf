"""What must always hold in a service, looked at again and again: for the metrics and for `city.operations.v1`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from citykit.service import Invariant, Service
from citykit.telemetry import INVARIANT_CHECKED, INVARIANT_HOLDS, logger

AGAIN_S = 10.0
"""Nobody makes a service look more often: some invariants read a whole table."""


@dataclass(frozen=True)
class State:
    """An invariant as last seen. Times are unix seconds of the machine.

    Attributes:
        since: since when it has been so without a break, as far as this process saw.
        evidence: what was counted; no personal data.
    """

    service: str
    name: str
    holds: bool
    since: float
    checked_at: float
    evidence: str


class Board:
    """The invariants of the services of one process."""

    def __init__(self, services: Mapping[str, Service], now: Callable[[], float] = time.time) -> None:
        self._invariants = [(name, one) for name, service in services.items() for one in service.invariants]
        self._now = now
        self._states: dict[tuple[str, str], State] = {}
        self._looking = asyncio.Lock()

    async def states(self, not_before: float = 0.0) -> list[State]:
        """Every invariant; one not seen within its interval, or before a moment that somebody cares for, is looked at first.

        Raises:
            Unavailable: a store is away; nothing can be said.
        """
        async with self._looking:
            for service, one in self._invariants:
                known = self._states.get((service, one.name))
                if known is None or self._is_old(known, one.every_s, not_before):
                    self._states[service, one.name] = await self._look(service, one, known)
        return list(self._states.values())

    def _is_old(self, known: State, every_s: float, not_before: float) -> bool:
        age_s = self._now() - known.checked_at
        return age_s >= every_s or (known.checked_at < not_before and age_s >= AGAIN_S)

    async def _look(self, service: str, one: Invariant, known: State | None) -> State:
        finding, now = await one.look(), self._now()
        INVARIANT_HOLDS.labels(service, one.name).set(finding.holds)
        INVARIANT_CHECKED.labels(service, one.name).set(now)
        same = known is not None and known.holds == finding.holds
        if not finding.holds and not same:
            fields = {"invariant": one.name, "evidence": finding.evidence}
            logger(service).error("invariant-broken", extra={"fields": fields})
        since = known.since if known is not None and same else now
        return State(service, one.name, finding.holds, since, now, finding.evidence)
