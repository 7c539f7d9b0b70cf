"""In front of the gateway while the demo starts: `/` says how far it is (503) until the first bill is anchored.

In one process the demo says so itself; a gateway in a process of its own asks the demo's service `simulation`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any

import grpc.aio

from city.simulation.v1 import simulation_service_pb2 as simulation
from city.simulation.v1.simulation_service_pb2_grpc import SimulationServiceStub
from citykit.clock import iso

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="1"><title>Provable City is starting</title></head>
<body><main><h1>The city is starting</h1><p role="status">{progress}</p></main></body></html>
"""
_OK = 200
_ASK_S = 2.0
_LIVE = "live"
"""The phase in which the city is there."""


class StartingGate:
    """An ASGI application around the gateway's.

    Args:
        progress: how far the start is; None once the city is there, and it is not asked again.
        seen: called after each 200 for `/`.
    """

    def __init__(
        self, application: Any, progress: Callable[[], Awaitable[str | None]], seen: Callable[[], None] = lambda: None
    ) -> None:
        self._application = application
        self._progress = progress
        self._seen = seen
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self._application(scope, receive, send)
        elif not self._ready and (progress := await self._progress()) is not None:
            await self._say_progress(send, progress)
        else:
            self._ready = True
            await self._application(scope, receive, self._noting(send))

    def _noting(self, send: Send) -> Send:
        async def note(message: MutableMapping[str, Any]) -> None:
            await send(message)
            if message["type"] == "http.response.start" and message["status"] == _OK:
                self._seen()

        return note

    async def _say_progress(self, send: Send, progress: str) -> None:
        body = _PAGE.format(progress=escape(progress)).encode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", b"1"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Told:
    """What the demo in this process says of its start."""

    def __init__(self) -> None:
        self.now: str | None = "Starting."

    def say(self, progress: str | None) -> None:
        self.now = progress

    async def progress(self) -> str | None:
        return self.now


class Arrival:
    """What the demo in another process says of its start, asked at its service `simulation`."""

    def __init__(self, dial: Callable[[str], grpc.aio.Channel]) -> None:
        self._dial = dial

    async def progress(self) -> str | None:
        service: Any = SimulationServiceStub(self._dial("simulation"))
        try:
            answer = await service.GetReplay(simulation.GetReplayRequest(), timeout=_ASK_S)
        except grpc.aio.AioRpcError:
            return "The services have started; waiting for the demo."
        return (
            None if answer.phase == _LIVE else f"Taking in the past: it is {iso(answer.city_time.seconds)} in the city."
        )
