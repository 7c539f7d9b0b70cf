"""The event loop of a process that serves: uvloop's, which costs a gRPC call a quarter less of a core than asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


def run_to_end(main: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run` on uvloop: Ctrl-C, tasks left over and generators are handled the same."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
