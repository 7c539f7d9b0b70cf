"""A channel of three organisations in memory that knows the lifecycle of chaincodes: the gateway and one peer of the city's, over gRPC."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.peer import chaincode_pb2, peer_pb2_grpc, proposal_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2 as messages

from tests.unit.ledger.fake_gateway import FakeGateway, endorsed

MEMBERS = ("AuditorMSP", "CityMSP", "UtilityMSP")
OURS = "CityMSP"
_DENIED = "access denied: channel [] creator org [CityMSP]: Failed to authorize invocation due to failed ACL check"


class Refused(Exception):
    """The chaincode `_lifecycle` answers with an error."""


class FakeChannel(FakeGateway):
    """Attributes:
    installed: package id by the label it begins with, as the peer holds them.
    approved: (MSP id, chaincode, sequence) -> (definition's bytes, package id).
    committed: chaincode -> (version, sequence, definition's bytes).
    asked_for: every function of `_lifecycle` that was called, in order.
    administrator: whether the caller is one.
    keep_commits: False: what is ordered as a commit turns out invalid.
    before_commit: called once before the next commit is endorsed: what another organisation does meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.installed: dict[str, str] = {}
        self.approved: dict[tuple[str, str, int], tuple[bytes, str]] = {}
        self.committed: dict[str, tuple[str, int, bytes]] = {}
        self.asked_for: list[str] = []
        self.administrator = True
        self.endorsed_by: list[tuple[str, ...]] = []
        self.before_commit: list[Callable[[], None]] = []
        self.keep_commits = True
        self._under_way: dict[str, Callable[[], None]] = {}

    # --- what others do -------------------------------------------------------------------------------

    def approve(self, organisation: str, definition: Any, sequence: int) -> None:
        """As the organisation's own administrator would."""
        content = _content(definition.fill(messages.CommitChaincodeDefinitionArgs(), sequence))
        self.approved[organisation, definition.name, sequence] = (content, "")

    def commit(self, definition: Any, sequence: int) -> None:  # type: ignore[override] # a definition, not a block
        content = _content(definition.fill(messages.CommitChaincodeDefinitionArgs(), sequence))
        self.committed[definition.name] = (definition.version, sequence, content)

    # --- gRPC -----------------------------------------------------------------------------------------

    async def ProcessProposal(self, request: Any, context: Any) -> Any:
        async def usual(asked: Any, _: Any) -> Any:
            function, arguments, channel = _called(asked.proposal_bytes)
            assert channel == ""
            try:
                return _response(200, payload=self._run(function, arguments, OURS))
            except Refused as error:
                return _response(500, message=str(error))

        return await self._next("ProcessProposal", request, context, usual)

    async def Evaluate(self, request: Any, context: Any) -> Any:
        async def usual(asked: Any, at: Any) -> Any:
            function, arguments, _ = _called(asked.proposed_transaction.proposal_bytes)
            try:
                payload = self._run(function, arguments, OURS)
            except Refused as error:
                await at.abort(grpc.StatusCode.UNKNOWN, f"evaluate call to endorser returned error: {error}")
            return gateway_pb2.EvaluateResponse(result=proposal_response_pb2.Response(status=200, payload=payload))

        return await self._next("Evaluate", request, context, usual)

    async def Endorse(self, request: Any, context: Any) -> Any:
        async def usual(asked: Any, at: Any) -> Any:
            proposal = asked.proposed_transaction.proposal_bytes
            function, arguments, _ = _called(proposal)
            self.endorsed_by.append(tuple(asked.endorsing_organizations))
            try:
                self._under_way[asked.transaction_id] = self._changing(function, arguments)
            except Refused as error:
                await at.abort(grpc.StatusCode.ABORTED, f"failed to endorse transaction: {error}")
            envelope = common_pb2.Envelope(payload=endorsed(proposal, b""))
            return gateway_pb2.EndorseResponse(prepared_transaction=envelope)

        return await self._next("Endorse", request, context, usual)

    async def Submit(self, request: Any, context: Any) -> Any:
        self._under_way.pop(request.transaction_id)()
        return await super().Submit(request, context)

    # --- the chaincode --------------------------------------------------------------------------------

    def _run(self, function: str, arguments: bytes, ours: str) -> bytes:
        self.asked_for.append(function)
        answer = getattr(self, f"_{function}")(arguments)
        return bytes(answer.SerializeToString())

    def _QueryInstalledChaincodes(self, arguments: bytes) -> Any:
        self._require_administrator()
        found = messages.QueryInstalledChaincodesResult()
        for package_id in self.installed.values():
            found.installed_chaincodes.add(package_id=package_id, label=package_id.partition(":")[0])
        return found

    def _InstallChaincode(self, arguments: bytes) -> Any:
        self._require_administrator()
        content = messages.InstallChaincodeArgs.FromString(arguments).chaincode_install_package
        package_id = package_id_of(content)
        if package_id in self.installed.values():
            raise Refused(f"chaincode already successfully installed (package ID '{package_id}')")
        self.installed[package_id.partition(":")[0]] = package_id
        return messages.InstallChaincodeResult(package_id=package_id)

    def _QueryChaincodeDefinitions(self, arguments: bytes) -> Any:
        found = messages.QueryChaincodeDefinitionsResult()
        for name, (version, sequence, _) in self.committed.items():
            found.chaincode_definitions.add(name=name, version=version, sequence=sequence)
        return found

    def _QueryChaincodeDefinition(self, arguments: bytes) -> Any:
        name = messages.QueryChaincodeDefinitionArgs.FromString(arguments).name
        version, sequence, _ = self.committed[name]
        return messages.QueryChaincodeDefinitionResult(version=version, sequence=sequence)

    def _QueryApprovedChaincodeDefinition(self, arguments: bytes) -> Any:
        asked = messages.QueryApprovedChaincodeDefinitionArgs.FromString(arguments)
        found = self.approved.get((OURS, asked.name, asked.sequence))
        if found is None:
            raise Refused(f"could not fetch approved chaincode definition (name: '{asked.name}')")
        answer = messages.QueryApprovedChaincodeDefinitionResult(sequence=asked.sequence)
        if found[1]:
            answer.source.local_package.package_id = found[1]
        return answer

    def _CheckCommitReadiness(self, arguments: bytes) -> Any:
        asked = messages.CheckCommitReadinessArgs.FromString(arguments)
        self._require_next(asked)
        answer = messages.CheckCommitReadinessResult()
        for one in MEMBERS:
            found = self.approved.get((one, asked.name, asked.sequence))
            answer.approvals[one] = found is not None and found[0] == _content(asked)
            if not answer.approvals[one]:
                answer.mismatches[one].items.append("ChaincodeParameters" if found is None else "EndorsementInfo")
        return answer

    def _changing(self, function: str, arguments: bytes) -> Callable[[], None]:
        self.asked_for.append(function)
        change: Callable[[], None] = getattr(self, f"_{function}")(arguments)
        return change

    def _ApproveChaincodeDefinitionForMyOrg(self, arguments: bytes) -> Callable[[], None]:
        asked = messages.ApproveChaincodeDefinitionForMyOrgArgs.FromString(arguments)
        key, now = (OURS, asked.name, asked.sequence), (_content(asked), asked.source.local_package.package_id)
        in_force = self.committed.get(asked.name)
        if in_force and in_force[1] == asked.sequence and in_force[2] != now[0]:
            raise Refused(
                f"attempted to redefine the current committed sequence ({asked.sequence}) with different parameters"
            )
        if self.approved.get(key) == now:
            raise Refused(f"attempted to redefine uncommitted sequence ({asked.sequence}) with unchanged content")
        return lambda: self.approved.update({key: now})

    def _CommitChaincodeDefinition(self, arguments: bytes) -> Callable[[], None]:
        if self.before_commit:
            self.before_commit.pop(0)()
        asked = messages.CommitChaincodeDefinitionArgs.FromString(arguments)
        self._require_next(asked)
        for organisation in self.endorsed_by[-1]:
            if self.approved.get((organisation, asked.name, asked.sequence), (b"", ""))[0] != _content(asked):
                raise Refused(f"chaincode definition not agreed to by this org ({organisation})")
        now = (asked.version, asked.sequence, _content(asked))
        return lambda: self.committed.update({asked.name: now} if self.keep_commits else {})

    def _require_next(self, asked: Any) -> None:
        current = self.committed.get(asked.name, ("", 0, b""))[1]
        if asked.sequence != current + 1:
            raise Refused(f"requested sequence is {asked.sequence}, but new definition must be sequence {current + 1}")

    def _require_administrator(self) -> None:
        if not self.administrator:
            raise Refused(_DENIED)


def package_id_of(content: bytes) -> str:
    """As a peer names it. A short one for a test is LABEL|CONTENT."""
    return f"{_label(content)}:{sha256(content).hexdigest()}"


def _label(content: bytes) -> str:
    if not content.startswith(b"\x1f\x8b"):
        return content.partition(b"|")[0].decode()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        metadata = archive.extractfile("metadata.json")
        assert metadata is not None
        return str(json.load(metadata)["label"])


async def serving(fake: FakeChannel) -> tuple[grpc.aio.Server, str]:
    """A server of the gateway and the peer on a free port, and its address."""
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServicer_to_server(fake, server)
    peer_pb2_grpc.add_EndorserServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


def _called(proposal: bytes) -> tuple[str, bytes, str]:
    """(function, its one argument, channel) of a proposal to `_lifecycle`."""
    message = proposal_pb2.Proposal.FromString(proposal)
    header = common_pb2.ChannelHeader.FromString(common_pb2.Header.FromString(message.header).channel_header)
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(message.payload)
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    assert spec.chaincode_id.name == "_lifecycle"
    function, argument = spec.input.args
    return function.decode(), bytes(argument), str(header.channel_id)


def _content(asked: Any) -> bytes:
    """What organisations agree on of an approval, a question or a commit."""
    agreed = messages.CommitChaincodeDefinitionArgs(
        sequence=asked.sequence,
        name=asked.name,
        version=asked.version,
        validation_parameter=asked.validation_parameter,
        collections=asked.collections,
    )
    return bytes(agreed.SerializeToString())


def _response(status: int, payload: bytes = b"", message: str = "") -> Any:
    said = proposal_response_pb2.Response(status=status, payload=payload, message=message)
    return proposal_response_pb2.ProposalResponse(response=said)
