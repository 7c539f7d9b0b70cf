"""Chaincode lifecycle on the channel: install, approve by each organisation, commit; and again with the next sequence for an upgrade.

Called by `Network.deploy`. Every step asks first what is there, so that a broken deploy is simply run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import FailedPrecondition
from infra.fabric.binaries import Binaries, CommandFailed
from infra.fabric.crypto import node_tls
from infra.fabric.nodes import admin_environment, is_healthy
from infra.fabric.packages import Package
from infra.fabric.plan import Node, Plan
from infra.fabric.policies import Policy
from infra.fabric.profiles import CHANNEL, Organisation


@dataclass(frozen=True)
class Definition:
    """What is committed for a contract."""

    version: str
    sequence: int


@dataclass(frozen=True)
class Release:
    """A version of a contract: what each organisation installs, and the policy all approve."""

    policy: Policy
    version: str
    packages: Mapping[str, Package]


@dataclass(frozen=True)
class Step:
    """A release that all have approved.

    Attributes:
        done: it is in force already.
    """

    release: Release
    sequence: int
    done: bool = False


class Lifecycle:
    """The lifecycle commands on one network."""

    def __init__(self, plan: Plan, binaries: Binaries) -> None:
        self._plan = plan
        self._binaries = binaries

    def install(self, organisation: str, package: Package, present: Mapping[str, set[str]]) -> None:
        """Installs a package on every peer of the organisation that lacks it.

        Args:
            present: what `installed_packages` said.
        """
        path = package.write(self._plan.state / "packages" / organisation)
        for peer in self._plan.peers:
            if peer.organisation == organisation and package.id not in present[peer.name]:
                self._run(organisation, ["install", str(path)], peer)

    def installed_packages(self) -> dict[str, set[str]]:
        """Ids of the packages on each peer."""
        return {peer.name: self.installed(peer) for peer in self._plan.peers}

    def installed(self, peer: Node) -> set[str]:
        """Ids of the packages on a peer."""
        answer = json.loads(self._run(peer.organisation, ["queryinstalled", "-O", "json"], peer) or "{}")
        return {item["package_id"] for item in answer.get("installed_chaincodes", [])}

    def approve(self, organisation: str, release: Release, sequence: int) -> None:
        """Approves the definition for the organisation, with its own package."""
        package = release.packages[organisation]
        arguments = [*self._definition(release, sequence), "--package-id", package.id, *self._orderer()]
        try:
            self._run(organisation, ["approveformyorg", *arguments])
        except CommandFailed as error:
            if "unchanged content" not in error.output:
                raise

    def ready(self, release: Release, sequence: int) -> dict[str, bool]:
        """Which organisation (by MSP) has approved exactly this definition."""
        arguments = ["checkcommitreadiness", *self._definition(release, sequence), "-O", "json"]
        answer: dict[str, bool] = json.loads(self._run(self._first().name, arguments))["approvals"]
        return answer

    def commit(self, release: Release, sequence: int) -> None:
        """Commits the definition, endorsed by every organisation that approved it.

        Raises:
            FailedPrecondition: not a majority of organisations approved it.
        """
        approvals = self.ready(release, sequence)
        approved = [one for one in self._plan.organisations if approvals.get(one.msp)]
        if 2 * len(approved) <= len(self._plan.organisations):
            raise FailedPrecondition(
                f"{release.policy.contract} {release.version}: only {', '.join(one.name for one in approved) or 'none'}"
                " approved it; a majority of the organisations has to"
            )
        targets = [argument for one in approved for argument in self._peer(self._plan.peer_of(one.name))]
        arguments = ["commit", *self._definition(release, sequence), *targets, *self._orderer()]
        self._run(approved[0].name, arguments)

    def definitions(self) -> dict[str, Definition]:
        """What is in force on the channel, by contract, as a peer that answers knows it."""
        answer = json.loads(self._run(self._first().name, ["querycommitted", "-C", CHANNEL, "-O", "json"]))
        return {
            str(one["name"]): Definition(str(one["version"]), int(one["sequence"]))
            for one in answer.get("chaincode_definitions", [])
        }

    def committed(self, contract: str) -> Definition | None:
        """The definition of a contract in force, or None."""
        return self.definitions().get(contract)

    def prepare(self, release: Release, before: Definition | None, present: Mapping[str, set[str]]) -> Step:
        """Everything before the commit: every organisation installs and approves.

        Organisations that do not run the contract approve too, for the rules are everybody's. The same version again needs no
        commit; where an organisation's chaincode has moved, it approves its new package for the definition in force.

        Args:
            before: the contract's definition in force.
            present: what `installed_packages` said.
        """
        for organisation, package in release.packages.items():
            self.install(organisation, package, present)
        if before is not None and before.version == release.version:
            self._approve_moved(release, before.sequence)
            return Step(release, before.sequence, done=True)
        sequence = before.sequence + 1 if before else 1
        for one in self._plan.organisations:
            self._approve_as_able(one, release, sequence)
        return Step(release, sequence)

    def finish(self, step: Step) -> Definition:
        """Commits what was prepared, unless it is in force already."""
        if not step.done:
            self.commit(step.release, step.sequence)
        return Definition(step.release.version, step.sequence)

    def approved_package(self, organisation: str, contract: str, sequence: int) -> str:
        """Id of the package the organisation approved for this definition; empty where there is none."""
        asked = ["queryapproved", "-C", CHANNEL, "-n", contract, "--sequence", str(sequence), "-O", "json"]
        found = json.loads(self._run(organisation, asked))
        return str(found["source"]["Type"].get("LocalPackage", {}).get("package_id", ""))

    def _approve_moved(self, release: Release, sequence: int) -> None:
        for organisation, package in release.packages.items():
            if self.approved_package(organisation, release.policy.contract, sequence) != package.id:
                self.approve(organisation, release, sequence)

    def _approve_as_able(self, organisation: Organisation, release: Release, sequence: int) -> None:
        if organisation.name in release.packages:
            self.approve(organisation.name, release, sequence)
            return
        self._run(organisation.name, ["approveformyorg", *self._definition(release, sequence), *self._orderer()])

    def _definition(self, release: Release, sequence: int) -> list[str]:
        policy = release.policy
        arguments = ["-C", CHANNEL, "-n", policy.contract, "-v", release.version, "--sequence", str(sequence)]
        arguments += ["--signature-policy", policy.signature_policy]
        if policy.private:
            arguments += ["--collections-config", str(self._collections(policy))]
        return arguments

    def _collections(self, policy: Policy) -> Path:
        path = self._plan.state / "packages" / f"{policy.contract}.collections.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(policy.collections(), indent=2))
        return path

    def _orderer(self) -> list[str]:
        node = next((one for one in self._plan.orderers if is_healthy(one)), self._plan.orderers[0])
        return ["-o", node.address, "--tls", "--cafile", str(node_tls(self._plan, node).roots)]

    def _peer(self, node: Node) -> list[str]:
        return ["--peerAddresses", node.address, "--tlsRootCertFiles", str(node_tls(self._plan, node).roots)]

    def _first(self) -> Organisation:
        """An organisation whose peer answers; the first where none does."""
        healthy = (one for one in self._plan.organisations if is_healthy(self._plan.peer_of(one.name)))
        return next(healthy, self._plan.organisations[0])

    def _run(self, organisation: str, arguments: list[str], peer: Node | None = None) -> str:
        env = admin_environment(self._plan, self._plan.organisation(organisation), peer)
        return self._binaries.call("peer", ["lifecycle", "chaincode", *arguments], env=env)
