"""`city ledger network up|deploy|upgrade|status|down`: a real Fabric network on this machine, from the programs in FABRIC_BIN.

And what is done to one that runs: `snapshot`, `rotate NODE`, `join ORGANISATION`, `batch-timeout TIME`. `services.commands.ledger` adds it.
Exit code 3 with one line where the programs are not there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault
from infra.fabric import PROFILES, Network, existing, network, stop_network
from infra.fabric.chaincodes import Chaincodes
from infra.fabric.channel_update import set_batch_timeout
from infra.fabric.connection import city_settings, write_profile
from infra.fabric.joining import add_organisation
from infra.fabric.lifecycle import Definition
from infra.fabric.rotation import certificates, rotate
from infra.fabric.snapshot import take_snapshot
from services.registry import SERVICES, contract_versions

SERVE = (sys.executable, "-m", "services", "serve", "chaincode")
_STATE = Path(".city/fabric")


def add(acts: Any) -> None:
    """The sub-commands of `city ledger network`."""
    parser = acts.add_parser("network", help="a real Fabric network from FABRIC_BIN: up, deploy, upgrade, status, down")
    steps = parser.add_subparsers(metavar="STEP", required=True)
    up = steps.add_parser("up", help="make it and start it")
    up.add_argument("--profile", choices=sorted(PROFILES), default="raft1", help="who orders blocks")
    up.set_defaults(run=_up)
    steps.add_parser("deploy", help="bring the contracts onto the channel and serve them").set_defaults(run=_deploy)
    steps.add_parser("upgrade", help="commit changed contracts by the next sequence").set_defaults(run=_upgrade)
    steps.add_parser("status", help="what runs, where, how far; which contracts").set_defaults(run=_status)
    _add_changes(steps)
    down = steps.add_parser("down", help="stop everything; the state stays")
    down.add_argument(
        "--delete", action="store_true", help="delete the state folder too, with every key and block in it"
    )
    down.set_defaults(run=_down)
    for one in steps.choices.values():
        one.add_argument("--state", type=Path, default=_STATE, help="the one folder of the network")
        one.add_argument("--json", action="store_true", help="one JSON document")


def _add_changes(steps: Any) -> None:
    """What is done to a network that runs."""
    snapshot = steps.add_parser("snapshot", help="let a peer write the channel's state, for another peer to begin with")
    snapshot.add_argument("--peer", default="peer-city", help="the peer that writes it")
    snapshot.set_defaults(run=_snapshot)
    rotating = steps.add_parser("rotate", help="give a node a new key and new certificates")
    rotating.add_argument("node", help="its name, as status shows it")
    rotating.set_defaults(run=_rotate)
    joining = steps.add_parser("join", help="add an organisation with one peer to the channel")
    joining.add_argument("organisation", help="its name: lower-case letters")
    joining.set_defaults(run=_join)
    timeout = steps.add_parser("batch-timeout", help="change how long a block waits for company")
    timeout.add_argument("time", help="such as 200ms or 1s")
    timeout.set_defaults(run=_batch_timeout)


def city_chaincodes(net: Network) -> Chaincodes:
    """The city's contracts on a network, served by `city serve chaincode`."""
    return Chaincodes(net, contract_versions(), SERVE)


def _up(arguments: argparse.Namespace) -> int:
    net = network(arguments.state, arguments.profile)
    net.up()
    chaincodes = city_chaincodes(net)
    if not chaincodes.changes():
        chaincodes.start()
    profile = write_profile(net, SERVICES)
    lines = [f"{node.name:<16} {node.address}" for node in net.plan.nodes]
    lines += [f"connection: {profile}", *(f"{name}={value}" for name, value in city_settings(net, SERVICES).items())]
    return _tell(arguments, {**net.status(), "connection": str(profile)}, lines)


def _deploy(arguments: argparse.Namespace) -> int:
    return _bring(arguments, Chaincodes.deploy)


def _upgrade(arguments: argparse.Namespace) -> int:
    return _bring(arguments, Chaincodes.upgrade)


def _bring(arguments: argparse.Namespace, act: Callable[[Chaincodes], Mapping[str, Definition]]) -> int:
    definitions = act(city_chaincodes(_running(arguments.state)))
    document = {name: {"version": one.version, "sequence": one.sequence} for name, one in definitions.items()}
    lines = [f"{name:<18} {one.version}  sequence {one.sequence}" for name, one in sorted(definitions.items())]
    return _tell(arguments, document, lines)


def _status(arguments: argparse.Namespace) -> int:
    """0: every node is healthy; 1: one is not."""
    net = existing(arguments.state)
    status = net.status()
    lines = [f"{one['name']:<16} {one['address']:<16} {_state(one)}" for one in status["nodes"]]
    lines += [f"{name:<18} {one['version']}  sequence {one['sequence']}" for name, one in status["chaincodes"].items()]
    _tell(arguments, status, lines)
    return 0 if all(one["healthy"] for one in status["nodes"]) else 1


def _snapshot(arguments: argparse.Namespace) -> int:
    net = _running(arguments.state)
    folder = take_snapshot(net, net.plan.node(arguments.peer))
    return _tell(arguments, {"snapshot": str(folder)}, [f"snapshot: {folder}"])


def _rotate(arguments: argparse.Namespace) -> int:
    net = _running(arguments.state)
    rotate(net, arguments.node)
    ends = certificates(net.plan, net.plan.node(arguments.node))["tls"].not_valid_after_utc
    return _tell(
        arguments,
        {"node": arguments.node, "until": ends.isoformat()},
        [f"{arguments.node}: new, until {ends:%Y-%m-%d}"],
    )


def _join(arguments: argparse.Namespace) -> int:
    joined = add_organisation(_running(arguments.state), arguments.organisation)
    peer = joined.plan.peer_of(arguments.organisation)
    lines = [f"{arguments.organisation} has joined with {peer.name} at {peer.address}"]
    return _tell(arguments, {"organisation": arguments.organisation, "peer": peer.address}, lines)


def _batch_timeout(arguments: argparse.Namespace) -> int:
    set_batch_timeout(_running(arguments.state), arguments.time)
    return _tell(arguments, {"batch_timeout": arguments.time}, [f"a block waits {arguments.time} for company"])


def _down(arguments: argparse.Namespace) -> int:
    """Stopping needs no programs of Fabric."""
    stopped = stop_network(arguments.state)
    if arguments.delete:
        shutil.rmtree(arguments.state)
    return _tell(arguments, {"stopped": stopped}, [f"stopped: {', '.join(stopped) or 'nothing ran'}"])


def _running(state: Path) -> Network:
    """The network, if all of it is up.

    Raises:
        EnvironmentFault: a node does not answer.
    """
    net = existing(state)
    away = [one["name"] for one in net.status()["nodes"] if not one["healthy"]]
    if away:
        raise EnvironmentFault(f"{', '.join(away)} does not answer: run `city ledger network up` first")
    return net


def _state(node: Mapping[str, Any]) -> str:
    return f"healthy, {node['height']} blocks" if node["healthy"] else "DOWN"


def _tell(arguments: argparse.Namespace, document: Mapping[str, Any], lines: list[str]) -> int:
    print(json.dumps(document, indent=2) if arguments.json else "\n".join(lines))
    return 0
