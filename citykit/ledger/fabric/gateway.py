"""The gateway client: evaluate, endorse, submit, ask for the commit; each step alone, or all in one call. Many may be in flight.

A transaction id is fixed when a proposal is made. Submit and CommitStatus are sent again with the same id and the same bytes, so that
nothing acts twice: a peer commits an id once, a second envelope of the same id is committed as DUPLICATE_TXID and writes nothing.
Source: gateway/gateway.proto and https://hyperledger-fabric.readthedocs.io/en/release-2.5/gateway.html.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric import wire
from citykit.ledger.fabric.connection import Connection
from citykit.ledger.fabric.errors import (
    REFUSED,
    CommitInvalid,
    CommitStatusError,
    EndorseError,
    EvaluateError,
    FormError,
    IdentityError,
    OutcomeUnknown,
    SubmitError,
)
from citykit.ledger.fabric.identity import Identity, Signer
from citykit.ledger.fabric.transactions import Commit, Done, Prepared, Proposal, StatusQuestion


class Watch(Protocol):
    """Tells of commits as blocks come."""

    async def expect(self, transaction_id: str) -> asyncio.Future[Commit] | None:
        """The commit to come of a transaction that is not sent yet. None, or cancelled later, where it must be asked for."""


class Gateway:
    """One member's view of one channel, over a connection that several may share.

    Args:
        signer: None: everything is signed elsewhere (`Proposal.signed`, `Prepared.signed`, `StatusQuestion.signed`).
        clock: unix seconds that proposals name.
        nonce: random bytes of a length; 24 for each proposal.
        watch: tells of commits without a question for each (`commits.Commits`).
    """

    def __init__(
        self,
        connection: Connection,
        channel: str,
        identity: Identity,
        signer: Signer | None = None,
        *,
        clock: wire.Clock = time.time,
        nonce: wire.Nonce | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.connection = connection
        self.channel = channel
        self.identity = identity
        self._signer = signer
        self._clock = clock
        self._watch = watch
        self._nonce = nonce or (lambda _: wire.new_nonce())

    def renew(self, identity: Identity, signer: Signer | None) -> None:
        """Goes on as the same member with a renewed certificate; what is under way ends with the old one."""
        self.identity, self._signer = identity, signer

    # --- in one call ---------------------------------------------------------------------------------

    async def evaluate(
        self,
        chaincode: str,
        function: str,
        arguments: Sequence[bytes] = (),
        *,
        transient: Mapping[str, bytes] | None = None,
        organisations: Sequence[str] = (),
    ) -> bytes:
        """A function's answer on one peer's committed state; nothing is ordered.

        Raises:
            EvaluateError: `chaincode` holds the chaincode's own error response, where there is one.
        """
        made = self.propose(chaincode, function, arguments, transient=transient, organisations=organisations)
        return await self.evaluate_proposal(made)

    async def submit(
        self,
        chaincode: str,
        function: str,
        arguments: Sequence[bytes] = (),
        *,
        transient: Mapping[str, bytes] | None = None,
        organisations: Sequence[str] = (),
    ) -> Done:
        """Endorses, submits, and returns once the transaction is committed as valid.

        Raises:
            EndorseError, SubmitError: nothing was ordered.
            CommitInvalid: ordered, but nothing was written; a conflict (code 11, 12) may be proposed anew.
            OutcomeUnknown: it carries the transaction id.
        """
        made = self.propose(chaincode, function, arguments, transient=transient, organisations=organisations)
        return await self.finish(await self.endorse(made))

    async def finish(self, prepared: Prepared) -> Done:
        """Submits an endorsed transaction and waits for its commit; see `submit`. May be called again after OutcomeUnknown.

        A submit that ended without an answer may have got through: its commit is looked for, for a shorter while.
        """
        signed = self._signed_prepared(prepared)
        limit_s = self.connection.deadlines.commit_s
        coming = await self._watch.expect(signed.transaction_id) if self._watch else None
        try:
            try:
                await self.send(signed)
            except OutcomeUnknown:
                limit_s = min(limit_s, self.connection.deadlines.doubt_s)
            commit = await self._committed(signed.transaction_id, coming, limit_s)
        finally:
            if coming is not None:
                coming.cancel()
        if not commit.valid:
            raise CommitInvalid(commit.transaction_id, commit.code, commit.code_name, commit.block)
        return Done(commit.transaction_id, commit.block, signed.result, commit.index)

    async def _committed(self, transaction_id: str, coming: asyncio.Future[Commit] | None, limit_s: float) -> Commit:
        """The commit as it comes; asked for where it does not come, or nobody watches."""
        if coming is None:
            return await self.commit_status(transaction_id, limit_s=limit_s)
        await asyncio.wait([coming], timeout=limit_s)
        if coming.done() and not coming.cancelled():
            return coming.result()
        return await self.commit_status(
            transaction_id, limit_s=limit_s if coming.cancelled() else self.connection.deadlines.doubt_s
        )

    # --- each step -----------------------------------------------------------------------------------

    def propose(
        self,
        chaincode: str,
        function: str,
        arguments: Sequence[bytes] = (),
        *,
        transient: Mapping[str, bytes] | None = None,
        organisations: Sequence[str] = (),
    ) -> Proposal:
        """A proposal with its transaction id; signed where there is a signer."""
        sent = (function.encode(), *arguments)
        call = wire.Call(self.channel, chaincode, sent, transient, tuple(organisations))
        creator = self.identity.serialized
        txid, message = wire.proposal(call, creator, self._nonce(wire.NONCE_BYTES), self._clock())
        made = Proposal(txid, self.channel, message, call.organisations)
        return made if self._signer is None else made.signed(self._signer.sign(message))

    async def evaluate_proposal(self, proposal: Proposal) -> bytes:
        """Evaluates a signed proposal. Raises EvaluateError."""
        request = gateway_pb2.EvaluateRequest(
            transaction_id=proposal.transaction_id,
            channel_id=proposal.channel,
            proposed_transaction=_signed(proposal),
            target_organizations=proposal.organisations,
        )
        at = self.connection
        answer = await at.call(at.gateway.Evaluate, request, EvaluateError, at.deadlines.evaluate_s)
        return bytes(answer.result.payload)

    async def endorse(self, proposal: Proposal) -> Prepared:
        """Gathers endorsements for a signed proposal; the transaction is signed where there is a signer.

        Raises:
            EndorseError: not enough endorsements; nothing was ordered. `details` has what each peer said.
            FormError: the gateway gave back another transaction than was proposed.
        """
        request = gateway_pb2.EndorseRequest(
            transaction_id=proposal.transaction_id,
            channel_id=proposal.channel,
            proposed_transaction=_signed(proposal),
            endorsing_organizations=proposal.organisations,
        )
        at = self.connection
        limit_s = at.deadlines.endorse_s
        answer = await at.call(at.gateway.Endorse, request, EndorseError, limit_s, proposal.transaction_id)
        message = bytes(answer.prepared_transaction.payload)
        require_proposed(message, proposal)
        prepared = Prepared(proposal.transaction_id, proposal.channel, message)
        return prepared if self._signer is None else prepared.signed(self._signer.sign(message))

    async def send(self, prepared: Prepared) -> None:
        """Sends a signed transaction to the orderers; sent again with the same bytes while that does not get through.

        Raises:
            SubmitError: refused, so nothing was ordered.
            OutcomeUnknown: it may have been ordered.
        """
        envelope = common_pb2.Envelope(payload=prepared.message, signature=prepared.require_signature())
        request = gateway_pb2.SubmitRequest(
            transaction_id=prepared.transaction_id, channel_id=prepared.channel, prepared_transaction=envelope
        )
        at = self.connection
        try:
            await at.call(at.gateway.Submit, request, SubmitError, at.deadlines.submit_s, prepared.transaction_id)
        except SubmitError as error:
            if error.known_to_orderers:
                return
            if error.code in REFUSED and not error.repeated:
                raise
            raise OutcomeUnknown(prepared.transaction_id, error) from None

    def ask(self, transaction_id: str) -> StatusQuestion:
        """The question after a transaction's commit; signed where there is a signer."""
        request = gateway_pb2.CommitStatusRequest(
            transaction_id=transaction_id, channel_id=self.channel, identity=self.identity.serialized
        )
        question = StatusQuestion(transaction_id, bytes(request.SerializeToString()))
        return question if self._signer is None else question.signed(self._signer.sign(question.message))

    async def commit_status(self, transaction: str | StatusQuestion, *, limit_s: float | None = None) -> Commit:
        """Waits until a transaction is committed, as valid or not.

        Args:
            limit_s: seconds, where it is not the connection's deadline.

        Raises:
            OutcomeUnknown: not seen within the deadline.
            CommitStatusError: the question itself was refused; the transaction's outcome is not known either.
        """
        question = self.ask(transaction) if isinstance(transaction, str) else transaction
        request = gateway_pb2.SignedCommitStatusRequest(
            request=question.message, signature=question.require_signature()
        )
        at, txid = self.connection, question.transaction_id
        limit_s = at.deadlines.commit_s if limit_s is None else limit_s
        try:
            answer = await at.call(at.gateway.CommitStatus, request, CommitStatusError, limit_s, txid)
        except CommitStatusError as error:
            if error.code in REFUSED:
                raise
            raise OutcomeUnknown(txid, error) from None
        return Commit(txid, answer.result, code_name(answer.result), answer.block_number)

    def sign(self, message: bytes) -> bytes:
        """The member's signature.

        Raises:
            IdentityError: this gateway has no signer.
        """
        if self._signer is None:
            raise IdentityError("this gateway has no signer; sign elsewhere and call the steps one by one")
        return self._signer.sign(message)

    def nonce(self) -> bytes:
        return self._nonce(wire.NONCE_BYTES)

    def _signed_prepared(self, prepared: Prepared) -> Prepared:
        return prepared if prepared.signature else prepared.signed(self.sign(prepared.message))


def code_name(code: int) -> str:
    """The name of a validation code (protos.TxValidationCode)."""
    try:
        return str(transaction_pb2.TxValidationCode.Name(code))
    except ValueError:
        return f"CODE_{code}"


def require_proposed(payload: bytes, proposal: Proposal) -> None:
    """Raises FormError unless a transaction's payload is of this proposal: a client signs nothing it did not ask for."""
    try:
        asked = proposal_pb2.Proposal.FromString(proposal.message)
        header = common_pb2.Header.FromString(asked.header)
        given = common_pb2.Payload.FromString(payload)
        transaction = transaction_pb2.Transaction.FromString(given.data)
        actions = [transaction_pb2.ChaincodeActionPayload.FromString(item.payload) for item in transaction.actions]
    except DecodeError as error:
        raise FormError(f"the gateway's transaction cannot be read: {error}") from None
    sent = wire.without_transient(asked.payload)
    if given.header != header or [action.chaincode_proposal_payload for action in actions] != [sent]:
        raise FormError(f"the gateway gave back another transaction than {proposal.transaction_id}; it was not signed")


def _signed(proposal: Proposal) -> proposal_pb2.SignedProposal:
    return proposal_pb2.SignedProposal(proposal_bytes=proposal.message, signature=proposal.require_signature())
