"""Ordering nodes that go away: Raft-3 stands one down, BFT-4 stands one down, and with fewer than a quorum nothing is acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from citykit.ledger.fabric.connection import Deadlines
from citykit.ledger.fabric.errors import GatewayError, OutcomeUnknown
from tests.real.fabric.trial import PROBE, Trial, until_done

PROFILES = ("raft3", "bft4")
HASTY = Deadlines(evaluate_s=20, endorse_s=30, submit_s=3, commit_s=3)


async def test_any_one_orderer_may_be_down(trial: Trial) -> None:
    """Each in turn, so that the leader is among them."""
    async with trial.caller() as city:
        for node in trial.net.plan.orderers:
            await asyncio.to_thread(trial.net.kill, node.name)
            await until_done(city, "put", [node.name.encode(), b"was down"])
            await asyncio.to_thread(trial.net.start, node.name)
        found = [await city.evaluate(PROBE, "get", [node.name.encode()]) for node in trial.net.plan.orderers]
    assert set(found) == {b"was down"}


async def test_a_load_goes_on_while_an_orderer_is_killed_and_each_acts_once(trial: Trial) -> None:
    async with trial.caller() as city:
        first = await city.submit(PROBE, "put", [b"load", b"begins"])
        loads = [asyncio.create_task(until_done(city, "add", [f"load/{n}".encode(), b"1"])) for n in range(100)]
        await asyncio.wait(loads, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(trial.net.kill, "orderer1")
        done = await asyncio.gather(*loads)
        await asyncio.to_thread(trial.net.start, "orderer1")
        assert min(one.block for one in done) > first.block
        read = [city.evaluate(PROBE, "get", [f"load/{n}".encode()]) for n in range(100)]
        assert set(await asyncio.gather(*read)) == {b"1"}


async def test_without_a_quorum_nothing_is_acknowledged_and_it_heals(trial: Trial) -> None:
    away = [node.name for node in trial.net.plan.orderers[:2]]
    for name in away:
        await asyncio.to_thread(trial.net.kill, name)
    async with trial.connection(deadlines=HASTY) as connection:
        with pytest.raises((GatewayError, OutcomeUnknown)):
            await trial.gateway(connection).submit(PROBE, "put", [b"no quorum", b"v"])
    async with trial.caller() as city:
        assert await city.evaluate(PROBE, "get", [b"no quorum"]) == b""
        await asyncio.to_thread(trial.net.start, *away)
        await until_done(city, "put", [b"quorum", b"again"])


async def test_a_restarted_orderer_has_every_block(trial: Trial) -> None:
    async with trial.caller() as city:
        done = await until_done(city, "put", [b"last", b"block"])
    for node in trial.net.plan.orderers:
        await asyncio.to_thread(trial.net.wait_for_height, done.block + 1, [node.name])
        assert trial.net.height(node) > done.block
