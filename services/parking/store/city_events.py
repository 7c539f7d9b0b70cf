"""The calendar of events that bring cars. Called by `app.city_events`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from citykit.store.port import Unit
from services.parking.domain.availability import CityEvent
from services.parking.store.tables import CITY_EVENTS

_COLUMNS = ("id", "name", "latitude_e7", "longitude_e7", "from_time", "to_time", "cars")


def put_events(unit: Unit, found: Sequence[CityEvent]) -> None:
    """Adds events, or replaces what was said of them."""
    unit.execute(delete(CITY_EVENTS).where(CITY_EVENTS.c.id.in_([event.id for event in found])))
    unit.insert_many(CITY_EVENTS, _COLUMNS, [tuple(getattr(event, name) for name in _COLUMNS) for event in found])


def events(connection: Connection, after: int, limit: int) -> list[CityEvent]:
    """Those that end after a time, the soonest first."""
    query = select(*(CITY_EVENTS.c[name] for name in _COLUMNS)).where(CITY_EVENTS.c.to_time > after)
    return [CityEvent(*row) for row in connection.execute(query.order_by(CITY_EVENTS.c.from_time).limit(limit))]
