"""Endorsing: a proposal is checked, simulated once, and signed by as many of the hosted organisations as are asked. Used by the services.

One operator signs for all of them, so several signatures here say no more than one; Fabric's peers each run the chaincode themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2

from citykit.errors import FailedPrecondition, InvalidArgument, Unavailable
from citykit.ledger.devpeer.chaincodes import ChaincodeFault, Chaincodes
from citykit.ledger.devpeer.members import Member, Members, NotMember, Signer
from citykit.ledger.devpeer.messages import Proposal, prepared, read_proposal
from citykit.ledger.devpeer.policy import Rule, chosen
from citykit.ledger.devpeer.qscc import SystemChaincode
from citykit.ledger.devpeer.requests import History, Run
from citykit.ledger.devpeer.simulation import ReadWriteSets, Simulation
from citykit.ledger.devpeer.specification import Specification
from citykit.ledger.devpeer.state import WorldState

ERROR_THRESHOLD = 400
ERROR = 500
_TRANSIENT_MAX = 10_000
"""Private write sets kept between endorsement and commit."""


class Refused(FailedPrecondition):
    """The proposal is not accepted: the caller's fault, nothing was run."""


class DuplicateTransaction(Refused):
    """The transaction id is on the ledger already."""


@dataclass(frozen=True)
class Simulated:
    """A run that ended with a response, good or bad.

    Attributes:
        payload: the proposal response payload to be signed; empty for a response from 400 to 499, which is not endorsed.
        sets: None of a system chaincode.
    """

    response: proposal_response_pb2.Response
    payload: bytes
    sets: ReadWriteSets | None

    @property
    def failed(self) -> bool:
        return bool(self.response.status < 200 or self.response.status >= ERROR_THRESHOLD)  # noqa: PLR2004 - HTTP's OK


class Endorser:
    """Simulates and signs."""

    def __init__(
        self, specification: Specification, world: WorldState, members: Members, signers: Mapping[str, Signer],
        chaincodes: Chaincodes, system: SystemChaincode, known: Callable[[str], bool], history: History,
    ) -> None:  # fmt: skip
        self._specification = specification
        self._world = world
        self._members = members
        self._signers = signers
        self._chaincodes = chaincodes
        self._system = system
        self._known = known
        self._history = history
        self._by_name = {one.name: one for one in specification.chaincodes}
        self._private: OrderedDict[str, rwset_pb2.TxPvtReadWriteSet] = OrderedDict()
        organisations = specification.organisations
        self.policies: dict[str, Rule] = {n: one.rule(organisations) for n, one in self._by_name.items()}

    def check(self, signed: proposal_pb2.SignedProposal) -> tuple[Proposal, Member]:
        """A proposal that may be run, and whose it is.

        Raises:
            Refused: malformed, on another channel, not signed by a member, or a transaction id that came before.
        """
        try:
            proposal = read_proposal(signed)
            headers = proposal.headers
            if headers.channel != self._specification.channel:
                raise Refused(f"channel '{headers.channel}' not found; this peer has {self._specification.channel!r}")
            member = self._members.signed(headers.creator, signed.proposal_bytes, signed.signature)
        except NotMember as error:
            raise Refused(f"error validating proposal: access denied: {error.message}") from None
        except InvalidArgument as error:
            raise Refused(f"error validating proposal: {error.message}") from None
        if self._known(proposal.headers.transaction):
            raise DuplicateTransaction(
                f"duplicate transaction found [{proposal.headers.transaction}]; take a new nonce for a new transaction"
            )
        return proposal, member

    async def simulate(self, proposal: Proposal, member: Member, organisations: Sequence[str] = ()) -> Simulated:
        """Runs a proposal in the memory of the creator's organisation, or of the first asked for.

        Raises:
            ChaincodeFault: it could not be run to its end.
        """
        if self._system.serves(proposal.chaincode):
            response = self._system.answer(list(proposal.input.args))
            return Simulated(response, _payload(proposal, "", response, b"", b""), None)
        simulation = Simulation(self._world, self._memory(member, organisations))
        try:
            return await self._run(proposal, member, simulation)
        finally:
            simulation.close()

    def endorsements(self, simulated: Simulated, organisations: Sequence[str]) -> list[tuple[bytes, bytes]]:
        """The signatures of these organisations over a run's outcome."""
        signers = [self._signers[name] for name in organisations]
        return [(one.serialized, one.sign(simulated.payload + one.serialized)) for one in signers]

    def prepared(self, proposal: Proposal, simulated: Simulated, organisations: Sequence[str]) -> common_pb2.Envelope:
        """The transaction with its endorsements, for the client to sign."""
        return prepared(proposal, simulated.payload, self.endorsements(simulated, organisations))

    def organisations_for(self, proposal: Proposal, sets: ReadWriteSets | None, member: Member) -> tuple[str, ...]:
        """The fewest organisations that satisfy the policies of all it writes to; the gateway's own for a system chaincode.

        Raises:
            FailedPrecondition: no hosted ones do.
        """
        if sets is None:
            return self._specification.organisations[:1]
        names = sets.written | {proposal.chaincode}
        found = chosen([self.policies[n] for n in sorted(names)], member.msp_id, self._specification.organisations)
        if found is None:
            raise FailedPrecondition(
                "no combination of peers can be derived which satisfy the endorsement policy of"
                f" {', '.join(sorted(names))}: this peer endorses for {', '.join(self._specification.organisations)}"
            )
        return found

    def keep_private(self, transaction: str, sets: ReadWriteSets) -> None:
        """Keeps private write sets until their commit; the oldest are dropped beyond 10,000."""
        if sets.collections:
            self._private[transaction] = sets.private
            while len(self._private) > _TRANSIENT_MAX:
                self._private.popitem(last=False)

    def private_of(self, transaction: str) -> rwset_pb2.TxPvtReadWriteSet | None:
        return self._private.get(transaction)

    def forget_private(self, transaction: str) -> None:
        self._private.pop(transaction, None)

    def _memory(self, member: Member, organisations: Sequence[str]) -> str:
        hosted = self._specification.organisations
        asked = [name for name in organisations if name in hosted] or list(hosted)
        return member.msp_id if member.msp_id in asked else asked[0]

    async def _run(self, proposal: Proposal, member: Member, simulation: Simulation) -> Simulated:
        chaincode = self._by_name.get(proposal.chaincode)
        if chaincode is None:
            raise ChaincodeFault(
                f"make sure the chaincode {proposal.chaincode} has been successfully defined on channel"
                f" {proposal.headers.channel} and try again: it has {', '.join(self._by_name) or 'none'}"
            )
        run = Run(
            chaincode, simulation, proposal.signed, proposal.headers.channel, proposal.headers.transaction,
            member.msp_id, self._world.height, self._history,
        )  # fmt: skip
        call = chaincode_pb2.ChaincodeInput(args=proposal.input.args, is_init=proposal.input.is_init)
        completed = await self._chaincodes.run(run, call)
        if ERROR_THRESHOLD <= completed.response.status < ERROR:
            return Simulated(completed.response, b"", None)
        sets = simulation.outcome()
        event = b"" if completed.event is None else completed.event.SerializeToString()
        payload = _payload(proposal, chaincode.version, completed.response, sets.public, event)
        return Simulated(completed.response, payload, sets)


def _payload(
    proposal: Proposal, version: str, response: proposal_response_pb2.Response, results: bytes, event: bytes
) -> bytes:
    action = proposal_pb2.ChaincodeAction(results=results, events=event, response=response)
    action.chaincode_id.name, action.chaincode_id.version = proposal.chaincode, version
    payload = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=proposal.hash, extension=action.SerializeToString()
    )
    return bytes(payload.SerializeToString())


def endorsing_refusal(organisations: Sequence[str], hosted: Sequence[str]) -> Unavailable | None:
    """Why these organisations cannot all endorse here; None if they can."""
    unknown = [name for name in organisations if name not in hosted]
    return Unavailable(f"no endorsers of {unknown[0]}; there are {', '.join(hosted)}") if unknown else None
