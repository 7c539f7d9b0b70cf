"""Serves the gateway over HTTP, and looks whether it answers. Used by `city run` and `city serve gateway`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn

from citykit.errors import EnvironmentFault

LOOPBACK = "127.0.0.1"
_ANSWER_S = 30.0


@contextlib.asynccontextmanager
async def serving(
    application: Callable[..., Any],
    port: int,
    closing: Callable[[], Awaitable[None]] | None = None,
    host: str = LOOPBACK,
) -> AsyncIterator[None]:
    """Serves HTTP.

    Args:
        closing: called before the server drains, to end streams that would never end.

    Raises:
        EnvironmentFault: the port is taken.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve(sockets=[listening]))
    try:
        yield
    finally:
        if closing is not None:
            await closing()
        server.should_exit = True
        await task
        listening.close()


async def require_answer(port: int) -> str:
    """The dashboard's address, once it has answered there: it is printed no earlier.

    Raises:
        EnvironmentFault: it does not.
    """
    address = f"http://{LOOPBACK}:{port}/"
    await asyncio.to_thread(_ask, address)
    return address


def _ask(address: str) -> None:
    try:
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:  # noqa: S310 - our own address
            answer.read()
    except OSError as error:
        raise EnvironmentFault(f"the dashboard at {address} does not answer ({error}); look into the log") from error


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise EnvironmentFault(
            f"port {port} cannot be used ({error.strerror}); name another with --port (a service alone: CITY_GATEWAY_LISTEN)"
        ) from None
    return listening
