"""The contract Counter on a real Fabric network, for the tests beside this file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from citykit.settings import FabricSettings
from infra.fabric import Endpoint, Network, Policy, network
from infra.fabric.crypto import chaincode_tls, identity, node_tls
from infra.fabric.plan import new_peer
from infra.native import Program, listens
from tests.real.ledger.trial import SUBMITTERS

ORGANISATIONS = ("city", "utility", "auditor")
POLICY = Policy("counter", ORGANISATIONS, 2)
_CHAINCODE = "counting"


class CounterNetwork:
    """A running network; `stop` ends everything of it."""

    def __init__(self, state: Path, profile: str) -> None:
        self.net: Network = network(state, profile)
        self.state = state

    def start(self) -> None:
        self.net.up()
        endpoints = {name: self.net.endpoint(name, new_peer("counting", name).port) for name in ORGANISATIONS}
        self._serve(endpoints)
        self.net.deploy(POLICY, "1", endpoints)

    def stop(self) -> None:
        self.net.running.stop(_CHAINCODE)
        self.net.down()

    def settings(self) -> FabricSettings:
        """What a service of the city would be told."""
        city = self.net.plan.organisation("city")
        members = self.state / "members"
        members.mkdir(exist_ok=True)
        for name in SUBMITTERS:
            files = identity(self.net.plan, city, name)
            shutil.copy(files.certificate, members / f"{name}.pem")
            shutil.copy(files.key, members / f"{name}.key")
        peer = self.net.plan.peer_of("city")
        roots = str(node_tls(self.net.plan, peer).roots)
        return FabricSettings(
            peer=peer.address,
            msp=city.msp,
            members=str(members),
            tls_ca=roots,
            endorsements=2,
            endorse_s=30,
            commit_s=60,
        )

    def _serve(self, endpoints: dict[str, Endpoint]) -> None:
        places = []
        for name, endpoint in endpoints.items():
            server, _ = chaincode_tls(self.net.plan, self.net.plan.organisation(name))
            places.append(
                {
                    "package_id": self.net.package("counter", "1", endpoint).id,
                    "address": endpoint.address,
                    "certificate": str(server.certificate),
                    "key": str(server.key),
                    "client_roots": str(server.roots),
                }
            )
        config = self.state / "counting.json"
        config.write_text(json.dumps(places))
        ports = [int(place["address"].rpartition(":")[2]) for place in places]
        argv = [sys.executable, "-m", "tests.real.ledger.counting", str(config)]
        program = Program(_CHAINCODE, argv, lambda: all(listens(port) for port in ports), cwd=Path.cwd())
        self.net.running.start(program)
        self.net.running.wait(program)
