"""Serves an ASGI application on 127.0.0.1 for tests that need real HTTP: in this loop, or a fake city in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import uvicorn

from citykit.settings import CitySettings
from tests.system.fakes import FakeCity, fake_city


@contextlib.asynccontextmanager
async def served(app: Any, port: int = 0) -> AsyncIterator[str]:
    """The application's address, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@contextlib.contextmanager
def fake_city_in_thread(
    folder: Path, settings: CitySettings | None = None, port: int = 0
) -> Iterator[tuple[str, FakeCity]]:
    """A fake city's address and its parts, served from a thread: for callers that block."""
    found: Future[tuple[str, FakeCity]] = Future()
    stop = threading.Event()

    async def serve() -> None:
        async with fake_city(folder, settings) as city, served(city.app, port) as address:
            found.set_result((address, city))
            await asyncio.to_thread(stop.wait)
            await city.app.state.parts.live.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # the thread that waits is told
            if found.done():
                raise
            found.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found.result(timeout=30)
    finally:
        stop.set()
        thread.join()
