"""One PostgreSQL server for the tests of this folder, started with the first that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from citykit.testing.polling import until
from infra.native import Native, cache_folder, free_port
from infra.postgres import Admin, install, programs
from tests.real.store.serving import Server


@pytest.fixture(autouse=True)
async def no_connection_is_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Whoever opened a store closed it, and closing closes every connection."""
    yield
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    if server is not None and server.native.runs():
        await until(lambda: not server.sessions(), "every connection is closed", limit_s=5.0)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _started(tmp_path_factory.mktemp("postgres"), "max_connections = 500") as found:
        yield found


@pytest.fixture(scope="session")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that does not wait for the disk: for tests that kill no machine."""
    with _started(tmp_path_factory.mktemp("quick"), "max_connections = 500", "fsync = off") as found:
        yield found


@contextmanager
def _started(state: Path, *more: str) -> Iterator[Server]:
    port = free_port()
    install(cache_folder())
    [program] = programs(cache_folder(), state, port, services=(), more=more)
    native = Native(program, state)
    native.start()
    try:
        native.wait()
        yield Server(native, Admin(port, state / "passwords"), state)
    finally:
        native.stop()
