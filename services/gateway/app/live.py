"""What the city looks like now, for the stream /api/v1/live: one poll feeds every listener.

Each event is the whole picture, so a listener who missed some has lost nothing and `Last-Event-ID` is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from city.simulation.v1 import simulation_service_pb2 as simulation
from citykit import telemetry
from citykit.clock import Clock, iso
from citykit.errors import CityError, ResourceExhausted
from services.gateway.app.calls import Calls

EVERY_S = 1.0
HEARTBEAT_S = 15.0
STREAM_MAX_S = 3_600.0
"""A stream ends after an hour; the client connects again by itself."""
QUARANTINE_PAGES_MAX = 5
QUARANTINE_PAGE = 500
LOAD_SLOTS = 2
LOTS_MAX = 500
DEADLINE_S = 5.0


Picture = Callable[[], Awaitable[dict[str, Any]]]


class Live:
    """Polls once a second while anybody listens. At most `streams_max` listeners."""

    def __init__(self, picture: Picture, streams_max: int, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._picture = picture
        self._streams_max = streams_max
        self._log = log
        self._listeners = 0
        self._number = 0
        self._event = b""
        self._changed = asyncio.Condition()
        self._poll: asyncio.Task[None] | None = None
        self._closed = False

    async def events(self) -> AsyncIterator[bytes]:
        """Events in the form of the HTML standard, section 9.2, with a comment when nothing happened for 15 s.

        The caller takes the first item before it answers, so that a refusal is an answer and not a broken stream.

        Raises:
            ResourceExhausted: all places are taken.
        """
        self._enter()
        try:
            until = asyncio.get_running_loop().time() + STREAM_MAX_S
            yield b"retry: 2000\n\n"
            seen = 0
            while not self._closed and asyncio.get_running_loop().time() < until:
                event, seen = await self._next(seen)
                yield event
        finally:
            self._leave()

    async def close(self) -> None:
        """Ends every stream and the poll."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        await self._stop_poll()

    @property
    def listeners(self) -> int:
        return self._listeners

    async def _next(self, seen: int) -> tuple[bytes, int]:
        try:
            async with asyncio.timeout(HEARTBEAT_S), self._changed:
                await self._changed.wait_for(lambda: self._number != seen or self._closed)
                return self._event, self._number
        except TimeoutError:
            return b": still here\n\n", seen

    def _enter(self) -> None:
        if self._listeners >= self._streams_max:
            raise ResourceExhausted(
                f"{self._streams_max} live streams are open, which is the limit; try again in a minute",
                retry_after_s=60,
            )
        self._listeners += 1
        telemetry.HTTP_LIVE_STREAMS.set(self._listeners)
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._run(), name="gateway-live")

    def _leave(self) -> None:
        self._listeners -= 1
        telemetry.HTTP_LIVE_STREAMS.set(self._listeners)
        if self._listeners == 0 and self._poll is not None:
            self._poll.cancel()
            self._poll = None

    async def _stop_poll(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll
            self._poll = None

    async def _run(self) -> None:
        while not self._closed:
            try:
                await self._tell(await self._picture())
            except Exception:
                self._log.exception("live-picture-failed")
            await asyncio.sleep(EVERY_S)

    async def _tell(self, picture: dict[str, Any]) -> None:
        text = json.dumps(picture, separators=(",", ":"))
        async with self._changed:
            self._number += 1
            self._event = f"id: {self._number}\nevent: city\ndata: {text}\n\n".encode()
            self._changed.notify_all()


async def city_picture(calls: Calls, clock: Clock) -> dict[str, Any]:
    """The live picture. A part that cannot be had now is null, so that one sick service does not blind the page."""
    found = await asyncio.gather(*(_or_none(part, calls) for part in _PARTS.values()))
    picture: dict[str, Any] = dict(zip(_PARTS, found, strict=True))
    replay = picture["replay"]
    return {"city_time": replay.pop("city_time") if replay else iso(clock.now()), **picture}


async def _or_none(part: Callable[[Calls], Awaitable[Any]], calls: Calls) -> Any:
    try:
        return await part(calls)
    except CityError:
        return None


async def _heads(calls: Calls) -> list[dict[str, Any]]:
    answer = await calls.ask("notary", "ListLogs", notary.ListLogsRequest(), timeout_s=DEADLINE_S)
    return [head_view(head) for head in answer.heads]


def head_view(head: notary.Head) -> dict[str, Any]:
    """A head as the page shows it: sizes, the anchored root and its transaction."""
    return {
        "log": head.log,
        "size": head.size,
        "anchored_size": head.anchored_size,
        "anchored_root": head.anchored_root.hex(),
        "anchor_transaction": head.anchor_transaction,
        "anchored_at": _time(head.anchored_at.ToDatetime()) if head.HasField("anchored_at") else None,
    }


async def _load(calls: Calls) -> list[dict[str, int]]:
    request = metering.GetCityLoadRequest(slots=LOAD_SLOTS)
    answer = await calls.ask("metering", "GetCityLoad", request, timeout_s=DEADLINE_S)
    return [{"time": point.time, "energy_wh": point.energy_wh, "meters": point.meters} for point in answer.points]


async def _quarantine(calls: Calls) -> dict[str, Any]:
    """Devices with readings set aside, each counted once with its newest reason; `held`: new readings are held, too."""
    reasons: dict[str, str] = {}
    held: set[str] = set()
    token = ""
    for _ in range(QUARANTINE_PAGES_MAX):
        request = metering.ListQuarantineRequest(page_size=QUARANTINE_PAGE, page_token=token)
        answer = await calls.ask("metering", "ListQuarantine", request, timeout_s=DEADLINE_S)
        for entry in answer.entries:
            reasons.setdefault(entry.device, entry.reason)
        held.update(entry.device for entry in answer.entries if entry.open)
        token = answer.next_page_token
        if not token:
            break
    return {"devices": len(reasons), "held": len(held), "reasons": dict(sorted(Counter(reasons.values()).items()))}


async def _parking(calls: Calls) -> dict[str, Any]:
    """Lots by the quality of their counts, bays free by those that count, and the books."""
    request = parking.ListLotsRequest(page_size=LOTS_MAX)
    lots, books = await asyncio.gather(
        calls.ask("parking", "ListLots", request, timeout_s=DEADLINE_S),
        calls.ask("parking", "GetBooks", parking.GetBooksRequest(), timeout_s=DEADLINE_S),
    )
    qualities = Counter(one.state.quality or "unknown" for one in lots.lots)
    counted = [one for one in lots.lots if one.state.quality == "counted"]
    return {
        "lots": dict(sorted(qualities.items())),
        "free": sum(max(0, one.lot.capacity - one.state.occupied) for one in counted),
        "capacity": sum(one.lot.capacity for one in counted),
        "reservable_free": sum(one.reservable_free for one in lots.lots),
        "reservations": books.reservations,
        "double_bookings": books.double_bookings,
        "sessions": books.sessions,
    }


async def _payments(calls: Calls) -> dict[str, int]:
    books = await calls.ask("payments", "GetBooks", payments.GetBooksRequest(), timeout_s=DEADLINE_S)
    return {field.name: getattr(books, field.name) for field in books.DESCRIPTOR.fields}


async def _replay(calls: Calls) -> dict[str, Any]:
    answer = await calls.ask("simulation", "GetReplay", simulation.GetReplayRequest(), timeout_s=DEADLINE_S)
    return {
        "city_time": _time(answer.city_time.ToDatetime()),
        "speed": answer.speed,
        "phase": answer.phase,
        "faults": list(answer.faults),
        "faulted_devices": list(answer.faulted_devices),
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


_PARTS: dict[str, Callable[[Calls], Awaitable[Any]]] = {
    "heads": _heads,
    "load": _load,
    "quarantine": _quarantine,
    "parking": _parking,
    "payments": _payments,
    "replay": _replay,
}
