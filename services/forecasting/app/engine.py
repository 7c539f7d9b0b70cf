"""The computing process: the city's loop hands it snapshots and never waits on arithmetic. A process that died is started again.

Called by `forecasts` and `training`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, TypeVar

from citykit.errors import ResourceExhausted, Unavailable

T = TypeVar("T")
COMPUTE = "services.forecasting.app.compute"
WAITING_MAX = 32


class Engine:
    """Runs functions of `compute` by name in `workers` processes. `close` ends them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0

    async def run(self, function: str, *args: Any, tries: int = 2) -> Any:
        """The function's result; made again in another process, up to `tries` times, when the process dies.

        Raises:
            ResourceExhausted: 32 calls wait already.
            Unavailable: the process died on every try.
        """
        if self._waiting >= WAITING_MAX:
            raise ResourceExhausted("too many forecasts are asked for at once; try again", retry_after_s=2.0)
        self._waiting += 1
        try:
            return await self._tried(function, args, tries)
        finally:
            self._waiting -= 1

    async def _tried(self, function: str, args: tuple[Any, ...], tries: int) -> Any:
        for _ in range(tries):
            pool = self._started()
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, _call, function, args)
            except BrokenProcessPool:
                self._drop(pool)
        raise Unavailable("the computing process died on this; try again later", retry_after_s=5.0)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_prepare)
        return self._pool

    def _drop(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)

    def processes(self) -> list[int]:
        """Ids of the processes there are now."""
        return sorted(getattr(self._pool, "_processes", None) or {})

    async def close(self) -> None:
        """Ends the processes; what they compute is lost."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            for process in list(getattr(pool, "_processes", {}).values()):
                process.terminate()
            await asyncio.to_thread(pool.shutdown)


def _call(function: str, args: tuple[Any, ...]) -> Any:
    run: Callable[..., Any] = getattr(import_module(COMPUTE), function)
    return run(*args)


def _prepare() -> None:
    import_module(COMPUTE).prepare()
