"""A network with the probe deployed on it, for the tests beside this file: chaincode processes, gateways, transactions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from citykit.ledger.fabric.connection import Connection, Deadlines, Retry, Tls, connect
from citykit.ledger.fabric.errors import EndorseError, OutcomeUnknown, SubmitError
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.identity import Identity, read_signer
from citykit.ledger.fabric.transactions import Done, Prepared
from infra.fabric import CHANNEL, Endpoint, Network, Policy, Private, network
from infra.fabric.crypto import chaincode_tls, identity, node_tls
from infra.fabric.plan import new_peer
from infra.native import Program, listens

PROBE = "probe"
ALL = ("city", "utility", "auditor")
SECRET = "city-utility"
POLICY = Policy(PROBE, ALL, 2, (Private(SECRET, ("city", "utility")),))
PATIENCE_S = 90.0
DEADLINES = Deadlines(evaluate_s=20, endorse_s=30, submit_s=20, commit_s=10)


class Trial:
    """A network and its probes, one process an organisation."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.endpoints: dict[str, Endpoint] = {}

    @property
    def folder(self) -> Path:
        return self.net.plan.state

    def deploy(self, version: str, policy: Policy = POLICY, variants: dict[str, str] | None = None) -> int:
        """Runs the probe of this version everywhere, deploys it, and returns its sequence."""
        programs = [
            self._probe(name, version, (variants or {}).get(name, version), policy.contract)
            for name in policy.organisations
        ]
        self._start(programs)
        return self.net.deploy(policy, version, self.endpoints).sequence

    def serve(self, organisation: str, version: str, variant: str, contract: str = PROBE) -> None:
        """Starts (again) an organisation's probe; it keeps its address."""
        self._start([self._probe(organisation, version, variant, contract)])

    def _start(self, programs: list[Program]) -> None:
        for program in programs:
            self.net.running.stop(program.name)
            self.net.running.start(program)
        for program in programs:
            self.net.running.wait(program)

    def _probe(self, organisation: str, version: str, variant: str, contract: str) -> Program:
        endpoint = self.endpoints.setdefault(organisation, self._endpoint(organisation))
        server, _ = chaincode_tls(self.net.plan, self.net.plan.organisation(organisation))
        document = {
            "package_id": self.net.package(contract, version, endpoint).id,
            "address": endpoint.address,
            "variant": variant,
            "certificate": str(server.certificate),
            "key": str(server.key),
            "client_roots": str(server.roots),
        }
        config = self.folder / f"{probe_name(organisation)}.json"
        config.write_text(json.dumps(document))
        port = int(endpoint.address.rpartition(":")[2])
        argv = [sys.executable, "-m", "tests.real.fabric.probe", str(config)]
        return Program(probe_name(organisation), argv, lambda: listens(port), cwd=Path.cwd())

    def kill_probe(self, organisation: str) -> None:
        self.net.running.kill(probe_name(organisation))

    def stop(self) -> None:
        for name in self.net.running.names():
            if name.startswith("probe-"):
                self.net.running.stop(name)
        self.net.down()

    def connection(
        self, organisation: str = "city", deadlines: Deadlines = DEADLINES, retry: Retry | None = None
    ) -> Connection:
        """A connection to the organisation's gateway peer."""
        peer = self.net.plan.peer_of(organisation)
        tls = Tls(node_tls(self.net.plan, peer).roots.read_bytes())
        return connect(peer.address, tls=tls, deadlines=deadlines, retry=retry or Retry(tries=30))

    def gateway(
        self,
        connection: Connection,
        organisation: str = "city",
        name: str = "tester",
        *,
        channel: str = CHANNEL,
        valid: timedelta | None = None,
    ) -> Gateway:
        """A caller of the organisation on a connection."""
        files = identity(self.net.plan, self.net.plan.organisation(organisation), name, valid=valid)
        signer = read_signer(files.key.read_bytes())
        return Gateway(connection, channel, Identity(files.msp, files.certificate.read_bytes()), signer)

    @asynccontextmanager
    async def caller(self, organisation: str = "city", name: str = "tester") -> AsyncIterator[Gateway]:
        async with self.connection(organisation) as connection:
            yield self.gateway(connection, organisation, name)

    def _endpoint(self, organisation: str) -> Endpoint:
        return self.net.endpoint(organisation, new_peer("probe", organisation).port)


def probe_name(organisation: str) -> str:
    return f"probe-{organisation}"


def start_trial(state: Path, profile: str) -> Trial:
    """A fresh network of this profile with the probe's version 1 deployed."""
    trial = Trial(network(state, profile))
    try:
        trial.net.up()
        trial.deploy("1")
    except BaseException:
        trial.stop()
        raise
    return trial


async def until_done(gateway: Gateway, function: str, arguments: list[bytes], contract: str = PROBE) -> Done:
    """Does it once, however often the network is away in between: proposed anew until it is endorsed, then the same transaction
    is sent again until its commit is seen. An orderer that dies forgets what it had taken but not yet replicated.
    """
    end = asyncio.get_running_loop().time() + PATIENCE_S
    prepared: Prepared | None = None
    while True:
        try:
            prepared = prepared or await gateway.endorse(gateway.propose(contract, function, arguments))
            return await gateway.finish(prepared)
        except (EndorseError, SubmitError, OutcomeUnknown):
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.2)
