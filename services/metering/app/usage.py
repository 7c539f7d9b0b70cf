"""Usage of a home, load of the city, state of the meters, Green Button download. Called by `api`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from citykit.access import Principal
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument, NotFound
from citykit.store.port import Store
from services.metering.app.people import People, Span
from services.metering.app.zones import year_offsets, zone_offsets
from services.metering.domain.green_button import Point, feed
from services.metering.domain.slots import DAY_S, SLOT_S
from services.metering.store import usage
from services.metering.store.devices import MeterPointRow, meter_point
from services.metering.store.usage import LoadRow, StateRow, UsageRow

SLOTS_MAX = 100_000
LOAD_SLOTS_MAX, LOAD_SLOTS = 1_000, 96
LOAD_METERS_MIN = 10
STATES_MAX = 500
RECENT_S = DAY_S
_CHUNK_CHARS = 65_536
RESOLUTIONS = {"slot": SLOT_S, "hour": usage.HOUR_S, "day": DAY_S}
_Query = Callable[[Connection], list[UsageRow]]


@dataclass(frozen=True)
class Usage:
    """Reads; each is one SQL statement."""

    store: Store
    people: People
    clock: Clock

    async def usage(self, who: Principal, point: str, wanted: Span, resolution: str, purpose: str) -> list[UsageRow]:
        """Energy per slot, local hour or local day of the part of the range that the caller may see.

        Raises:
            InvalidArgument, NotFound, PermissionDenied, Unavailable.
        """
        if resolution not in RESOLUTIONS:
            raise InvalidArgument(f"resolution must be slot, hour or day, not {resolution!r}", field="resolution")
        checked_span(wanted)
        spans = await self.people.visible(who, point, wanted, purpose)
        row = await self._point(point)
        parts = [await self.store.read(self._query(row, span, resolution)) for span in spans]
        return [item for part in parts for item in part]

    def _query(self, row: MeterPointRow, span: Span, resolution: str) -> _Query:
        if resolution == "slot":
            end = min(span.to_time, unix(self.clock) // SLOT_S * SLOT_S)
            return lambda c: _with_missing(usage.slots(c, row.id, span.from_time, span.to_time), span.from_time, end)
        offsets = zone_offsets(row.zone).clipped(span.from_time, span.to_time)
        return lambda c: usage.sums(c, row.id, span.from_time, span.to_time, RESOLUTIONS[resolution], offsets)

    async def city_load(self, slots: int) -> list[LoadRow]:
        """Sums over all meters of the newest slots, without those of fewer than ten meters.

        Raises:
            InvalidArgument: more than 1,000 slots.
        """
        if not 0 <= slots <= LOAD_SLOTS_MAX:
            raise InvalidArgument(f"slots must lie between 1 and {LOAD_SLOTS_MAX}", field="slots")
        end = unix(self.clock) // SLOT_S * SLOT_S
        start = end - (slots or LOAD_SLOTS) * SLOT_S
        return await self.store.read(lambda c: usage.city_load(c, start, end, LOAD_METERS_MIN))

    async def meter_states(self, page_size: int, page_token: str) -> tuple[list[StateRow], str]:
        """A page of states by meter point, and the next page's token."""
        limit = page_limit(page_size, STATES_MAX)
        recent = unix(self.clock) - RECENT_S
        rows = await self.store.read(lambda c: usage.meter_states(c, page_token, limit, recent))
        return rows, rows[-1].meter_point if len(rows) == limit else ""

    async def green_button(self, who: Principal, point: str, wanted: Span) -> AsyncIterator[bytes]:
        """The ESPI document in chunks of about 64 KiB.

        Raises:
            InvalidArgument, NotFound, PermissionDenied.
        """
        checked_span(wanted)
        spans = await self.people.visible(who, point, wanted, "")
        row = await self._point(point)
        rows = await self.store.read(
            lambda c: [i for s in spans for i in usage.slots(c, row.id, s.from_time, s.to_time)]
        )
        points = [Point(item.time, item.energy_wh, item.quality) for item in rows]
        offsets = year_offsets(row.zone, spans[0].from_time)
        waiting = ""
        for piece in feed(row.id, points, offsets, unix(self.clock)):
            waiting += piece
            if len(waiting) >= _CHUNK_CHARS:
                yield waiting.encode()
                waiting = ""
        yield waiting.encode()

    async def _point(self, id_: str) -> MeterPointRow:
        row = await self.store.read(lambda c: meter_point(c, id_))
        if row is None:
            raise NotFound(f"no meter point {id_!r}", field="meter_point")
        return row


def checked_span(wanted: Span) -> Span:
    """A range of at most 100,000 slots.

    Raises:
        InvalidArgument: empty, reversed or too long.
    """
    if not 0 <= wanted.from_time < wanted.to_time or (wanted.to_time - wanted.from_time) // SLOT_S > SLOTS_MAX:
        raise InvalidArgument(
            f"from_time must lie before to_time, at most {SLOTS_MAX} slots of {SLOT_S} s apart", field="from_time"
        )
    return wanted


def page_limit(page_size: int, most: int) -> int:
    """Rows of a page; 0 asks for the most.

    Raises:
        InvalidArgument: negative.
    """
    if page_size < 0:
        raise InvalidArgument(f"page_size must lie between 1 and {most}", field="page_size")
    return min(page_size or most, most)


def _with_missing(rows: list[UsageRow], start: int, end: int) -> list[UsageRow]:
    known = {row.time: row for row in rows}
    first = start + -start % SLOT_S
    gaps = [UsageRow(slot, 0, usage.MISSING, "") for slot in range(first, end, SLOT_S) if slot not in known]
    return sorted([*rows, *gaps], key=lambda row: row.time) if gaps else rows
