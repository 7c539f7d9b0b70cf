"""The gateway service (gateway/gateway.proto) and the endorser service (peer/peer.proto), with Fabric's status codes and error details."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NoReturn

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.peer import (
    chaincode_event_pb2,
    peer_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
)
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from citykit.errors import FailedPrecondition, Unavailable
from citykit.ledger.devpeer.chaincodes import ChaincodeFault
from citykit.ledger.devpeer.endorsement import Endorser, Refused, Simulated, endorsing_refusal
from citykit.ledger.devpeer.members import Member, Members, NotMember
from citykit.ledger.devpeer.messages import Malformed, Proposal, read_transaction
from citykit.ledger.devpeer.ordering import Chain
from citykit.ledger.devpeer.specification import Specification
from citykit.ledger.devpeer.traffic import events_of

ENVELOPE_MAX = 10 * 1024 * 1024
Context = grpc.aio.ServicerContext[Any, Any]
Code = grpc.StatusCode


class Failure(Exception):
    """What ends a call: a status, and what each endorser said."""

    def __init__(self, code: grpc.StatusCode, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class GatewayService(gateway_pb2_grpc.GatewayServicer):  # type: ignore[misc] # generated, untyped
    """Evaluate, Endorse, Submit, CommitStatus, ChaincodeEvents.

    Args:
        address: where the peer serves, for error details; asked at each error.
    """

    def __init__(
        self,
        specification: Specification,
        endorser: Endorser,
        members: Members,
        chain: Chain,
        address: Callable[[], str],
    ) -> None:
        self._specification = specification
        self._endorser = endorser
        self._members = members
        self._chain = chain
        self._address = address

    async def Evaluate(self, request: gateway_pb2.EvaluateRequest, context: Context) -> gateway_pb2.EvaluateResponse:
        try:
            proposal, member = self._checked(request.proposed_transaction, "evaluate call to endorser returned error: ")
            asked = self._hosted(request.target_organizations)
            simulated = await self._simulated(proposal, member, asked, "evaluate")
        except Failure as failure:
            await self._abort(context, failure)
        if simulated.failed:
            said = _said(simulated)
            await self._abort(
                context, Failure(Code.UNKNOWN, f"evaluate call to endorser returned error: {said}", [said])
            )
        return gateway_pb2.EvaluateResponse(result=simulated.response)

    async def Endorse(self, request: gateway_pb2.EndorseRequest, context: Context) -> gateway_pb2.EndorseResponse:
        try:
            return await self._endorse(request)
        except Failure as failure:
            await self._abort(context, failure)

    async def Submit(self, request: gateway_pb2.SubmitRequest, context: Context) -> gateway_pb2.SubmitResponse:
        envelope = request.prepared_transaction
        try:
            if not envelope.payload or not envelope.signature:
                raise Failure(Code.INVALID_ARGUMENT, "a prepared and signed transaction is required")
            self._order(envelope)
        except Failure as failure:
            await self._abort(context, failure)
        return gateway_pb2.SubmitResponse()

    async def CommitStatus(
        self, request: gateway_pb2.SignedCommitStatusRequest, context: Context
    ) -> gateway_pb2.CommitStatusResponse:
        try:
            asked = _decoded(gateway_pb2.CommitStatusRequest, request.request, "commit status")
            self._permit(asked.identity, request.request, request.signature, asked.channel_id)
            if not asked.transaction_id:
                raise Failure(Code.INVALID_ARGUMENT, "transaction ID should not be empty")
            found = await self._chain.committed(asked.transaction_id)
        except Failure as failure:
            await self._abort(context, failure)
        except Unavailable as error:
            await self._abort(context, Failure(Code.UNAVAILABLE, error.message))
        return gateway_pb2.CommitStatusResponse(result=found.code, block_number=found.block)

    async def ChaincodeEvents(
        self, request: gateway_pb2.SignedChaincodeEventsRequest, context: Context
    ) -> AsyncIterator[gateway_pb2.ChaincodeEventsResponse]:
        try:
            asked = _decoded(gateway_pb2.ChaincodeEventsRequest, request.request, "chaincode events")
            self._permit(asked.identity, request.request, request.signature, asked.channel_id)
            number = self._first_block(asked)
        except Failure as failure:
            await self._abort(context, failure)
        passed = not asked.after_transaction_id
        while True:
            await self._chain.longer_than(number)
            events, passed = _wanted(events_of(self._chain.block(number)), asked, passed)
            if events:
                yield gateway_pb2.ChaincodeEventsResponse(events=events, block_number=number)
            number += 1

    # --- how ---------------------------------------------------------------------------------------

    def _checked(self, signed: proposal_pb2.SignedProposal, before: str) -> tuple[Proposal, Member]:
        if not signed.proposal_bytes:
            raise Failure(Code.INVALID_ARGUMENT, "the proposed transaction must contain a signed proposal")
        try:
            return self._endorser.check(signed)
        except Refused as error:
            code = Code.FAILED_PRECONDITION if before else Code.ABORTED
            summary = before + error.message if before else _ENDORSE_FAILED
            raise Failure(code, summary, [error.message]) from None

    def _hosted(self, organisations: Sequence[str]) -> list[str]:
        refusal = endorsing_refusal(organisations, self._specification.organisations)
        if refusal is not None:
            raise Failure(Code.UNAVAILABLE, refusal.message)
        return list(dict.fromkeys(organisations))

    async def _simulated(self, proposal: Proposal, member: Member, organisations: Sequence[str], act: str) -> Simulated:
        try:
            return await self._endorser.simulate(proposal, member, organisations)
        except ChaincodeFault as error:
            summary = f"failed to {act} transaction, see attached details for more info"
            raise Failure(Code.ABORTED, summary, [f"error in simulation: {error}"]) from None

    async def _endorse(self, request: gateway_pb2.EndorseRequest) -> gateway_pb2.EndorseResponse:
        asked = self._hosted(request.endorsing_organizations)
        proposal, member = self._checked(request.proposed_transaction, "")
        simulated = await self._simulated(proposal, member, asked, "endorse")
        if simulated.failed:
            raise Failure(Code.ABORTED, _ENDORSE_FAILED, [_said(simulated)])
        try:
            organisations = asked or self._endorser.organisations_for(proposal, simulated.sets, member)
        except FailedPrecondition as error:
            raise Failure(Code.FAILED_PRECONDITION, error.message) from None
        if simulated.sets is not None:
            self._endorser.keep_private(proposal.headers.transaction, simulated.sets)
        return gateway_pb2.EndorseResponse(
            prepared_transaction=self._endorser.prepared(proposal, simulated, organisations)
        )

    def _order(self, envelope: common_pb2.Envelope) -> None:
        if envelope.ByteSize() > ENVELOPE_MAX:
            raise _by_orderer("REQUEST_ENTITY_TOO_LARGE", f"an envelope is at most {ENVELOPE_MAX} bytes")
        try:
            transaction = read_transaction(envelope)
            headers = transaction.headers
            if headers.channel != self._specification.channel:
                raise _by_orderer("NOT_FOUND", f"there is no channel {headers.channel!r} here")
            self._members.signed(headers.creator, envelope.payload, envelope.signature)
            self._chain.order(transaction)
        except Malformed as error:
            raise _by_orderer("BAD_REQUEST", error.message) from None
        except NotMember as error:
            raise _by_orderer("FORBIDDEN", error.message) from None
        except Unavailable as error:
            summary = "no orderers could successfully process transaction"
            raise Failure(Code.UNAVAILABLE, summary, [error.message]) from None

    def _permit(self, identity: bytes, message: bytes, signature: bytes, channel: str) -> None:
        if not identity or not channel:
            raise Failure(Code.INVALID_ARGUMENT, f"no {'channel ID' if identity else 'identity'} provided")
        try:
            self._members.signed(identity, message, signature)
        except NotMember as error:
            raise Failure(Code.PERMISSION_DENIED, error.message) from None
        if channel != self._specification.channel:
            raise Failure(
                Code.NOT_FOUND, f"channel {channel!r} does not exist; this peer has {self._specification.channel!r}"
            )

    def _first_block(self, asked: gateway_pb2.ChaincodeEventsRequest) -> int:
        found = self._chain.find(asked.after_transaction_id) if asked.after_transaction_id else None
        if found is not None:
            return found.block
        kind = asked.start_position.WhichOneof("Type")
        if kind == "specified":
            return int(asked.start_position.specified.number)
        if kind in (None, "next_commit"):
            return self._chain.height
        raise Failure(Code.INVALID_ARGUMENT, f"invalid start position type: {kind}; take specified or next_commit")

    async def _abort(self, context: Context, failure: Failure) -> NoReturn:
        """Ends the call with Fabric's `ErrorDetail`s, which the clients show."""
        status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
        first = self._specification.organisations[0]
        for said in failure.details:
            detail = gateway_pb2.ErrorDetail(address=self._address(), msp_id=first, message=said)
            status.details.add().Pack(detail)
        trailer = (("grpc-status-details-bin", status.SerializeToString()),) if failure.details else ()
        await context.abort(failure.code, failure.message, trailing_metadata=trailer)
        raise AssertionError("abort returned")


class EndorserService(peer_pb2_grpc.EndorserServicer):  # type: ignore[misc] # generated, untyped
    """ProcessProposal, for clients that collect endorsements themselves; it signs for the creator's organisation."""

    def __init__(self, specification: Specification, endorser: Endorser) -> None:
        self._specification = specification
        self._endorser = endorser

    async def ProcessProposal(
        self, request: proposal_pb2.SignedProposal, context: Context
    ) -> proposal_response_pb2.ProposalResponse:
        try:
            proposal, member = self._endorser.check(request)
        except Refused as error:
            await context.abort(Code.UNKNOWN, error.message)
            raise AssertionError("abort returned") from None
        try:
            simulated = await self._endorser.simulate(proposal, member)
        except ChaincodeFault as error:
            return _response(500, f"error in simulation: {error}")
        return self._answer(proposal, member, simulated)

    def _answer(
        self, proposal: Proposal, member: Member, simulated: Simulated
    ) -> proposal_response_pb2.ProposalResponse:
        answer = proposal_response_pb2.ProposalResponse(response=simulated.response, payload=simulated.payload)
        if simulated.failed:
            return answer
        hosted = self._specification.organisations
        organisation = member.msp_id if member.msp_id in hosted else hosted[0]
        [(endorser, signature)] = self._endorser.endorsements(simulated, [organisation])
        answer.version = 1
        answer.endorsement.endorser, answer.endorsement.signature = endorser, signature
        if simulated.sets is not None:
            self._endorser.keep_private(proposal.headers.transaction, simulated.sets)
        return answer


_ENDORSE_FAILED = "failed to endorse transaction, see attached details for more info"


def _said(simulated: Simulated) -> str:
    return f"chaincode response {simulated.response.status}, {simulated.response.message}"


def _by_orderer(status: str, info: str) -> Failure:
    return Failure(Code.ABORTED, f"received unsuccessful response from orderer: status={status}, info={info}")


def _response(status: int, message: str) -> proposal_response_pb2.ProposalResponse:
    response = proposal_response_pb2.Response(status=status, message=message)
    return proposal_response_pb2.ProposalResponse(response=response)


def _decoded(kind: Any, data: bytes, what: str) -> Any:
    if not data:
        raise Failure(Code.INVALID_ARGUMENT, f"a {what} request is required")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Failure(Code.INVALID_ARGUMENT, f"invalid {what} request: it does not decode") from None


def _wanted(
    events: list[chaincode_event_pb2.ChaincodeEvent], asked: gateway_pb2.ChaincodeEventsRequest, passed: bool
) -> tuple[list[chaincode_event_pb2.ChaincodeEvent], bool]:
    """The events of the asked chaincode after the asked transaction, and whether that one was passed."""
    wanted = []
    for event in events:
        if passed and event.chaincode_id == asked.chaincode_id:
            wanted.append(event)
        passed = passed or event.tx_id == asked.after_transaction_id
    return wanted, passed
