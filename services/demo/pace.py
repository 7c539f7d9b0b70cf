"""What the demo knows of its visitor: slows city time down while they park (at the usual speed nobody could press a button in time), and
says on which side of a lock their car stands. Run by `city.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from city.parking.v1 import parking_service_pb2 as parking
from citykit.clock import ReplayClock
from citykit.errors import CityError
from services.demo.residents import Residents

SLOW = 60.0
"""City seconds a second while the visitor has something to do."""
_LOOK_S = 0.5
_BEFORE_S, _AFTER_S = 900, 900
_LOOKED_AT = 10


class Visitor:
    """Watches one resident's reservations."""

    def __init__(self, residents: Residents, login: str, clock: ReplayClock, usual: float) -> None:
        self._residents = residents
        self._login = login
        self._clock = clock
        self._usual = usual

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(CityError):
                speed = speed_for(await self._reservations(), self._clock.now(), self._usual)
                if speed != self._clock.speed:
                    self._clock.run(speed)
            await asyncio.sleep(_LOOK_S)

    async def side(self, lot: str) -> str:
        """`exit` where the visitor's car is in the lot, else `entry`."""
        with contextlib.suppress(CityError):
            if any(one.lot == lot and one.state == "active" for one in await self._reservations()):
                return "exit"
        return "entry"

    async def _reservations(self) -> Any:
        request = parking.ListReservationsRequest(page_size=_LOOKED_AT)
        return (await self._residents.ask(self._login, "parking", "ListReservations", request)).reservations


def speed_for(reservations: Iterable[Any], now: float, usual: float) -> float:
    """The speed to go at, never above the usual."""
    return min(usual, SLOW) if any(_waits_for_somebody(one, now) for one in reservations) else usual


def _waits_for_somebody(one: Any, now: float) -> bool:
    begins, ends = one.from_time.seconds, one.to_time.seconds
    if one.state in ("held", "confirming"):
        return bool(now < max(one.hold_until.seconds, begins))
    if one.state == "confirmed":
        return bool(begins - _BEFORE_S <= now < ends)
    return one.state == "active" and bool(now < ends + _AFTER_S)
