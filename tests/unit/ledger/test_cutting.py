"""Batches are cut by number and time; stopping commits what waits and what is on its way."""

from __future__ import annotations

import asyncio

from citykit.ledger.cutting import Cutter


async def test_what_waits_together_is_committed_together() -> None:
    batches: list[list[int]] = []

    async def commit(batch: list[int]) -> None:
        batches.append(batch)

    cutter = Cutter[int](commit, block_max=3, wait_s=0.0, pending_max=10)
    assert not cutter.add(0)
    cutter.start("cutter")
    assert all(cutter.add(number) for number in range(7))
    await cutter.stop()
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert not cutter.add(8)


async def test_more_than_it_may_hold_is_not_taken() -> None:
    async def commit(_: list[int]) -> None:
        return None

    cutter = Cutter[int](commit, block_max=3, wait_s=0.0, pending_max=2)
    cutter.start("cutter")
    assert [cutter.add(number) for number in range(3)] == [True, True, False]
    await cutter.stop()


async def test_stopping_waits_for_a_commit_on_its_way() -> None:
    begun, done = asyncio.Event(), []

    async def commit(batch: list[int]) -> None:
        begun.set()
        for _ in range(20):
            await asyncio.sleep(0)
        done.extend(batch)

    cutter = Cutter[int](commit, block_max=3, wait_s=0.0, pending_max=2)
    cutter.start("cutter")
    cutter.add(1)
    await begun.wait()
    assert cutter.waiting == 0
    await cutter.stop()
    assert done == [1]
