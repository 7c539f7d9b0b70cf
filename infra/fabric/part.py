"""A Fabric network as a part of `make up`: programs in stages for a supervisor, and what is done between them. Called by `infra.parts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.fabric import nodes
from infra.fabric.chaincodes import Chaincodes
from infra.fabric.connection import city_settings, write_profile
from infra.fabric.lifecycle import Step
from infra.fabric.network import Network, network
from infra.native import Program


@dataclass
class FabricPart:
    """The network of one state folder.

    Args:
        chaincodes: the contracts it is to run; another version than the channel's is upgraded.
        services: those that submit, by the names of their certificates.
        watched: environment of the city's chaincode process.
    """

    net: Network
    chaincodes: Chaincodes
    services: Sequence[str]
    watched: Mapping[str, str] = field(default_factory=dict)
    _steps: list[Step] = field(default_factory=list)

    @property
    def stages(self) -> list[Callable[[], Sequence[Program]]]:
        """Each is called when the programs of the one before are ready."""
        return [self._orderers, self._peers, self._chaincodes]

    @property
    def settings(self) -> dict[str, str]:
        """`CITY_FABRIC_*` of the services."""
        return city_settings(self.net, self.services)

    @property
    def where(self) -> str:
        """One line for people."""
        plan = self.net.plan
        peers = ", ".join(f"{node.organisation} {node.address}" for node in plan.peers)
        return f"ledger: Fabric, {plan.profile.name}, {len(plan.orderers)} orderers, peers {peers}"

    def finish(self) -> None:
        """Commits the contracts that all have approved."""
        self.net.commit(self._steps)
        write_profile(self.net, self.services)

    def _orderers(self) -> list[Program]:
        return self._programs(orderers=True)

    def _peers(self) -> list[Program]:
        self.net.join_orderers()
        return self._programs(orderers=False)

    def _chaincodes(self) -> list[Program]:
        self.net.join_peers()
        self._steps = self.net.approve(self.chaincodes.write_places())
        return [
            replace(program, env=self.watched) if program.name.endswith("-city") else program
            for program in self.chaincodes.programs()
        ]

    def _programs(self, *, orderers: bool) -> list[Program]:
        plan = self.net.plan
        chosen = plan.orderers if orderers else plan.peers
        return [nodes.program(plan, node) for node in chosen]


def fabric_part(
    state: Path,
    profile: str,
    versions: Mapping[str, str],
    serve: Sequence[str],
    services: Sequence[str],
    watched: Mapping[str, str] | None = None,
) -> FabricPart:
    """The network in a state folder, made if it is new, not started.

    Raises:
        EnvironmentFault: FABRIC_BIN names no folder with the programs.
        FailedPrecondition: the folder holds a network of another profile.
    """
    net = network(state, profile)
    net.make()
    return FabricPart(net, Chaincodes(net, versions, serve), services, watched or {})
