"""Ledger snapshots: a peer writes the channel's state at a height, and another peer joins from it without the blocks before."""

from __future__ import annotations

from pathlib import Path

from infra.fabric.crypto import node_tls
from infra.fabric.network import Network, wait_until
from infra.fabric.nodes import data_folder
from infra.fabric.plan import Node
from infra.fabric.profiles import CHANNEL

_SIGNED = "_snapshot_signable_metadata.json"


def take_snapshot(network: Network, node: Node) -> Path:
    """Lets a peer write a snapshot of the channel as it is now, and returns its folder.

    Raises:
        EnvironmentFault: it was not written within a minute.
    """
    last = network.height(node) - 1
    at = ["--peerAddress", node.address, "--tlsRootCertFile", str(node_tls(network.plan, node).roots)]
    network.peer(node, "snapshot", "submitrequest", "-c", CHANNEL, "-b", "0", *at)
    folder = data_folder(network.plan, node) / "snapshots" / "completed" / CHANNEL
    wait_until(lambda: bool(_written(folder, last)), f"the snapshot of {node.name}")
    return _written(folder, last)[-1]


def join_from_snapshot(network: Network, node: Node, folder: Path) -> None:
    """Lets a peer that runs and has not joined start from a snapshot; returns once it has the snapshot's height."""
    network.peer(node, "channel", "joinbysnapshot", "--snapshotpath", str(folder))
    height = int(folder.name) + 1
    wait_until(lambda: network.height(node) >= height, f"{node.name} to take over the snapshot")


def _written(folder: Path, last: int) -> list[Path]:
    """Complete snapshots of block `last` or later, oldest first."""
    found = [one for one in folder.glob("*") if int(one.name) >= last and (one / _SIGNED).exists()]
    return sorted(found, key=lambda one: int(one.name))
