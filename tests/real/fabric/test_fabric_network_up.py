"""Each profile starts, runs our chaincode by our client, is upgraded by sequence, and comes back after it was stopped."""

from __future__ import annotations

import asyncio
import sys

import pytest

from citykit.ledger.fabric.errors import EvaluateError
from citykit.ledger.fabric.gateway import Gateway
from infra.fabric import Policy, existing
from infra.fabric.chaincodes import Chaincodes
from tests.real.fabric.trial import ALL, PROBE, SECRET, Trial, until_done

PROFILES = ("raft1", "raft3", "bft4")
SECOND = "second"
SERVE = (sys.executable, "-m", "tests.real.fabric.probe")


async def test_what_one_organisation_writes_all_read(trial: Trial) -> None:
    async with trial.caller("city", "metering") as city:
        done = await city.submit(PROBE, "put", [b"k", b"v"])
    trial.net.wait_for_height(done.block + 1)
    for organisation in ALL:
        async with trial.caller(organisation) as one:
            assert await one.evaluate(PROBE, "get", [b"k"], organisations=[one.identity.msp_id]) == b"v"


async def test_the_chaincode_sees_the_service_by_its_name(trial: Trial) -> None:
    async with trial.caller("utility", "billing") as utility:
        assert await utility.evaluate(PROBE, "who") == b"UtilityMSP/billing"


async def test_an_upgrade_takes_the_next_sequence_and_keeps_the_state(trial: Trial) -> None:
    async with trial.caller() as city:
        before = trial.net.lifecycle.committed(PROBE)
        await city.submit(PROBE, "put", [b"kept", b"v"])
        following = f"{before.version}1" if before else "1"
        sequence = trial.deploy(following)
        assert before is not None
        assert sequence == before.sequence + 1
        assert await city.evaluate(PROBE, "version") == following.encode()
        assert await city.evaluate(PROBE, "get", [b"kept"]) == b"v"


async def test_the_same_version_again_commits_nothing(trial: Trial) -> None:
    before = trial.net.lifecycle.committed(PROBE)
    assert before is not None
    height = max(trial.net.height(node) for node in trial.net.plan.peers)
    assert trial.deploy(before.version) == before.sequence
    assert trial.net.height(trial.net.plan.peers[0]) == height


async def test_what_is_called_during_an_upgrade_is_done_once(trial: Trial) -> None:
    """As `city ledger network deploy` and `upgrade` do it: all approve, chaincodes start anew, then the commit."""

    def chaincodes(version: str) -> Chaincodes:
        return Chaincodes(trial.net, {SECOND: version}, SERVE, {SECOND: Policy(SECOND, ALL, 2)})

    await asyncio.to_thread(chaincodes("1").deploy)
    async with trial.caller() as city:
        upgrade = asyncio.create_task(asyncio.to_thread(chaincodes("2").upgrade))
        calls = 0
        while not upgrade.done():
            await until_done(city, "add", [b"during", b"1"], SECOND)
            calls += 1
        assert (await upgrade)[SECOND].sequence == 2
        assert await city.evaluate(SECOND, "version") == b"2"
        await until_done(city, "add", [b"during", b"1"], SECOND)
        assert await city.evaluate(SECOND, "get", [b"during"]) == str(calls + 1).encode()


async def test_private_data_stays_with_its_organisations(trial: Trial) -> None:
    async with trial.caller("city") as city, trial.caller("utility") as utility, trial.caller("auditor") as auditor:
        members = ["CityMSP", "UtilityMSP"]
        arguments = [SECRET.encode(), b"k"]
        done = await city.submit(PROBE, "hide", arguments, transient={"value": b"secret"}, organisations=members)
        trial.net.wait_for_height(done.block + 1)
        assert await _own(utility, "reveal", arguments) == b"secret"
        with pytest.raises(EvaluateError):
            await _own(auditor, "reveal", arguments)
        hidden = await _own(auditor, "hidden_hash", arguments)
    assert hidden == await _hash(trial, arguments)
    assert len(hidden) == 64


async def test_it_comes_back_with_its_state_after_a_stop(trial: Trial) -> None:
    async with trial.caller() as city:
        await city.submit(PROBE, "put", [b"before", b"stop"])
    for node in (*trial.net.plan.peers, *trial.net.plan.orderers):
        await asyncio.to_thread(trial.net.stop, node.name)
        assert not trial.net.running.runs(node.name)
    again = existing(trial.folder)
    again.running = trial.net.running
    again.up()
    async with trial.caller() as city:
        assert await city.evaluate(PROBE, "get", [b"before"]) == b"stop"
        await until_done(city, "put", [b"after", b"start"])


async def _own(gateway: Gateway, function: str, arguments: list[bytes]) -> bytes:
    return await gateway.evaluate(PROBE, function, arguments, organisations=[gateway.identity.msp_id])


async def _hash(trial: Trial, arguments: list[bytes]) -> bytes:
    async with trial.caller("city") as city:
        return await _own(city, "hidden_hash", arguments)
