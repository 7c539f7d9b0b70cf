"""Whether a process makes progress: its event loop comes round, its tasks are there, no act of it takes for ever. For `citykit.run` and `health`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from citykit.telemetry import LOOP_DELAY, logger

BEAT_S = 0.25
"""Between two beats of the loop."""


class Pulse:
    """One per process. `problems` may be asked from any thread; everything else belongs to the event loop.

    Args:
        stalled_s: how long the loop may stand still.
        monotonic: seconds that never go back.
    """

    def __init__(self, stalled_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stalled_s = stalled_s
        self._monotonic = monotonic
        self._beaten = monotonic()
        self._acts: dict[object, tuple[str, float]] = {}
        self._ended: dict[str, str] = {}

    def keep(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that must run for as long as the process: one that ends by itself is a problem until the process ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note_end)
        return task

    @contextlib.contextmanager
    def doing(self, name: str, limit_s: float) -> Iterator[None]:
        """An act that is a problem while it takes longer than `limit_s`."""
        act = object()
        self._acts[act] = (name, self._monotonic() + limit_s)
        try:
            yield
        finally:
            del self._acts[act]

    async def beat(self) -> None:
        """Beats and measures how late each beat comes, for as long as the process runs."""
        while True:
            due = self._monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._beaten = self._monotonic()
            LOOP_DELAY.observe(max(0.0, self._beaten - due))

    def problems(self) -> dict[str, str]:
        """What does not go on, and why; empty where everything does."""
        now = self._monotonic()
        found = dict(self._ended)
        found |= {name: f"over its time by {now - end:.0f} s" for name, end in list(self._acts.values()) if now > end}
        still_s = now - self._beaten
        if still_s > self._stalled_s:
            found["event-loop"] = f"has not come round for {still_s:.0f} s"
        return found

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        kind = "nothing" if error is None else type(error).__name__
        self._ended[task.get_name()] = f"ended with {kind}"
        logger("city").error("task-ended", extra={"fields": {"task": task.get_name(), "kind": kind}}, exc_info=error)
