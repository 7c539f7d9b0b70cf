"""Contracts brought by our own lifecycle client, beside organisations that use the `peer` command: both approve the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from citykit.ledger.fabric.connection import Tls, connect
from citykit.ledger.fabric.definitions import Agreement, Collection, Definition
from citykit.ledger.fabric.deployment import Deployment, Release
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.identity import read_identity
from citykit.ledger.fabric.lifecycle import Lifecycle, LifecycleError, Peer, PeerError, Unapproved
from infra.fabric.crypto import admin_msp, identity, node_tls
from tests.real.fabric.trial import POLICY, PROBE, SECRET, Trial, until_done

MSPS = ("CityMSP", "UtilityMSP", "AuditorMSP")
LONG_S = 60.0


def release(trial: Trial, version: str) -> Release:
    package = trial.net.package(PROBE, version, trial.endpoints["city"])
    collections = (Collection(SECRET, MSPS[:2]),)
    return Release(Definition(PROBE, version, Agreement(2, MSPS), collections), package.content, package.id)


@asynccontextmanager
async def deployment(
    trial: Trial, tell: Callable[[str], None], *, member: str = ""
) -> AsyncIterator[tuple[Deployment, Lifecycle]]:
    """As the city's administrator, or as another of its members."""
    city, node = trial.net.plan.organisation("city"), trial.net.plan.peer_of("city")
    folder = admin_msp(trial.net.plan, city)
    files = (next(folder.glob("signcerts/*")), next(folder.glob("keystore/*")))
    if member:
        issued = identity(trial.net.plan, city, member)
        files = (issued.certificate, issued.key)
    who, signer = read_identity(city.msp, *files)
    async with connect(node.address, tls=Tls(node_tls(trial.net.plan, node).roots.read_bytes())) as connection:
        lifecycle = Lifecycle(Gateway(connection, "city", who, signer))
        peer = Peer(node.name, Gateway(connection, "", who, signer))
        yield Deployment(lifecycle, [peer], tell, poll_s=0.2), lifecycle


def approved_elsewhere(trial: Trial, version: str, sequence: int, *organisations: str) -> None:
    """By the `peer` command, as other organisations would."""
    there, ready = trial.net.lifecycle, trial.net.release(POLICY, version, trial.endpoints)
    present = there.installed_packages()
    for name in organisations:
        there.install(name, ready.packages[name], present)
        there.approve(name, ready, sequence)


def served(trial: Trial, version: str, *organisations: str) -> None:
    for name in organisations:
        trial.serve(name, version, version)


async def test_it_waits_for_the_others_then_commits_and_a_second_run_does_nothing(trial: Trial) -> None:
    told: list[str] = []
    async with deployment(trial, told.append) as (found, lifecycle):
        before = (await lifecycle.in_force())[PROBE]
        with pytest.raises(Unapproved, match="approved by CityMSP, not by AuditorMSP, UtilityMSP"):
            await found.bring([release(trial, "2")], 0.5)
        assert (await lifecycle.in_force())[PROBE] == before
        await asyncio.to_thread(approved_elsewhere, trial, "2", before.sequence + 1, "utility")
        await asyncio.to_thread(served, trial, "2", "city", "utility")
        told.clear()
        await found.bring([release(trial, "2")], LONG_S)
        assert told == [f"probe 2 (sequence {before.sequence + 1}): committed, approved by CityMSP, UtilityMSP"]
        whole = await lifecycle.definition(PROBE)
        assert (whole.version, whole.sequence) == ("2", before.sequence + 1)
        assert dict(whole.approvals) == {"CityMSP": True, "UtilityMSP": True, "AuditorMSP": False}
        told.clear()
        await found.bring([release(trial, "2")], 0)
        assert told == [f"probe 2 (sequence {before.sequence + 1}): in force, nothing to do"]
    async with trial.caller() as city:
        await until_done(city, "put", [b"by", b"version 2"])
        assert await city.evaluate(PROBE, "version", [], organisations=["CityMSP"]) == b"2"


async def test_the_older_version_comes_back_by_the_next_sequence(trial: Trial) -> None:
    told: list[str] = []
    async with deployment(trial, told.append) as (found, lifecycle):
        before = (await lifecycle.in_force())[PROBE]
        (step,) = await found.look([release(trial, "1")])
        assert step.intended("CityMSP")[0] == f"probe 1 (sequence {before.sequence + 1}): would be approved for CityMSP"
        await asyncio.to_thread(approved_elsewhere, trial, "1", before.sequence + 1, "utility", "auditor")
        await asyncio.to_thread(served, trial, "1", "city", "utility", "auditor")
        await found.bring([release(trial, "1")], LONG_S)
        assert (await lifecycle.in_force())[PROBE].sequence == before.sequence + 1
        assert not step.install  # its package is still on the peer
    async with trial.caller() as city:
        await until_done(city, "put", [b"by", b"version 1"])


async def test_another_organisation_that_commits_something_else_first_is_told(trial: Trial) -> None:
    told: list[str] = []
    async with deployment(trial, told.append) as (found, lifecycle):
        sequence = (await lifecycle.in_force())[PROBE].sequence + 1
        running = asyncio.create_task(found.bring([release(trial, "ours")], LONG_S))
        async with asyncio.timeout(LONG_S):
            while not any(line.startswith("waiting") for line in told):
                await asyncio.sleep(0.1)
        await asyncio.to_thread(approved_elsewhere, trial, "theirs", sequence, "utility", "auditor")
        theirs = trial.net.release(POLICY, "theirs", trial.endpoints)
        await asyncio.to_thread(trial.net.lifecycle.commit, theirs, sequence)
        with pytest.raises(LifecycleError, match=f"committed theirs as sequence {sequence} meanwhile"):
            await running


async def test_whoever_is_no_administrator_installs_nothing(trial: Trial) -> None:
    async with deployment(trial, print, member="tester") as (found, _):
        with pytest.raises(PeerError) as refused:
            await found.look([release(trial, "3")])
    assert refused.value.refused
    assert refused.value.peer == "peer-city"
