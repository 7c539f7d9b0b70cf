"""A Fabric network on loopback: made, started, joined, deployed to, broken and mended. `city ledger network` and tests/real/fabric drive it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault, FailedPrecondition
from infra.fabric import crypto, genesis, nodes
from infra.fabric.binaries import Binaries, CommandFailed, find
from infra.fabric.lifecycle import Definition, Lifecycle, Release, Step
from infra.fabric.packages import Endpoint, contract_package
from infra.fabric.plan import Node, Plan, has_plan, load_plan, new_plan
from infra.fabric.policies import Policy
from infra.fabric.profiles import CHANNEL, profile_named
from infra.fabric.running import Running

_READY_S = 60.0
_POLL_S = 0.1
_PARALLEL = 4


class Network:
    """The network of one state folder."""

    def __init__(self, plan: Plan, binaries: Binaries) -> None:
        self.plan = plan
        self.binaries = binaries
        self.running = Running(plan.state)
        self.lifecycle = Lifecycle(plan, binaries)

    def make(self) -> None:
        """Makes keys, first block and configuration, where they are not there. Starts nothing."""
        self.plan.save()
        crypto.generate(self.plan, self.binaries)
        genesis.make_genesis(self.plan, self.binaries)
        nodes.prepare(self.plan, self.binaries)

    def up(self) -> None:
        """Makes what is not there, starts what does not run, and returns once every peer sees the channel.

        Raises:
            EnvironmentFault: a program ended or was not ready in time; with the end of its log.
        """
        self.make()
        self.start(*(node.name for node in self.plan.orderers))
        self.join_orderers()
        self.start(*(node.name for node in self.plan.peers))
        self.join_peers()

    def join_orderers(self) -> None:
        """Lets the orderers, which run, order the channel."""
        for node in self.plan.orderers:
            self._join_orderer(node)

    def join_peers(self) -> None:
        """Lets the peers, which run, join the channel; returns once each has its first block."""
        for node in self.plan.peers:
            self.join_peer(node)
        self.wait_for_channel()

    def down(self) -> None:
        """Stops everything that runs: chaincodes, peers, orderers. The state stays."""
        nodes_ = [node.name for node in (*self.plan.peers, *self.plan.orderers)]
        others = [name for name in self.running.known() if name not in nodes_]
        for names in (others, nodes_):
            with ThreadPoolExecutor(len(names) or 1) as threads:
                list(threads.map(self.running.stop, names))

    def start(self, *names: str) -> None:
        """Starts nodes and waits until they are healthy."""
        programs = [nodes.program(self.plan, self.plan.node(name)) for name in names]
        for program in programs:
            self.running.start(program)
        for program in programs:
            self.running.wait(program)

    def stop(self, name: str) -> None:
        """Stops a node with SIGTERM."""
        self.running.stop(self.plan.node(name).name)

    def kill(self, name: str) -> None:
        """Ends a node with SIGKILL."""
        self.running.kill(self.plan.node(name).name)

    def restart(self, name: str) -> None:
        """Starts a node that was stopped or killed, or stops and starts it."""
        self.stop(name)
        self.start(name)

    def status(self) -> dict[str, Any]:
        """What runs, where, and how far each peer is; one JSON document."""
        return {
            "profile": self.plan.profile.name,
            "channel": CHANNEL,
            "nodes": [self._node_status(node) for node in self.plan.nodes],
            "chaincodes": self._committed() if any(self._is_up(node) for node in self.plan.peers) else {},
        }

    def height(self, node: Node) -> int:
        """Blocks of the channel on this peer, or on this orderer.

        Raises:
            CommandFailed: it does not answer or has not joined.
        """
        if node.is_peer:
            said = self.peer(node, "channel", "getinfo", "-c", CHANNEL)
            return int(json.loads(said.partition("{")[1] + said.partition("{")[2])["height"])
        said = self._osnadmin(node, ["list", "-c", CHANNEL])
        return int(json.loads(said)["height"])

    def orders(self, node: Node) -> bool:
        """Whether an orderer takes part in ordering the channel."""
        listed = json.loads(self._osnadmin(node, ["list", "-c", CHANNEL]))
        return (listed["consensusRelation"], listed["status"]) == ("consenter", "active")

    def wait_for_channel(self) -> None:
        """Returns once every running peer has a block of the channel."""
        peers = [node for node in self.plan.peers if self._is_up(node)]
        wait_until(
            lambda: all(self.height(node) >= 1 for node in peers), "every peer to have the channel's first block"
        )

    def wait_for_height(self, height: int, names: Iterable[str] = ()) -> None:
        """Returns once these peers (all, where none is named) have that many blocks."""
        peers = [self.plan.node(name) for name in names] or list(self.plan.peers)
        wait_until(lambda: all(self.height(node) >= height for node in peers), f"the peers to reach height {height}")

    def deploy(self, policy: Policy, version: str, endpoints: Mapping[str, Endpoint]) -> Definition:
        """`deploy_many` for one contract."""
        return self.deploy_many([self.release(policy, version, endpoints)])[policy.contract]

    def deploy_many(
        self, releases: Sequence[Release], serve: Callable[[], None] = lambda: None
    ) -> dict[str, Definition]:
        """Installs, approves and commits contracts, a few at a time. The same version again commits nothing; another is the next sequence.

        Args:
            serve: called when all have approved and nothing is committed yet: the moment to let the chaincodes run under their new
                packages. Calls to a contract that changes fail until its commit, about a second later; nothing is lost by it.

        Returns:
            the definitions in force, by contract.
        """
        steps = self.approve(releases)
        serve()
        return self.commit(steps)

    def approve(self, releases: Sequence[Release]) -> list[Step]:
        """The first half of `deploy_many`: install and approve."""
        known, present = self.lifecycle.definitions(), self.lifecycle.installed_packages()

        def prepared(release: Release) -> Step:
            return self.lifecycle.prepare(release, known.get(release.policy.contract), present)

        with ThreadPoolExecutor(_PARALLEL) as threads:
            return list(threads.map(prepared, releases))

    def commit(self, steps: Sequence[Step]) -> dict[str, Definition]:
        """The second half of `deploy_many`."""
        with ThreadPoolExecutor(_PARALLEL) as threads:
            definitions = list(threads.map(self.lifecycle.finish, steps))
        return {step.release.policy.contract: one for step, one in zip(steps, definitions, strict=True)}

    def release(self, policy: Policy, version: str, endpoints: Mapping[str, Endpoint]) -> Release:
        """A version of a contract whose chaincode runs at `endpoints`, one an organisation.

        Args:
            version: of the code; behind a `+` what else makes another definition, and no other package.

        Raises:
            FailedPrecondition: an organisation of the policy has no endpoint.
        """
        lacking = sorted(set(policy.organisations) - set(endpoints))
        if lacking:
            raise FailedPrecondition(f"{policy.contract}: no chaincode address for {', '.join(lacking)}")
        packages = {name: self.package(policy.contract, version, endpoints[name]) for name in policy.organisations}
        return Release(policy, version, packages)

    def endpoint(self, organisation: str, port: int) -> Endpoint:
        """An organisation's chaincode on this port of loopback, reached with mutual TLS (`crypto.chaincode_tls`)."""
        server, caller = crypto.chaincode_tls(self.plan, self.plan.organisation(organisation))
        pem = [path.read_text() for path in (server.roots, caller.certificate, caller.key)]
        return Endpoint(f"127.0.0.1:{port}", *pem)

    package = staticmethod(contract_package)

    def wait_for_endorsers(self, contract: str, arguments: list[str]) -> None:
        """Returns once every organisation's peer answers a query of this contract, so that all of them can endorse."""

        def all_answer() -> bool:
            for one in self.plan.organisations:
                self.query(contract, arguments, one.name)
            return True

        wait_until(all_answer, f"every peer to run {contract}")

    def peer(self, node: Node, *arguments: str) -> str:
        """Runs the `peer` command as the administrator of the peer's organisation."""
        organisation = self.plan.organisation(node.organisation)
        return self.binaries.call("peer", arguments, env=nodes.admin_environment(self.plan, organisation, node))

    def invoke(self, contract: str, arguments: list[str], peers: Iterable[str]) -> str:
        """A transaction by the `peer` command, endorsed by the peers of these organisations, committed. For checks by hand."""
        chosen = [self.plan.peer_of(name) for name in peers]
        targets = [word for node in chosen for word in self._target(node)]
        orderer = next(node for node in self.plan.orderers if self._is_up(node))
        tls = ["-o", orderer.address, "--tls", "--cafile", str(crypto.node_tls(self.plan, orderer).roots)]
        call = ["-C", CHANNEL, "-n", contract, "-c", json.dumps({"Args": arguments}), "--waitForEvent"]
        return self.peer(chosen[0], "chaincode", "invoke", *tls, *call, *targets)

    def query(self, contract: str, arguments: list[str], organisation: str = "city") -> str:
        """A query by the `peer` command on an organisation's peer."""
        call = ["-C", CHANNEL, "-n", contract, "-c", json.dumps({"Args": arguments})]
        return self.peer(self.plan.peer_of(organisation), "chaincode", "query", *call).strip()

    def _target(self, node: Node) -> list[str]:
        return ["--peerAddresses", node.address, "--tlsRootCertFiles", str(crypto.node_tls(self.plan, node).roots)]

    def _join_orderer(self, node: Node) -> None:
        listed = json.loads(self._osnadmin(node, ["list"]))
        if CHANNEL not in {channel["name"] for channel in listed["channels"] or []}:
            self._osnadmin(node, ["join", "-c", CHANNEL, "-b", str(self.plan.genesis())])

    def join_peer(self, node: Node) -> None:
        """Lets a peer join the channel; nothing happens where it has."""
        if CHANNEL not in self.peer(node, "channel", "list").split():
            self.peer(node, "channel", "join", "-b", str(self.plan.genesis()))

    def _osnadmin(self, node: Node, arguments: list[str]) -> str:
        shown = crypto.admin_tls(self.plan, self.plan.organisation(node.organisation))
        address = f"127.0.0.1:{node.admin_port}"
        tls = ["--ca-file", str(shown.roots), "--client-cert", str(shown.certificate), "--client-key", str(shown.key)]
        return self.binaries.call("osnadmin", ["channel", *arguments, "--no-status", "-o", address, *tls])

    def _is_up(self, node: Node) -> bool:
        return nodes.is_healthy(node)

    def _node_status(self, node: Node) -> dict[str, Any]:
        up = self._is_up(node)
        return {
            "name": node.name,
            "organisation": node.organisation,
            "address": node.address,
            "operations": f"127.0.0.1:{node.operations_port}",
            "pid": self.running.pid(node.name),
            "healthy": up,
            "height": self.height(node) if up else None,
        }

    def _committed(self) -> dict[str, Any]:
        found = self.lifecycle.definitions()
        return {name: {"version": one.version, "sequence": one.sequence} for name, one in sorted(found.items())}


def network(state: Path, profile: str, folder: str | Path | None = None) -> Network:
    """The network of a state folder, planned if it is new; `up` starts it.

    Args:
        profile: raft1, raft3 or bft4.
        folder: the programs of Fabric; FABRIC_BIN where not given.

    Raises:
        EnvironmentFault: the programs are not there.
        FailedPrecondition: the folder holds a network of another profile.
    """
    binaries = find(folder)
    wanted = profile_named(profile)
    plan = load_plan(state) if has_plan(state) else new_plan(state, wanted)
    if plan.profile != wanted:
        raise FailedPrecondition(
            f"{state} holds a network of profile {plan.profile.name}; delete the folder, or use another"
        )
    return Network(plan, binaries)


def existing(state: Path, folder: str | Path | None = None) -> Network:
    """The network that was made before in a state folder.

    Raises:
        EnvironmentFault: the programs are not there.
        NotFound: no network in this folder.
    """
    return Network(load_plan(state), find(folder))


def stop_network(state: Path) -> list[str]:
    """Stops what runs of the network in a state folder and says what it was; needs no programs of Fabric.

    Raises:
        NotFound: no network in this folder.
    """
    net = Network(load_plan(state), Binaries(state))
    names = net.running.names()
    net.down()
    return names


def wait_until(true: Callable[[], bool], what: str, within_s: float = _READY_S) -> None:
    """Polls a condition; a node that does not answer yet counts as not true.

    Raises:
        EnvironmentFault: not true in time.
    """
    end = time.monotonic() + within_s
    last = ""
    while time.monotonic() < end:
        try:
            if true():
                return
        except (CommandFailed, OSError) as error:
            last = f"; last: {error}"
        time.sleep(_POLL_S)
    raise EnvironmentFault(f"waited {within_s:.0f} s for {what} in vain{last}")
