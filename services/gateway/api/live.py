"""GET /api/v1/live: the city as server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from services.gateway.api.parameters import Here

router = APIRouter(prefix="/api/v1", tags=["public"])


@router.get(
    "/live",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def watch_city(here: Here) -> StreamingResponse:
    """Events `city`, about one a second: `{city_time, heads, load, quarantine, parking, payments, replay}`.

    A part that is away is null.

    Each event is the whole picture, so `Last-Event-ID` changes nothing. A comment comes every 15 s when all is still. A
    stream ends after an hour; streams are limited in number (429).
    """
    events = here.live.events()
    first = await anext(events)
    return StreamingResponse(_all(first, events), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in rest:
        yield event
