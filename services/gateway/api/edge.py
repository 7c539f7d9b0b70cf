"""Outer layers of the HTTP edge: security headers, body limit, last-resort errors, metrics. Plain ASGI, so that streams stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citykit import telemetry
from services.gateway.api.problems import problem

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class SecurityHeaders:
    """Adds the security headers to every response that has not set its own, and no-store to what is not marked cacheable."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class HeadAsGet:
    """Answers HEAD as GET without the content (RFC 9110, section 9.3.2). A stream without an end has no HEAD."""

    def __init__(self, app: ASGIApp, endless: str) -> None:
        self._app = app
        self._endless = endless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] == self._endless:
            return await self._app(scope, receive, send)

        async def without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        inner = {**scope, "method": "GET"}
        await self._app(inner, receive, without_content)
        scope["route"] = inner.get("route")
        return None


class BodyLimit:
    """Refuses a body of more than `limit` bytes: by its announced length, or while it comes when none is announced."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self._limit:
            return await self._refusal()(scope, receive, send)
        await self._app(scope, self._counted(receive), send)
        return None

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, self._detail(), {"Connection": "close"})
            return message

        return counted

    def _refusal(self) -> ASGIApp:
        return problem(413, "body-too-large", self._detail(), headers={"Connection": "close"})

    def _detail(self) -> str:
        return f"the body of a request may have at most {self._limit} bytes; send less at once"


class LastResort:
    """Turns an exception nobody expected into problem details without its text, and measures every request."""

    def __init__(
        self, app: ASGIApp, log: logging.LoggerAdapter[logging.Logger], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._log = log
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = self._clock()
        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            self._log.error(
                "request-failed",
                extra={"fields": {"route": _route(scope), "error": type(error).__name__}},
                exc_info=error,
            )
            if status:
                raise
            detail = "something went wrong here, and it is logged; try again with the same Idempotency-Key"
            await problem(500, "internal", detail)(scope, receive, noted)
        finally:
            telemetry.HTTP_SECONDS.labels(_route(scope), scope["method"], str(status)).observe(self._clock() - began)
        return None


def _route(scope: Scope) -> str:
    """The route's template, never the path: no ids in metrics and logs."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))
