"""What must always hold in a service, looked at again and again: for the metrics and for `city.operations.v1`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from citykit.service import Invariant, Service
from citykit.telemetry import INVARIANT_CHECKED, INVARIANT_HOLDS, logger


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

    async def states(self) -> list[State]:
        """Every invariant; one not seen within its interval is looked at first.

        Raises:
            Unavailable: a store is away; nothing can be said.
        """
        async with self._looking:
            for service, one in self._invariants:
                known = self._states.get((service, one.name))
                if known is None or self._now() - known.checked_at >= one.every_s:
                    self._states[service, one.name] = await self._look(service, one, known)
        return list(self._states.values())

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
