"""A further organisation joins a network that runs: keys, a channel update signed by those who are there, a peer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from citykit.errors import AlreadyExists
from infra.fabric import crypto, nodes
from infra.fabric.channel_update import update_channel
from infra.fabric.genesis import organisation_group
from infra.fabric.network import Network
from infra.fabric.plan import new_peer
from infra.fabric.profiles import organisation_named


def add_organisation(network: Network, name: str) -> Network:
    """Adds an organisation with one peer to the channel and returns the network with it.

    Raises:
        AlreadyExists: it is a member.
        CommandFailed: the orderers refuse the update.
    """
    organisation = organisation_named(name)
    if organisation in network.plan.organisations:
        raise AlreadyExists(f"{name} is a member of the channel already")
    peer = new_peer(f"peer-{name}", name)
    wider = replace(
        network.plan,
        nodes=(*network.plan.nodes, peer),
        organisations=(*network.plan.organisations, organisation),
    )
    crypto.generate_organisation(wider, network.binaries, organisation)
    group = organisation_group(wider, network.binaries, organisation)

    def edit(config: Any) -> None:
        config.channel_group.groups["Application"].groups[organisation.msp].CopyFrom(group)

    update_channel(network, edit)
    wider.save()
    nodes.prepare(wider, network.binaries)
    joined = Network(wider, network.binaries)
    joined.running = network.running
    joined.start(peer.name)
    joined.join_peer(peer)
    return joined
