"""A real Fabric network, native, from the programs in FABRIC_BIN: `network(state, profile) -> Network`. See README.md beside this file."""

from infra.fabric.binaries import FABRIC_BIN, Binaries, CommandFailed, find, not_run
from infra.fabric.network import Network, existing, network, stop_network, wait_until
from infra.fabric.packages import Endpoint, Package
from infra.fabric.plan import Node, Plan
from infra.fabric.policies import Policy, Private, read_policies
from infra.fabric.profiles import CHANNEL, ORGANISATIONS, PROFILES

__all__ = [
    "CHANNEL",
    "FABRIC_BIN",
    "ORGANISATIONS",
    "PROFILES",
    "Binaries",
    "CommandFailed",
    "Endpoint",
    "Network",
    "Node",
    "Package",
    "Plan",
    "Policy",
    "Private",
    "existing",
    "find",
    "network",
    "not_run",
    "read_policies",
    "stop_network",
    "wait_until",
]
