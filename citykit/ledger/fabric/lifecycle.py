"""The lifecycle of chaincodes, spoken by ourselves: install on peers, approve for our organisation, commit once enough others have approved.

For whoever deploys a chaincode and has no `peer` command at hand. Everything is asked first, so a broken run is simply run again. What touches a
peer alone (packages) goes to that peer's Endorser with an empty channel; what touches the channel goes through the gateway.
Sources: peer/lifecycle/lifecycle.proto, https://hyperledger-fabric.readthedocs.io/en/release-2.5/chaincode_lifecycle.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from fabric_protos.peer import peer_pb2_grpc, proposal_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric.definitions import Definition
from citykit.ledger.fabric.errors import EndorseError, EvaluateError, FabricError, FormError, GatewayError
from citykit.ledger.fabric.gateway import Gateway

CHAINCODE = "_lifecycle"
_INSTALL_S = 120.0
"""A peer builds what it installs before it answers."""
_OK = 200
_UNCHANGED = "attempted to redefine"
_OTHERWISE = "with different parameters"
_ABSENT = "could not fetch approved chaincode definition"
_REFUSALS = ("access denied", "Failed to authorize invocation", "failed ACL check")
_NEVER = "ChaincodeParameters"
"""What a peer names as differing where an organisation has approved nothing under a sequence."""


class LifecycleError(FabricError):
    """It cannot go on as things are; the sentence says why. Nothing was committed."""


class Unapproved(LifecycleError):
    """Too few organisations have approved the definition so far."""


class PeerError(GatewayError):
    """One peer did not do what it was asked; `code` is UNKNOWN where it answered.

    Attributes:
        peer: its name.
        refused: it takes this from administrators of its organisation only.
    """

    step = "peer"
    peer = ""

    @property
    def refused(self) -> bool:
        return any(words in self.message for words in _REFUSALS)


@dataclass(frozen=True)
class InForce:
    """What is committed for a chaincode."""

    version: str
    sequence: int


@dataclass(frozen=True)
class Readiness:
    """Who has approved exactly this definition.

    Attributes:
        approvals: every organisation of the channel by MSP id.
        differing: what those approved otherwise who approved another definition under this sequence.
    """

    approvals: Mapping[str, bool]
    differing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def enough(self, definition: Definition) -> bool:
        """A majority of all, as Fabric asks by default, and as many of those that run it as must endorse it: fewer would stop it."""
        runs = definition.endorsed_by
        those = sum(bool(self.approvals.get(one)) for one in runs.organisations)
        return 2 * sum(self.approvals.values()) > len(self.approvals) and those >= runs.needed

    def __str__(self) -> str:
        yes = ", ".join(sorted(one for one, done in self.approvals.items() if done)) or "nobody"
        no = ", ".join(self._missing(one) for one, done in sorted(self.approvals.items()) if not done) or "nobody"
        return f"approved by {yes}, not by {no}"

    def _missing(self, organisation: str) -> str:
        found = [item for item in self.differing.get(organisation, ()) if item != _NEVER]
        return f"{organisation} (which approved it with other {', '.join(found)})" if found else organisation


# --- one peer ---------------------------------------------------------------------------------------------


class Peer:
    """A peer of our organisation, as its administrator sees it.

    Args:
        administrator: over a connection to this peer, and of no channel ("").
    """

    def __init__(self, name: str, administrator: Gateway) -> None:
        self.name = name
        self._gateway = administrator
        self._endorser = peer_pb2_grpc.EndorserStub(administrator.connection.channel)

    async def installed(self) -> frozenset[str]:
        """Ids of the packages it holds. Raises PeerError."""
        asked, kind = lifecycle_pb2.QueryInstalledChaincodesArgs(), lifecycle_pb2.QueryInstalledChaincodesResult
        answer = await self._ask("QueryInstalledChaincodes", asked, kind)
        return frozenset(str(one.package_id) for one in answer.installed_chaincodes)

    async def install(self, package: bytes, package_id: str) -> None:
        """Installs a package, whose id the peer must find itself; nothing happens where it holds it.

        Raises:
            PeerError: refused, or away.
            LifecycleError: the peer gave it another id, under which nobody would serve it.
        """
        asked, kind = (
            lifecycle_pb2.InstallChaincodeArgs(chaincode_install_package=package),
            lifecycle_pb2.InstallChaincodeResult,
        )
        try:
            found = str((await self._ask("InstallChaincode", asked, kind, _INSTALL_S)).package_id)
        except PeerError as error:
            if f"already successfully installed (package ID '{package_id}')" not in error.message:
                raise
            return
        if found != package_id:
            raise LifecycleError(f"the peer {self.name} took the package {package_id} as {found}: its content differs")

    async def _ask(self, function: str, arguments: Any, kind: Any, limit_s: float | None = None) -> Any:
        try:
            answer = await self._sent(function, arguments, limit_s or self._gateway.connection.deadlines.evaluate_s)
            if answer.response.status != _OK:
                raise PeerError(str(answer.response.message), grpc.StatusCode.UNKNOWN)
        except PeerError as error:
            error.peer = self.name
            raise
        return _read(kind, bytes(answer.response.payload))

    async def _sent(self, function: str, arguments: Any, limit_s: float) -> Any:
        made = self._gateway.propose(CHAINCODE, function, [arguments.SerializeToString()])
        request = proposal_pb2.SignedProposal(proposal_bytes=made.message, signature=made.require_signature())
        return await self._gateway.connection.call(self._endorser.ProcessProposal, request, PeerError, limit_s)


# --- the channel ------------------------------------------------------------------------------------------


class Lifecycle:
    """The lifecycle on one channel, for the organisation of `gateway`'s member."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def organisation(self) -> str:
        """MSP id of whom it approves for."""
        return self._gateway.identity.msp_id

    async def in_force(self) -> dict[str, InForce]:
        """What is committed, by chaincode. Raises EvaluateError."""
        asked, kind = lifecycle_pb2.QueryChaincodeDefinitionsArgs(), lifecycle_pb2.QueryChaincodeDefinitionsResult
        found = await self._ask("QueryChaincodeDefinitions", asked, kind)
        return {str(one.name): InForce(str(one.version), int(one.sequence)) for one in found.chaincode_definitions}

    async def definition(self, name: str) -> Any:
        """Everything committed for a chaincode (QueryChaincodeDefinitionResult), with who had approved it. Raises EvaluateError."""
        asked = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=name)
        return await self._ask("QueryChaincodeDefinition", asked, lifecycle_pb2.QueryChaincodeDefinitionResult)

    async def approved_package(self, name: str, sequence: int) -> str | None:
        """Id of the package our organisation approved under this sequence; "" where it runs none, None where it approved nothing."""
        asked = lifecycle_pb2.QueryApprovedChaincodeDefinitionArgs(name=name, sequence=sequence)
        kind = lifecycle_pb2.QueryApprovedChaincodeDefinitionResult
        try:
            found = await self._ask("QueryApprovedChaincodeDefinition", asked, kind)
        except EvaluateError as error:
            if says(error, _ABSENT):
                return None
            raise
        return str(found.source.local_package.package_id)

    async def readiness(self, definition: Definition, sequence: int) -> Readiness:
        """Who has approved this definition under the next sequence. Raises EvaluateError, also where that sequence is not the next."""
        asked = definition.fill(lifecycle_pb2.CheckCommitReadinessArgs(), sequence)
        found = await self._ask("CheckCommitReadiness", asked, lifecycle_pb2.CheckCommitReadinessResult)
        differing = {str(name): tuple(one.items) for name, one in found.mismatches.items()}
        return Readiness({str(name): bool(done) for name, done in found.approvals.items()}, differing)

    async def approve(self, definition: Definition, sequence: int, package_id: str) -> None:
        """Approves for our organisation; nothing happens where it has approved just that.

        Args:
            package_id: what our peers run; "" where they do not run it.

        Raises:
            EndorseError, SubmitError, CommitInvalid, OutcomeUnknown: see `Gateway.submit`.
        """
        asked = definition.fill(lifecycle_pb2.ApproveChaincodeDefinitionForMyOrgArgs(), sequence)
        if package_id:
            asked.source.local_package.package_id = package_id
        else:
            asked.source.unavailable.SetInParent()
        try:
            await self._change("ApproveChaincodeDefinitionForMyOrg", asked, (self.organisation,))
        except EndorseError as error:
            if not says(error, _UNCHANGED) or says(error, _OTHERWISE):
                raise

    async def commit(self, definition: Definition, sequence: int, approved_by: tuple[str, ...]) -> None:
        """Commits what these organisations have approved; a peer of each endorses it. Raises as `approve` does."""
        asked = definition.fill(lifecycle_pb2.CommitChaincodeDefinitionArgs(), sequence)
        await self._change("CommitChaincodeDefinition", asked, approved_by)

    async def _ask(self, function: str, arguments: Any, kind: Any) -> Any:
        content = [arguments.SerializeToString()]
        return _read(
            kind,
            await self._gateway.evaluate(CHAINCODE, function, content, organisations=(self.organisation,)),
        )

    async def _change(self, function: str, arguments: Any, organisations: tuple[str, ...]) -> None:
        content = [arguments.SerializeToString()]
        await self._gateway.submit(CHAINCODE, function, content, organisations=organisations)


def says(error: GatewayError, words: str) -> bool:
    """Whether the gateway, or a peer it asked, uses these words; Fabric has no codes for them."""
    return words in error.message or any(words in detail.message for detail in error.details)


def _read(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise FormError(f"a peer's answer is no {kind.DESCRIPTOR.name}: {error}") from None
