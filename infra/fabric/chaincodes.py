"""The chaincode services of a network: one process an organisation, which serves the contracts that organisation runs.

Where each is served stands in `<state>/places/<organisation>.json` (`citykit.ledger.chaincode.read_places`); an address, once given,
stays, so that peers find a chaincode again after any restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from citykit.errors import FailedPrecondition, NotFound
from infra.fabric.crypto import chaincode_tls
from infra.fabric.lifecycle import Definition, Release
from infra.fabric.network import Network
from infra.fabric.packages import Endpoint
from infra.fabric.plan import free_ports
from infra.fabric.policies import Policy, policies_of, read_policies
from infra.native import Program, listens

_PREFIX = "chaincode-"


class Chaincodes:
    """The contracts on one network.

    Args:
        versions: each contract's version, by its name. On the channel its policy's digest is added, so that another policy is an
            upgrade too.
        serve: the command that serves them; `--places FILE` is added.
    """

    def __init__(
        self,
        network: Network,
        versions: Mapping[str, str],
        serve: Sequence[str],
        policies: Mapping[str, Policy] | None = None,
    ) -> None:
        self._network = network
        self._serve = serve
        self._policies = policies_of(versions, read_policies() if policies is None else policies)
        self._versions = {one.contract: one.version(versions[one.contract]) for one in self._policies}

    def deploy(self) -> dict[str, Definition]:
        """Brings the contracts onto the channel, and serves them.

        Raises:
            FailedPrecondition: one is there in another version; `upgrade` is for that.
        """
        changed = [name for name, now in self.changes().items() if now is not None]
        if changed:
            raise FailedPrecondition(
                f"the channel has another version of {', '.join(changed)}: run `city ledger network upgrade`"
            )
        return self._bring()

    def upgrade(self) -> dict[str, Definition]:
        """Commits the next sequence of every contract whose version differs from the channel's, and serves it.

        Raises:
            NotFound: a contract was not deployed yet.
        """
        new = [name for name, now in self.changes().items() if now is None]
        if new:
            raise NotFound(f"{', '.join(new)} is not on the channel yet: run `city ledger network deploy`")
        return self._bring()

    def changes(self) -> dict[str, Definition | None]:
        """The contracts whose version is not the channel's, with what the channel has (None: nothing)."""
        known = self._network.lifecycle.definitions()
        found = {policy.contract: known.get(policy.contract) for policy in self._policies}
        return {name: one for name, one in found.items() if one is None or one.version != self._versions[name]}

    def write_places(self) -> list[Release]:
        """Writes where each organisation serves what, and returns the releases that say so."""
        endpoints = {name: self._places(name) for name in self.organisations()}
        return [
            self._network.release(policy, self._versions[policy.contract], {
                name: endpoints[name][policy.contract] for name in policy.organisations
            })
            for policy in self._policies
        ]  # fmt: skip

    def programs(self) -> list[Program]:
        """The chaincode processes; their places are written before they start."""
        return [self._program(name) for name in self.organisations()]

    def start(self) -> None:
        """Starts the chaincode processes (again), each with its places as they are now."""
        running, programs = self._network.running, self.programs()
        for program in programs:
            running.stop(program.name)
            running.start(program)
        for program in programs:
            running.wait(program)

    def organisations(self) -> list[str]:
        """Those that run a contract."""
        return sorted({name for policy in self._policies for name in policy.organisations})

    def _bring(self) -> dict[str, Definition]:
        return self._network.deploy_many(self.write_places(), self.start)

    def _places(self, organisation: str) -> dict[str, Endpoint]:
        """Writes the places of one organisation; keeps the addresses that are given."""
        path = places_file(self._network, organisation)
        before = _read(path)
        names = [policy.contract for policy in self._policies if organisation in policy.organisations]
        fresh = iter(free_ports(len(names)))
        found: dict[str, Endpoint] = {}
        for name in names:
            kept = before.get(name, {}).get("address")
            port = int(kept.rpartition(":")[2]) if kept else next(fresh)
            found[name] = self._network.endpoint(organisation, port)
        self._write(path, organisation, found)
        return found

    def _write(self, path: Path, organisation: str, endpoints: Mapping[str, Endpoint]) -> None:
        server, _ = chaincode_tls(self._network.plan, self._network.plan.organisation(organisation))
        files = {"certificate": str(server.certificate), "key": str(server.key), "client_ca": str(server.roots)}
        places = {
            name: {
                "chaincode_id": self._network.package(name, self._versions[name], endpoint).id,
                "address": endpoint.address,
                **files,
            }
            for name, endpoint in endpoints.items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps({"chaincodes": places}, indent=2) + "\n")
        unfinished.replace(path)

    def _program(self, organisation: str) -> Program:
        path = places_file(self._network, organisation)
        ports = [int(one["address"].rpartition(":")[2]) for one in _read(path).values()]
        argv = [*self._serve, "--places", str(path)]
        return Program(f"{_PREFIX}{organisation}", argv, lambda: bool(ports) and all(map(listens, ports)))


def places_file(network: Network, organisation: str) -> Path:
    return network.plan.state / "places" / f"{organisation}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())["chaincodes"]
    except FileNotFoundError:
        return {}
    return found
