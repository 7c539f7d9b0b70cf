"""`/metrics`, `/livez` and `/readyz` of a process, on a port of its own. Called by `serving`.

Every process has it in the same form, `city run` too: the gateway's port faces residents, this one those who run the city. It is served
from threads, not from the event loop: a loop that is stuck can then be told from a process that is gone, and a scrape of a busy process
holds no call up for as long as it takes to write it down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from citykit.errors import EnvironmentFault
from citykit.operations.health import Answer, Health
from citykit.telemetry import REGISTRY

AT_ONCE_MAX = 8
_CLIENT_S = 5.0
"""A client that sends or takes more slowly is cut off."""
_LOOP_S = 5.0
PATHS = ("/livez", "/metrics", "/readyz")


@dataclass(frozen=True)
class Page:
    """What is answered."""

    status: int
    content_type: str
    body: bytes


def metrics() -> Page:
    """Every metric of this process, in the text form of Prometheus."""
    return Page(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))


def page(answer: Answer) -> Page:
    return Page(answer.status, "application/json", json.dumps(answer.body).encode() + b"\n")


@contextlib.contextmanager
def own_port(host: str, port: int, health: Health) -> Iterator[None]:
    """Serves the three paths on a port of their own. Called on the event loop that `health` belongs to.

    Raises:
        EnvironmentFault: the port is taken.
    """
    loop = asyncio.get_running_loop()
    pages = {
        "/metrics": metrics,
        "/livez": lambda: page(health.liveness()),
        "/readyz": lambda: page(_ask(loop, health)),
    }
    try:
        server = _Server((host, port), pages)
    except OSError as error:
        raise EnvironmentFault(
            f"port {port} of {host} cannot be used for /metrics ({error.strerror}); set CITY_OBSERVABILITY_PORT to another,"
            " or to 0 for none"
        ) from error
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="operations", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _ask(loop: asyncio.AbstractEventLoop, health: Health) -> Answer:
    """Readiness, from a thread; a loop that does not come round is not ready."""
    future = asyncio.run_coroutine_threadsafe(health.readiness(), loop)
    try:
        return future.result(_LOOP_S)
    except FutureTimeout:
        future.cancel()
        return Answer(503, {"status": "not-ready", "state": health.state, "parts": {"event-loop": "does not answer"}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], Page]]) -> None:
        self.pages = pages
        self._room = threading.BoundedSemaphore(AT_ONCE_MAX)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(_CLIENT_S)
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_S

    def do_GET(self) -> None:
        found = self.server.pages.get(self.path.partition("?")[0])
        answer = found() if found else Page(404, "text/plain", f"here are {', '.join(PATHS)}\n".encode())
        self.send_response(answer.status)
        for name, value in _headers(answer):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Probes come every second; nobody wants to read of them."""


def _headers(answer: Page) -> list[tuple[str, str]]:
    return [
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
    ]
