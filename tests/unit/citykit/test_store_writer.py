"""The writer's queue while its database is away: what waits is refused, the end is not lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from citykit.errors import ResourceExhausted, Unavailable
from citykit.store.writer import GroupWriter, Work


class Away:
    """A committer whose first group hangs until `back`; what waits meanwhile it refuses once told to."""

    def __init__(self) -> None:
        self.begun, self.refuse, self.refused = threading.Event(), threading.Event(), threading.Event()
        self.writer: GroupWriter | None = None
        self.closed = False
        self.groups: list[int] = []

    def commit(self, group: Sequence[Work]) -> None:
        self.groups.append(len(group))
        if len(self.groups) == 1:
            self.begun.set()
            assert self.refuse.wait(10) and self.writer is not None
            self.writer.refuse(lambda: Unavailable("away"))
            self.refused.set()
        for work in group:
            work.result = "kept"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def away() -> Away:
    committer = Away()
    committer.writer = GroupWriter(committer, "test", 3, 10)
    return committer


async def begun(away: Away) -> tuple[GroupWriter, asyncio.Task[object]]:
    assert away.writer is not None
    first = asyncio.create_task(away.writer.submit(str))
    await asyncio.to_thread(away.begun.wait, 10)
    return away.writer, first


async def test_what_waits_is_refused_and_the_group_under_way_is_not(away: Away) -> None:
    writer, first = await begun(away)
    waiting = [asyncio.create_task(writer.submit(str)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="too much waits"):
        await writer.submit(str)
    away.refuse.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ended] == [Unavailable] * 3
    assert await first == "kept"
    assert await writer.submit(str) == "kept"
    await writer.close()
    assert away.closed


async def test_an_end_that_waits_too_is_kept(away: Away) -> None:
    writer, first = await begun(away)
    waiting = asyncio.create_task(writer.submit(str))
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    while not writer.closing:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="closed"):
        await writer.submit(str)
    away.refuse.set()
    await closing
    assert await first == "kept"
    with pytest.raises(Unavailable, match="away"):
        await waiting
    assert away.closed and away.groups == [1]
