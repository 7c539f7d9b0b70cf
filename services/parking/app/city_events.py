"""The events calendar in memory: what will bring cars, and to which lots. Called by `api` and advice."""

from __future__ import annotations

import re
from collections.abc import Sequence

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.parking.app.lots import Lots
from services.parking.domain.availability import EVENT_LATE_S, Burden, CityEvent, burdens, is_on
from services.parking.store import city_events as stored

ADD_MAX = 100
EVENTS_MAX = 2_000
CARS_MAX, NAME_MAX = 100_000, 200
KEPT_MAX = 100
_ID = re.compile(r"[a-z0-9-]{1,64}")
_E7 = 10_000_000


class CityEvents:
    """Those that are not over. `load` once at the start."""

    def __init__(self, store: Store, lots: Lots, clock: Clock) -> None:
        self._store = store
        self._lots = lots
        self._clock = clock
        self._events: list[CityEvent] = []
        self._burdens: dict[tuple[str, ...], dict[str, Burden]] = {}
        self._lots_version = -1

    async def load(self) -> None:
        after = unix(self._clock) - EVENT_LATE_S
        self._events = await self._store.read(lambda c: stored.events(c, after, EVENTS_MAX))
        self._lots_version = -1

    async def add(
        self, once: Once[pb.AddCityEventsResponse], wanted: Sequence[pb.CityEvent]
    ) -> pb.AddCityEventsResponse:
        """Adds events; one of the same id replaces what was said of it.

        Raises:
            InvalidArgument: naming the field.
        """
        if not 0 < len(wanted) <= ADD_MAX:
            raise InvalidArgument(f"name 1 to {ADD_MAX} events", field="events")
        found = [_checked(event) for event in wanted]
        if len({event.id for event in found}) != len(found):
            raise InvalidArgument("each event once", field="events")

        def unit(work: Unit) -> pb.AddCityEventsResponse:
            if (before := once.before(work)) is not None:
                return before
            stored.put_events(work, found)
            return once.keep(work, pb.AddCityEventsResponse())

        answer = await self._store.write(unit)
        await self.load()
        return answer

    def burdens(self, time: int) -> dict[str, Burden]:
        """Lot -> what the events that are on then bring to it. What was computed for the same events is kept."""
        if self._lots_version != self._lots.version or len(self._burdens) > KEPT_MAX:
            self._burdens, self._lots_version = {}, self._lots.version
        on = [event for event in self._events if is_on(event, time)]
        key = tuple(event.id for event in on)
        if key not in self._burdens:
            self._burdens[key] = burdens(self._lots.every(), on)
        return self._burdens[key]


def _checked(event: pb.CityEvent) -> CityEvent:
    if not _ID.fullmatch(event.id) or not 0 < len(event.name) <= NAME_MAX:
        raise InvalidArgument(
            f"id has 1 to 64 of a-z, 0-9 and hyphen, name 1 to {NAME_MAX} characters", field="events.id"
        )
    if abs(event.latitude_e7) > 90 * _E7 or abs(event.longitude_e7) > 180 * _E7:
        raise InvalidArgument("ten-millionths of a degree, WGS 84", field="events.latitude_e7")
    if not 0 <= event.from_time.seconds < event.to_time.seconds:
        raise InvalidArgument("from_time must lie before to_time", field="events.to_time")
    if not 0 <= event.cars <= CARS_MAX:
        raise InvalidArgument(f"cars lie between 0 and {CARS_MAX}", field="events.cars")
    times = (event.from_time.seconds, event.to_time.seconds)
    return CityEvent(event.id, event.name, event.latitude_e7, event.longitude_e7, *times, event.cars)
