"""In front of the gateway while the demo starts: `/` says how far it is (503) until the first bill is anchored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="1"><title>Provable City is starting</title></head>
<body><main><h1>The city is starting</h1><p role="status">{progress}</p></main></body></html>
"""
_OK = 200


class StartingGate:
    """An ASGI application around the gateway's.

    Args:
        seen: called after each 200 for `/`.
    """

    def __init__(self, application: Any, seen: Callable[[], None]) -> None:
        self._application = application
        self._seen = seen
        self.ready = False
        self.progress = "Starting."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self._application(scope, receive, send)
        elif not self.ready:
            await self._say_progress(send)
        else:
            await self._application(scope, receive, self._noting(send))

    def _noting(self, send: Send) -> Send:
        async def note(message: MutableMapping[str, Any]) -> None:
            await send(message)
            if message["type"] == "http.response.start" and message["status"] == _OK:
                self._seen()

        return note

    async def _say_progress(self, send: Send) -> None:
        body = _PAGE.format(progress=escape(self.progress)).encode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", b"1"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
