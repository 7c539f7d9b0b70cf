"""Fabric's messages taken apart and checked for form: proposals and transactions. Who signed is `members`' business.

Sources: Fabric's protocol messages (peer/proposal.proto, peer/transaction.proto, common/common.proto).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from citykit.errors import InvalidArgument


class Malformed(InvalidArgument):
    """A message that is not of its form.

    Attributes:
        validation_code: what a transaction gets for it.
    """

    default_reason = "malformed"

    def __init__(self, message: str, code: int = transaction_pb2.BAD_PAYLOAD) -> None:
        super().__init__(message)
        self.validation_code = code


@dataclass(frozen=True)
class Headers:
    """The header of a proposal or transaction.

    Attributes:
        time: (seconds, nanoseconds) the client wrote.
        raw_channel, raw_signature: the bytes that are hashed and signed.
    """

    kind: int
    channel: str
    transaction: str
    time: tuple[int, int]
    chaincode: str
    creator: bytes
    nonce: bytes
    tls_hash: bytes
    raw_channel: bytes
    raw_signature: bytes


@dataclass(frozen=True)
class Proposal:
    """A proposal to run a chaincode."""

    headers: Headers
    chaincode: str
    input: chaincode_pb2.ChaincodeInput
    transient: Mapping[str, bytes]
    hash: bytes
    """SHA-256 over channel header, signature header and the payload without transient data."""
    payload: bytes
    """The payload without transient data, as it goes into the transaction."""
    signed: proposal_pb2.SignedProposal


@dataclass(frozen=True)
class Transaction:
    """An endorsed transaction in an envelope."""

    headers: Headers
    envelope: bytes
    payload: bytes
    signature: bytes
    response_payload: bytes
    """What the endorsers signed, before their identity."""
    endorsements: tuple[tuple[bytes, bytes], ...]
    """(endorser, signature)"""
    action: proposal_pb2.ChaincodeAction


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Fabric's transaction id: hex SHA-256 of nonce and creator."""
    return sha256(nonce + creator).hexdigest()


def read_headers(header: common_pb2.Header) -> Headers:
    """The two headers, decoded."""
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(channel.extension)
    return Headers(
        channel.type, channel.channel_id, channel.tx_id, (channel.timestamp.seconds, channel.timestamp.nanos),
        extension.chaincode_id.name, signature.creator, signature.nonce, channel.tls_cert_hash,
        header.channel_header, header.signature_header,
    )  # fmt: skip


def read_proposal(signed: proposal_pb2.SignedProposal) -> Proposal:
    """A signed proposal, of right form and with the right transaction id.

    Raises:
        Malformed: saying what is not.
    """
    try:
        proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
        headers = read_headers(common_pb2.Header.FromString(proposal.header))
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    except DecodeError:
        raise Malformed("a proposal does not decode; is it a protos.SignedProposal?") from None
    if not spec.chaincode_id.name or headers.chaincode != spec.chaincode_id.name:
        raise Malformed("a proposal names one chaincode, in its header and in its payload")
    check_headers(headers)
    kept = proposal_pb2.ChaincodeProposalPayload(input=payload.input).SerializeToString()
    digest = sha256(headers.raw_channel + headers.raw_signature + kept).digest()
    return Proposal(
        headers, spec.chaincode_id.name, spec.input, dict(payload.TransientMap), digest, kept, signed
    )  # fmt: skip


def check_headers(headers: Headers) -> None:
    """Type, nonce, creator and transaction id.

    Raises:
        Malformed: with the code a transaction gets for it.
    """
    if headers.kind != common_pb2.ENDORSER_TRANSACTION:
        raise Malformed("the header is not of type ENDORSER_TRANSACTION", transaction_pb2.UNKNOWN_TX_TYPE)
    if not headers.nonce or not headers.creator:
        raise Malformed("the signature header needs a nonce and a creator", transaction_pb2.BAD_COMMON_HEADER)
    expected = transaction_id(headers.nonce, headers.creator)
    if headers.transaction != expected:
        raise Malformed(
            f"incorrectly computed txid {headers.transaction!r}: it is sha256(nonce, creator), here {expected}",
            transaction_pb2.BAD_PROPOSAL_TXID,
        )


def read_transaction(envelope: common_pb2.Envelope) -> Transaction:
    """An endorsed transaction, of right form.

    Raises:
        Malformed: with its validation code.
    """
    try:
        payload = common_pb2.Payload.FromString(envelope.payload)
        headers = read_headers(payload.header)
        actions = transaction_pb2.Transaction.FromString(payload.data).actions
    except DecodeError:
        raise Malformed("an envelope does not decode") from None
    check_headers(headers)
    if len(actions) != 1 or actions[0].header != headers.raw_signature:
        raise Malformed(
            "a transaction has one action, under its own header", transaction_pb2.INVALID_ENDORSER_TRANSACTION
        )
    return _with_action(headers, envelope, actions[0].payload)


def _with_action(headers: Headers, envelope: common_pb2.Envelope, data: bytes) -> Transaction:
    try:
        content = transaction_pb2.ChaincodeActionPayload.FromString(data)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(content.action.proposal_response_payload)
        action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    except DecodeError:
        raise Malformed("a transaction's action does not decode", transaction_pb2.BAD_RESPONSE_PAYLOAD) from None
    digest = sha256(headers.raw_channel + headers.raw_signature + content.chaincode_proposal_payload).digest()
    if response.proposal_hash != digest:
        raise Malformed("the endorsed proposal is another", transaction_pb2.INVALID_ENDORSER_TRANSACTION)
    if action.chaincode_id.name != headers.chaincode:
        raise Malformed("the endorsed chaincode is another", transaction_pb2.INVALID_CHAINCODE)
    endorsements = tuple((one.endorser, one.signature) for one in content.action.endorsements)
    return Transaction(
        headers, envelope.SerializeToString(), envelope.payload, envelope.signature,
        content.action.proposal_response_payload, endorsements, action,
    )  # fmt: skip


def prepared(
    proposal: Proposal, response_payload: bytes, endorsements: list[tuple[bytes, bytes]]
) -> common_pb2.Envelope:
    """The unsigned envelope a gateway gives back for the client to sign."""
    action = transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=response_payload)
    for endorser, signature in endorsements:
        action.endorsements.add(endorser=endorser, signature=signature)
    content = transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload, action=action)
    headers = proposal.headers
    transaction = transaction_pb2.Transaction()
    transaction.actions.add(header=headers.raw_signature, payload=content.SerializeToString())
    header = common_pb2.Header(channel_header=headers.raw_channel, signature_header=headers.raw_signature)
    payload = common_pb2.Payload(header=header, data=transaction.SerializeToString())
    return common_pb2.Envelope(payload=payload.SerializeToString())
