"""Stands between an operator and its API server, and answers for it where a test wants: 409, 410, or a watch that says nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from infra.kubernetes.asking import client_context, read_kubeconfig

_LIMIT_BYTES = 8 * 1_048_576
_KEPT = ("Content-Type", "Accept", "User-Agent")
GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410} | {
    "message": "too old resource version: 1 (2)", "metadata": {},
}  # fmt: skip
CONFLICT = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409} | {
    "message": "the object has been modified; please apply your changes to the latest version and try again",
    "metadata": {},
}


@dataclass
class Between:
    """The knobs.

    Attributes:
        kubeconfig: of an operator that asks here, with the rights of the one given.
        conflicts: writes that are still to be answered 409 and not passed on.
        gone: watches that are still to be answered with the event of 410: those that begin anew, of a version they know.
        mute: no watch says anything any more, those that are open included; they stay open.
        watches: those that are open.
        seen: how many of each were answered so: `conflict`, `gone`; `swallowed`, the news of mute watches; `watch`, all of them.
    """

    kubeconfig: Path
    conflicts: int = 0
    gone: int = 0
    mute: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    watches: set[asyncio.Task[None]] = field(default_factory=set)

    def break_watches(self) -> None:
        """Every open watch ends without a word."""
        for task in self.watches:
            task.cancel()


@contextlib.asynccontextmanager
async def between(kubeconfig: Path, folder: Path) -> AsyncIterator[Between]:
    """Serves on loopback until the block ends.

    Args:
        kubeconfig: with everything inside, as `infra.kubernetes.pki.write_kubeconfig` writes it.
        folder: for the other kubeconfig.
    """
    cluster, user = read_kubeconfig(kubeconfig)
    knobs = Between(folder / "between.kubeconfig")
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=client_context(cluster, user)), trust_env=False
    ) as session:
        application = web.Application(client_max_size=_LIMIT_BYTES)
        application.router.add_route("*", "/{path:.*}", _Answering(knobs, session, cluster["server"]).answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        document = json.loads(kubeconfig.read_text(encoding="utf-8"))
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}
        document["users"][0]["user"] = {}
        knobs.kubeconfig.write_text(json.dumps(document), encoding="utf-8")
        try:
            yield knobs
        finally:
            await runner.cleanup()


class _Answering:
    def __init__(self, knobs: Between, session: aiohttp.ClientSession, server: str) -> None:
        self._knobs = knobs
        self._session = session
        self._server = server

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Passes it on, unless a knob says otherwise."""
        knobs = self._knobs
        if request.query.get("watch"):
            return await self._watch(request)
        if knobs.conflicts > 0 and request.method in ("PUT", "PATCH"):
            knobs.conflicts -= 1
            knobs.seen["conflict"] += 1
            return web.json_response(CONFLICT, status=409)
        async with self._passed(request, await request.read()) as found:
            body = await found.read()
            return web.Response(status=found.status, body=body, content_type=found.content_type)

    def _passed(self, request: web.Request, body: bytes) -> aiohttp.client._RequestContextManager:
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        url = f"{self._server}{request.path_qs}"
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        return self._session.request(request.method, url, data=body or None, headers=headers, timeout=timeout)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        knobs = self._knobs
        knobs.seen["watch"] += 1
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        if knobs.gone > 0 and request.query.get("resourceVersion"):
            knobs.gone -= 1
            knobs.seen["gone"] += 1
            await response.prepare(request)
            await response.write(json.dumps({"type": "ERROR", "object": GONE}).encode() + b"\n")
            return response
        task = asyncio.create_task(self._stream(request, response))
        knobs.watches.add(task)
        task.add_done_callback(knobs.watches.discard)
        with contextlib.suppress(asyncio.CancelledError, ConnectionError, aiohttp.ClientError):
            await task
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse) -> None:
        async with self._passed(request, b"") as found:
            await response.prepare(request)
            async for line in found.content:
                if self._knobs.mute:
                    self._knobs.seen["swallowed"] += 1
                else:
                    await response.write(line)
            while self._knobs.mute:  # it stays open, as a connection does whose other end is gone
                await asyncio.sleep(0.1)
