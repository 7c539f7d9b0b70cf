"""Faults that need several peers, on a real network, by our client and our shim."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from datetime import timedelta

import pytest

from citykit.ledger.fabric.checkpoint import MemoryCheckpointer
from citykit.ledger.fabric.connection import Deadlines, Retry
from citykit.ledger.fabric.errors import (
    CommitInvalid,
    EndorseError,
    EvaluateError,
    GatewayError,
    OutcomeUnknown,
)
from citykit.ledger.fabric.events import chaincode_events
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.transactions import Done
from infra.fabric import wait_until
from tests.real.fabric.trial import ALL, PATIENCE_S, PROBE, Trial, probe_name, until_done

MVCC = 11
POLICY_FAILURE = 10


async def test_an_endorser_that_is_down_is_done_without_and_catches_up(trial: Trial) -> None:
    trial.net.kill("peer-auditor")
    async with trial.caller() as city:
        done = await until_done(city, "put", [b"endorser", b"down"])
    trial.net.start("peer-auditor")
    trial.net.wait_for_height(done.block + 1, ["peer-auditor"])
    async with trial.caller("auditor") as auditor:
        own = [auditor.identity.msp_id]
        assert await auditor.evaluate(PROBE, "get", [b"endorser"], organisations=own) == b"down"


async def test_too_few_endorsers_are_refused_and_nothing_is_written(trial: Trial) -> None:
    for name in ("peer-auditor", "peer-utility"):
        trial.net.kill(name)
    async with trial.caller() as city:
        with pytest.raises(EndorseError):
            await city.submit(PROBE, "put", [b"few", b"endorsers"])
        for name in ("peer-auditor", "peer-utility"):
            trial.net.start(name)
        assert await city.evaluate(PROBE, "get", [b"few"]) == b""
        await until_done(city, "put", [b"few", b"no more"])


async def test_a_peer_killed_while_it_commits_loses_nothing(trial: Trial) -> None:
    async with trial.caller() as city:
        loads = [asyncio.create_task(until_done(city, "put", [f"mid/{n}".encode(), b"v"])) for n in range(60)]
        await _first(loads)
        await asyncio.to_thread(trial.net.kill, "peer-utility")
        await asyncio.to_thread(trial.net.start, "peer-utility")
        done = await asyncio.gather(*loads)
    height = max(one.block for one in done) + 1
    trial.net.wait_for_height(height)
    async with trial.caller("utility") as utility:
        own = [utility.identity.msp_id]
        read = [utility.evaluate(PROBE, "get", [f"mid/{n}".encode()], organisations=own) for n in range(60)]
        assert set(await asyncio.gather(*read)) == {b"v"}


async def test_a_commit_that_was_not_seen_in_time_is_found_by_its_id_and_acts_once(trial: Trial) -> None:
    async with trial.connection(deadlines=Deadlines(endorse_s=30, submit_s=20, commit_s=0.001)) as connection:
        hasty = trial.gateway(connection)
        prepared = await hasty.endorse(hasty.propose(PROBE, "add", [b"once", b"1"]))
        with pytest.raises(OutcomeUnknown, match=prepared.transaction_id):
            await hasty.finish(prepared)
    async with trial.caller() as patient:
        first = await patient.commit_status(prepared.transaction_id)
        assert first.valid
        again = await patient.commit_status(prepared.transaction_id)
        assert again == first
        await patient.send(prepared)  # the same envelope once more
        assert await patient.evaluate(PROBE, "get", [b"once"]) == b"1"
        await patient.submit(PROBE, "put", [b"behind", b"it"])
        assert await patient.evaluate(PROBE, "get", [b"once"]) == b"1"


async def test_a_storm_on_one_key_counts_exactly_the_valid_ones(trial: Trial) -> None:
    async with trial.caller() as city:
        storm = [city.submit(PROBE, "add", [b"storm", b"1"]) for _ in range(80)]
        outcomes = await asyncio.gather(*storm, return_exceptions=True)
        valid = [one for one in outcomes if isinstance(one, Done)]
        codes = Counter(one.code for one in outcomes if isinstance(one, CommitInvalid))
        torn = [one for one in outcomes if isinstance(one, EndorseError)]  # endorsed on two peers of different height
        assert codes[MVCC] > 0
        assert len(valid) + codes[MVCC] + len(torn) == len(outcomes)
        assert await city.evaluate(PROBE, "get", [b"storm"]) == str(len(valid)).encode()


async def test_a_policy_that_is_not_met_is_committed_as_invalid(trial: Trial) -> None:
    async with trial.caller() as city:
        with pytest.raises(CommitInvalid) as raised:
            await city.submit(PROBE, "put", [b"alone", b"v"], organisations=["CityMSP"])
        assert raised.value.code == POLICY_FAILURE
        assert await city.evaluate(PROBE, "get", [b"alone"]) == b""


async def test_events_go_on_after_the_stream_was_cut_without_gap_or_double(trial: Trial) -> None:
    wanted = [f"event/{n}" for n in range(12)]
    checkpoint = MemoryCheckpointer()
    async with trial.caller() as city, trial.caller("utility") as utility:
        start = (await city.submit(PROBE, "put", [b"events", b"from here"])).block + 1
        reader = asyncio.create_task(_events(utility, start, len(wanted), checkpoint))
        for number, key in enumerate(wanted):
            await until_done(city, "put", [key.encode(), b"v"])
            if number == len(wanted) // 2:
                await asyncio.to_thread(trial.net.kill, "peer-utility")
                await asyncio.to_thread(trial.net.start, "peer-utility")
        async with asyncio.timeout(PATIENCE_S):
            seen = await reader
    assert seen == [f"{key}=v" for key in wanted]


async def test_a_reader_that_ends_goes_on_at_its_checkpoint(trial: Trial) -> None:
    wanted = [f"resumed/{n}" for n in range(6)]
    checkpoint = MemoryCheckpointer()
    async with trial.caller() as city:
        start = (await city.submit(PROBE, "put", [b"resumed", b"from here"])).block + 1
        await asyncio.gather(*(city.submit(PROBE, "put", [key.encode(), b"v"]) for key in wanted))
        async with asyncio.timeout(PATIENCE_S):
            first = await _events(city, start, 2, checkpoint)
            rest = await _events(city, start, len(wanted) - 2, checkpoint)
    assert sorted(first + rest) == sorted(f"{key}=v" for key in wanted)


async def test_a_contract_that_differs_between_peers_is_not_endorsed(trial: Trial) -> None:
    version = _version(trial)
    trial.deploy(version, variants={"city": "one", "utility": "another", "auditor": "a third"})
    async with trial.caller() as city:
        with pytest.raises(EndorseError, match="do not match"):
            await city.submit(PROBE, "differ", [b"different"])
        assert await city.evaluate(PROBE, "get", [b"different"]) == b""
    trial.deploy(version)
    async with trial.caller() as city:
        await until_done(city, "differ", [b"different"])


async def test_another_channel_is_refused(trial: Trial) -> None:
    async with trial.connection(retry=Retry(tries=2)) as connection:
        lost = trial.gateway(connection, channel="town")
        with pytest.raises(EvaluateError, match="town"):
            await lost.evaluate(PROBE, "get", [b"k"])
        with pytest.raises(EndorseError, match="town"):
            await lost.submit(PROBE, "put", [b"k", b"v"])


async def test_an_expired_certificate_is_refused(trial: Trial) -> None:
    async with trial.connection() as connection:
        expired = trial.gateway(connection, name="late", valid=timedelta(minutes=-1))
        with pytest.raises(GatewayError, match=r"expired|access denied"):
            await expired.evaluate(PROBE, "get", [b"k"])
        with pytest.raises(GatewayError, match=r"expired|access denied"):
            await expired.submit(PROBE, "put", [b"k", b"v"])


async def test_a_chaincode_killed_in_the_middle_acts_once_or_not_at_all(trial: Trial) -> None:
    version, begun = _version(trial), trial.folder / "slow.begun"
    async with trial.caller() as city:
        running = asyncio.create_task(city.submit(PROBE, "slow", [b"killed", b"20", str(begun).encode()]))
        await asyncio.to_thread(wait_until, begun.exists, "the chaincode to begin")
        for organisation in ALL:
            await asyncio.to_thread(trial.kill_probe, organisation)
        with pytest.raises(EndorseError):
            await running
        for organisation in ALL:
            await asyncio.to_thread(trial.serve, organisation, version, version)
        assert await city.evaluate(PROBE, "get", [b"killed"]) == b""
        await until_done(city, "put", [b"killed", b"no more"])


async def test_one_organisations_chaincode_killed_is_done_without(trial: Trial) -> None:
    version = _version(trial)
    trial.kill_probe("auditor")
    async with trial.caller() as city:
        await until_done(city, "put", [b"without", b"the auditor"])
    trial.serve("auditor", version, version)
    assert trial.net.running.runs(probe_name("auditor"))


async def _first(tasks: list[asyncio.Task[Done]]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _events(gateway: Gateway, start: int, count: int, checkpoint: MemoryCheckpointer) -> list[str]:
    found: list[str] = []
    async with aclosing(chaincode_events(gateway, PROBE, start=start, checkpoint=checkpoint)) as events:
        async for event in events:
            found.append(event.payload.decode())
            checkpoint.save(event)
            if len(found) == count:
                break
    return found


def _version(trial: Trial) -> str:
    committed = trial.net.lifecycle.committed(PROBE)
    assert committed is not None
    return committed.version
