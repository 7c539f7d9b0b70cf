"""Counts for the public page, the metrics and the invariant: reservations by state, sessions, bays given twice. Called by `api` and `main`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from city.parking.v1 import parking_service_pb2 as pb
from citykit import telemetry
from citykit.service import Finding
from citykit.store.port import Store
from services.parking.domain.reservation import ACTIVE, ENDED, STATES
from services.parking.store import reservations

FRESH_S = 1.0


@dataclass
class Books:
    """Counted at most once a second (machine time): anybody may ask."""

    store: Store
    monotonic: Callable[[], float] = time.monotonic
    counted: pb.GetBooksResponse | None = None
    counted_at: float = 0.0

    async def get(self) -> pb.GetBooksResponse:
        now = self.monotonic()
        if self.counted is None or now - self.counted_at >= FRESH_S:
            self.counted, self.counted_at = await self.store.read(_count), now
        return self.counted

    async def measure(self) -> None:
        """Tells the metrics. A job."""
        counted = await self.store.read(_count)
        for state in STATES:
            telemetry.PARKING_RESERVATIONS.labels(state).set(counted.by_state.get(state, 0))
        telemetry.PARKING_DOUBLE_BOOKINGS.set(counted.double_bookings)

    async def no_double_booking(self) -> Finding:
        """No bay is promised twice. An invariant."""
        counted = await self.store.read(_count)
        evidence = f"{counted.double_bookings} of {counted.reservations} reservations begin while another has the bay"
        return Finding(counted.double_bookings == 0, evidence)


def _count(connection: Connection) -> pb.GetBooksResponse:
    states = reservations.by_state(connection)
    return pb.GetBooksResponse(
        reservations=sum(states.values()),
        double_bookings=reservations.double_bookings(connection),
        sessions=states.get(ACTIVE, 0) + states.get(ENDED, 0),
        by_state=states,
    )
