"""The stages of a transaction as values: proposal, prepared transaction, submitted transaction, question after its commit.

Each has the bytes to sign and their digest, so that they can be signed elsewhere (a key that never leaves its holder), and a byte form
to carry them there. Made by `gateway.Gateway`. Source: gateway/gateway.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric import wire
from citykit.ledger.fabric.errors import FormError, IdentityError


class _Signable:
    """What is signed: `message` whole (Ed25519), or its `digest` (ECDSA)."""

    message: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`."""
        return sha256(self.message).digest()

    def signed(self, signature: bytes) -> Self:
        """The same with its signature: DER with low S, or Ed25519's 64 bytes."""
        return replace(self, signature=signature)  # type: ignore[type-var] # each is a frozen dataclass

    def require_signature(self) -> bytes:
        """The signature.

        Raises:
            IdentityError: it was not signed.
        """
        if not self.signature:
            raise IdentityError(f"the {type(self).__name__.lower()} is not signed; give the signature to `signed`")
        return self.signature


@dataclass(frozen=True)
class Proposal(_Signable):
    """A call that asks for endorsement or evaluation. `message` is protos.Proposal."""

    transaction_id: str
    channel: str
    message: bytes
    organisations: tuple[str, ...] = ()
    signature: bytes = b""

    def to_bytes(self) -> bytes:
        """gateway.ProposedTransaction."""
        signed = proposal_pb2.SignedProposal(proposal_bytes=self.message, signature=self.signature)
        message = gateway_pb2.ProposedTransaction(
            transaction_id=self.transaction_id, proposal=signed, endorsing_organizations=self.organisations
        )
        return bytes(message.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes) -> Proposal:
        """Raises FormError where the bytes are none."""
        try:
            proposed = gateway_pb2.ProposedTransaction.FromString(data)
            message = bytes(proposed.proposal.proposal_bytes)
            header = common_pb2.Header.FromString(proposal_pb2.Proposal.FromString(message).header)
            channel = common_pb2.ChannelHeader.FromString(header.channel_header)
        except DecodeError as error:
            raise FormError(f"these bytes are no proposal: {error}") from None
        organisations = tuple(proposed.endorsing_organizations)
        return cls(channel.tx_id, channel.channel_id, message, organisations, bytes(proposed.proposal.signature))


@dataclass(frozen=True)
class Prepared(_Signable):
    """An endorsed transaction, ready to be ordered. `message` is common.Payload."""

    transaction_id: str
    channel: str
    message: bytes
    signature: bytes = b""

    @property
    def result(self) -> bytes:
        """What the chaincode answered when it was endorsed. It counts once the transaction is committed as valid."""
        return wire.result_of(self.message)

    def to_bytes(self) -> bytes:
        """gateway.PreparedTransaction."""
        envelope = common_pb2.Envelope(payload=self.message, signature=self.signature)
        message = gateway_pb2.PreparedTransaction(transaction_id=self.transaction_id, envelope=envelope)
        return bytes(message.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes) -> Prepared:
        """Raises FormError where the bytes are none."""
        try:
            prepared = gateway_pb2.PreparedTransaction.FromString(data)
            message = bytes(prepared.envelope.payload)
            header = common_pb2.Payload.FromString(message).header
            channel = common_pb2.ChannelHeader.FromString(header.channel_header)
        except DecodeError as error:
            raise FormError(f"these bytes are no prepared transaction: {error}") from None
        return cls(channel.tx_id, channel.channel_id, message, bytes(prepared.envelope.signature))


@dataclass(frozen=True)
class StatusQuestion(_Signable):
    """The question whether a transaction is committed. `message` is gateway.CommitStatusRequest."""

    transaction_id: str
    message: bytes
    signature: bytes = b""

    def to_bytes(self) -> bytes:
        """gateway.SignedCommitStatusRequest."""
        message = gateway_pb2.SignedCommitStatusRequest(request=self.message, signature=self.signature)
        return bytes(message.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes) -> StatusQuestion:
        """Raises FormError where the bytes are none."""
        try:
            signed = gateway_pb2.SignedCommitStatusRequest.FromString(data)
            request = gateway_pb2.CommitStatusRequest.FromString(signed.request)
        except DecodeError as error:
            raise FormError(f"these bytes ask for no commit status: {error}") from None
        return cls(request.transaction_id, bytes(signed.request), bytes(signed.signature))


@dataclass(frozen=True, slots=True)
class Commit:
    """How a transaction was committed.

    Attributes:
        index: its place in the block; -1 where it was asked for, since the gateway does not tell.
    """

    transaction_id: str
    code: int
    code_name: str
    block: int
    index: int = -1

    @property
    def valid(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Done:
    """A transaction committed as valid; `index` as in `Commit`."""

    transaction_id: str
    block: int
    result: bytes
    index: int = -1
