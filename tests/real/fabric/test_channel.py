"""Changes of a channel that runs: configuration, a further organisation, a snapshot, new certificates; on Raft and on BFT."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from citykit.errors import AlreadyExists, FailedPrecondition
from infra.fabric import Network, crypto, nodes
from infra.fabric.channel_update import batch_timeout, set_batch_timeout
from infra.fabric.joining import add_organisation
from infra.fabric.plan import Node, new_peer
from infra.fabric.rotation import certificates, rotate
from infra.fabric.snapshot import join_from_snapshot, take_snapshot
from tests.real.fabric.trial import Trial, until_done

PROFILES = ("raft3", "bft4")


async def test_the_batch_timeout_is_changed_once(trial: Trial) -> None:
    assert batch_timeout(trial.net) == "200ms"
    set_batch_timeout(trial.net, "150ms")
    async with trial.caller() as city:
        await until_done(city, "put", [b"after", b"the update"])
    assert batch_timeout(trial.net) == "150ms"
    with pytest.raises(FailedPrecondition, match="so already"):
        set_batch_timeout(trial.net, "150ms")


async def test_a_peer_gets_new_certificates_and_endorses_with_them(trial: Trial) -> None:
    node = trial.net.plan.node("peer-utility")
    before = certificates(trial.net.plan, node)
    rotate(trial.net, node.name)
    after = certificates(trial.net.plan, node)
    assert {before["sign"].serial_number, before["tls"].serial_number}.isdisjoint(
        {after["sign"].serial_number, after["tls"].serial_number}
    )
    async with trial.caller("utility") as utility:
        await until_done(utility, "put", [b"rotated", b"peer"])


async def test_an_orderer_gets_new_certificates_and_orders_with_them(trial: Trial) -> None:
    last = trial.net.plan.orderers[-1]
    before = certificates(trial.net.plan, last)
    rotate(trial.net, last.name)
    assert certificates(trial.net.plan, last)["tls"].serial_number != before["tls"].serial_number
    async with trial.caller() as city:
        done = await until_done(city, "put", [b"rotated", b"orderer"])
    await asyncio.to_thread(trial.net.wait_for_height, done.block + 1, [last.name])


async def test_a_peer_joins_from_a_snapshot(trial: Trial) -> None:
    async with trial.caller() as city:
        await until_done(city, "put", [b"in the", b"snapshot"])
    folder = take_snapshot(trial.net, trial.net.plan.node("peer-city"))
    further = _with_peer(trial.net, new_peer("peer-city-second", "city"))
    second = further.plan.node("peer-city-second")
    join_from_snapshot(further, second, folder)
    height = max(further.height(node) for node in further.plan.peers)
    further.wait_for_height(height, [second.name])
    trial.net.plan = further.plan


async def test_a_further_organisation_joins_and_reads(trial: Trial) -> None:
    async with trial.caller() as city:
        done = await until_done(city, "put", [b"before", b"it joined"])
    joined = add_organisation(trial.net, "county")
    trial.net.plan = joined.plan
    trial.net.wait_for_height(done.block + 2, ["peer-county"])
    with pytest.raises(AlreadyExists, match="county"):
        add_organisation(joined, "county")


def _with_peer(network: Network, peer: Node) -> Network:
    """The network with one more peer of an organisation that is there."""
    wider = replace(network.plan, nodes=(*network.plan.nodes, peer))
    crypto.generate_organisation(wider, network.binaries, wider.organisation(peer.organisation))
    wider.save()
    nodes.prepare(wider, network.binaries)
    found = Network(wider, network.binaries)
    found.running = network.running
    found.start(peer.name)
    return found
