"""A sandbox payment provider: a real HTTP server with books of its own, idempotent by key, and faults. For tests, the demo, the crash run.

`async with SandboxProvider(seed=1, secret=b"...", callback=url) as provider: provider.url`

`POST /v1/operations` acts, `GET /v1/operations/<key>` says what came of it, `GET /v1/operations?from=&to=` lists. Each call and each
callback carries the header `Provider-Signature` (`citykit.webhooks`). `pm_declined...` is declined, `pm_later...` decided only later.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from citykit.errors import PermissionDenied
from citykit.webhooks import HEADER, sign, verify
from simulation.provider_books import PENDING, BadCall, Operation, ProviderBooks
from simulation.provider_faults import NO_FAULTS, Dice, ProviderFaults

Callback = Callable[[bytes, str], Awaitable[None]]
"""Takes a callback's body and signature, in the place of an address."""
_BODY_MAX, _HEAD_MAX = 65_536, 16_384
_CALLBACK_TIMEOUT_S = 5.0
_OPERATIONS = "/v1/operations"


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    signature: str
    body: bytes


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: dict[str, Any]


class SandboxProvider:
    """The provider.

    Args:
        callback: an address that takes `POST`, a function, or None for a provider that never calls back.

    Attributes:
        outage: while True it answers nobody and calls nobody; set it at any time.
        faults: may be set at any time.
        books: what it did.
    """

    def __init__(
        self,
        *,
        seed: int,
        secret: bytes,
        callback: str | Callback | None = None,
        faults: ProviderFaults = NO_FAULTS,
        books: ProviderBooks | None = None,
        port: int = 0,
    ) -> None:
        self.books = books or ProviderBooks()
        self.faults = faults
        self.outage = False
        self.calls = 0
        self.callbacks = 0
        self._dice = Dice(seed)
        self._secret = secret
        self._callback = callback
        self._port = port
        self._held: list[Operation] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> SandboxProvider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_HEAD_MAX)
        self._port = self._server.sockets[0].getsockname()[1]
        if isinstance(self._callback, str):
            self._client = httpx.AsyncClient(timeout=_CALLBACK_TIMEOUT_S, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        if self._client is not None:
            await self._client.aclose()

    async def call_back(self, operation: Operation) -> None:
        """Sends a callback now, whatever the faults."""
        if self._callback is None:
            return
        self.callbacks += 1
        body = json.dumps(operation.shown()).encode()
        await self._deliver(body, sign(self._secret, body, int(time.time())))

    async def _deliver(self, body: bytes, signature: str) -> None:
        if self._client is not None and isinstance(self._callback, str):
            try:
                await self._client.post(self._callback, content=body, headers={HEADER: signature})
            except httpx.HTTPError:
                return  # lost; the city asks by itself
        elif callable(self._callback):
            await self._callback(body, signature)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            call = await _read(reader)
            answer = None if call is None or self.outage else await self._answered(call)
            if answer is not None:
                writer.write(_written(answer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    async def _answered(self, call: _Call) -> _Answer | None:
        """None: the connection is cut."""
        self.calls += 1
        content = call.body if call.method == "POST" else call.path.encode()
        try:
            verify(self._secret, content, call.signature, int(time.time()))
        except PermissionDenied as error:
            return _Answer(HTTPStatus.UNAUTHORIZED, {"error": error.message})
        if self._dice(self.faults.refuse_calls):
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "try again"})
        if call.method == "POST" and call.path == _OPERATIONS:
            return await self._act(call.body)
        return self._told(call.path)

    async def _act(self, body: bytes) -> _Answer | None:
        try:
            done, new = self.books.act(json.loads(body))
        except (BadCall, ValueError) as error:
            return _Answer(HTTPStatus.CONFLICT, {"error": str(error)})
        if new:
            self._spawn(self._told_later(done.key) if done.outcome == PENDING else self._called_back(done))
        if self._dice(self.faults.fail_after):
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "something went wrong"})
        if self._dice(self.faults.drop_after):
            return None
        if self._dice(self.faults.answer_late):
            await asyncio.sleep(self.faults.late_s)
        return _Answer(HTTPStatus.OK, self.books.operations[done.key].shown())

    def _told(self, path: str) -> _Answer:
        parts = urlsplit(path)
        if parts.path == _OPERATIONS:
            return self._listed(parse_qs(parts.query))
        found = self.books.operations.get(parts.path.removeprefix(f"{_OPERATIONS}/"))
        if found is None:
            return _Answer(HTTPStatus.NOT_FOUND, {"error": "no such operation"})
        return _Answer(HTTPStatus.OK, found.shown())

    def _listed(self, query: dict[str, list[str]]) -> _Answer:
        try:
            start, end = int(query["from"][0]), int(query["to"][0])
        except (KeyError, ValueError):
            return _Answer(HTTPStatus.BAD_REQUEST, {"error": "from and to are unix seconds"})
        return _Answer(HTTPStatus.OK, {"operations": [item.shown() for item in self.books.between(start, end)]})

    async def _told_later(self, key: str) -> None:
        await asyncio.sleep(self.faults.late_s)
        await self._called_back(self.books.decide(key))

    async def _called_back(self, done: Operation) -> None:
        if self.outage or self._dice(self.faults.lose_callbacks):
            return
        if self._dice(self.faults.hold_callbacks):
            self._held.append(done)
            return
        if self._dice(self.faults.delay_callbacks):
            await asyncio.sleep(self.faults.late_s)
        held, self._held = self._held, []
        twice = [done] * (2 if self._dice(self.faults.double_callbacks) else 1)
        for operation in (*twice, *held):
            await self.call_back(operation)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(reader: asyncio.StreamReader) -> _Call | None:
    """One HTTP/1.1 request; None for what is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if len(words) != 3 or not length.isdecimal() or int(length) > _BODY_MAX:  # noqa: PLR2004 - method, path, version
        return None
    return _Call(words[0], words[1], headers.get(HEADER.lower(), ""), await reader.readexactly(int(length)))


def _written(answer: _Answer) -> bytes:
    body = json.dumps(answer.body).encode()
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
