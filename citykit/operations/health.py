"""Whether a process is alive and ready, and which part is not: asked by `http`, by gRPC health and by the looks of `serving`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from citykit.errors import CityError
from citykit.operations.pulse import Pulse
from citykit.telemetry import PART_READY

READY, STARTING, SERVING, DRAINING = "ready", "starting", "serving", "draining"
FRESH_S = 0.5
"""An answer is given again for so long: whoever asks more often costs nothing."""
_OK, _UNAVAILABLE = 200, 503


@dataclass(frozen=True)
class Part:
    """Something this process cannot serve without.

    Attributes:
        ask: returns once the part has answered; raises where it is away or not as it must be.
    """

    name: str
    ask: Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Answer:
    """An HTTP status and a body for JSON."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.status == _OK


class Health:
    """One per process. `liveness` may be asked from any thread, `readiness` on the event loop.

    Attributes:
        state: starting, serving or draining; whoever serves the process sets it.
    """

    def __init__(self, parts: Sequence[Part], pulse: Pulse, probe_s: float) -> None:
        self._parts = parts
        self._pulse = pulse
        self._probe_s = probe_s
        self._asked: dict[str, asyncio.Task[str]] = {}
        self._newest: Answer | None = None
        self._newest_at = 0.0
        self.state = STARTING

    def liveness(self) -> Answer:
        """200 while the loop, the tasks and the jobs go on; 503 names what does not."""
        problems = self._pulse.problems()
        if problems:
            return Answer(_UNAVAILABLE, {"status": "stuck", "parts": problems})
        return Answer(_OK, {"status": "alive", "parts": {}})

    async def readiness(self) -> Answer:
        """200 while the process serves and every part answers; 503 says which does not."""
        now = time.monotonic()
        if self._newest is None or now - self._newest_at > FRESH_S or self._newest.body["state"] != self.state:
            self._newest, self._newest_at = await self._ask_all(), now
        return self._newest

    async def _ask_all(self) -> Answer:
        words = await asyncio.gather(*map(self._ask, self._parts))
        parts = {part.name: word for part, word in zip(self._parts, words, strict=True)}
        for name, word in parts.items():
            PART_READY.labels(name).set(word == READY)
        ready = self.state == SERVING and all(word == READY for word in words)
        status = READY if ready else "not-ready"
        return Answer(_OK if ready else _UNAVAILABLE, {"status": status, "state": self.state, "parts": parts})

    async def _ask(self, part: Part) -> str:
        """One question at a time: a part that hangs is not asked again before it has answered."""
        task = self._asked.get(part.name)
        if task is None or task.done():
            task = self._asked[part.name] = asyncio.create_task(_word(part))
        await asyncio.wait({task}, timeout=self._probe_s)
        return task.result() if task.done() else f"no answer within {self._probe_s:g} s"

    async def close(self) -> None:
        """Ends the questions that wait."""
        waiting = [task for task in self._asked.values() if not task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _word(part: Part) -> str:
    try:
        await part.ask()
    except CityError as error:
        return error.reason
    except Exception as error:
        return type(error).__name__  # its text may quote addresses or rows
    return READY
