"""How services find the network: the settings of a process, and `profile.json` for people and other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.fabric.crypto import identity, members_folder, node_tls
from infra.fabric.network import Network
from infra.fabric.policies import read_policies
from infra.fabric.profiles import CHANNEL, ORGANISATIONS

KIND = "fabric"


def city_settings(network: Network, services: Sequence[str], organisation: str = "city") -> dict[str, str]:
    """The `CITY_FABRIC_*` variables of a service that submits for the organisation; `{service}` stands for its name.

    Issues the certificates of the services that have none.
    """
    plan = network.plan
    owner, peer = plan.organisation(organisation), plan.peer_of(organisation)
    for name in services:
        identity(plan, owner, name)
    needed = min(policy.needed for policy in read_policies().values())
    return {
        "CITY_FABRIC_PEER": peer.address,
        "CITY_FABRIC_CHANNEL": CHANNEL,
        "CITY_FABRIC_MSP": owner.msp,
        "CITY_FABRIC_MEMBERS": str(members_folder(plan, owner) / "{service}"),
        "CITY_FABRIC_TLS_CA": str(node_tls(plan, peer).roots),
        "CITY_FABRIC_ENDORSEMENTS": str(needed),
    }


def write_profile(network: Network, services: Sequence[str]) -> Path:
    """Writes `<state>/profile.json`: gateways, organisations, identities; every path is absolute."""
    plan = network.plan
    document = {
        "kind": KIND,
        "profile": plan.profile.name,
        "channel": CHANNEL,
        "gateway": _gateway(network, ORGANISATIONS[0].name),
        "organisations": {one.msp: _organisation(network, one.name, services) for one in plan.organisations},
        "orderers": [node.address for node in plan.orderers],
    }
    path = plan.state / "profile.json"
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=2) + "\n")
    return unfinished.replace(path)


def _gateway(network: Network, organisation: str) -> dict[str, Any]:
    peer = network.plan.peer_of(organisation)
    return {
        "address": peer.address,
        "server_name": "127.0.0.1",
        "tls_ca": str(node_tls(network.plan, peer).roots),
        "mutual_tls": False,
        "msp_id": network.plan.organisation(organisation).msp,
    }


def _organisation(network: Network, name: str, services: Sequence[str]) -> dict[str, Any]:
    """The services are the city's; other organisations have their own callers."""
    owner = network.plan.organisation(name)
    callers = services if name == ORGANISATIONS[0].name else ()
    found = {caller: identity(network.plan, owner, caller) for caller in callers}
    identities = {
        caller: {"certificate": str(files.certificate), "key": str(files.key)} for caller, files in found.items()
    }
    return {
        "gateway": _gateway(network, name),
        "members": str(members_folder(network.plan, owner)),
        "identities": identities,
    }
