"""The messages of a transaction, built and taken apart; pure functions. Used by `gateway`, and by a peer that speaks the protocol.

Sources: peer/proposal.proto, peer/transaction.proto, common/common.proto. Hashes are SHA-256.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric.errors import FormError

NONCE_BYTES = 24
Clock = Callable[[], float]
"""Unix seconds, for the time a transaction names."""
Nonce = Callable[[int], bytes]


@dataclass(frozen=True)
class Call:
    """What is asked of a chaincode.

    Attributes:
        transient: data the chaincode may read, that is never ordered.
        organisations: MSP ids that are to endorse, or of whose peers one may evaluate; empty: as the policy asks.
    """

    channel: str
    chaincode: str
    arguments: tuple[bytes, ...]
    transient: Mapping[str, bytes] | None = None
    organisations: tuple[str, ...] = ()


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """hex(SHA-256(nonce ‖ serialized identity))."""
    return sha256(nonce + creator).hexdigest()


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


def proposal(call: Call, creator: bytes, nonce: bytes, now: float) -> tuple[str, bytes]:
    """(transaction id, protos.Proposal)."""
    txid = transaction_id(nonce, creator)
    extension = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_pb2.ChaincodeID(name=call.chaincode))
    channel = channel_header(common_pb2.ENDORSER_TRANSACTION, call.channel, txid, now)
    channel.extension = extension.SerializeToString()
    header = common_pb2.Header(
        channel_header=channel.SerializeToString(),
        signature_header=common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString(),
    )
    spec = chaincode_pb2.ChaincodeSpec(
        type=chaincode_pb2.ChaincodeSpec.NODE,  # any but undefined; Fabric does not look at the language here
        chaincode_id=chaincode_pb2.ChaincodeID(name=call.chaincode),
        input=chaincode_pb2.ChaincodeInput(args=call.arguments),
    )
    payload = proposal_pb2.ChaincodeProposalPayload(
        input=chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec).SerializeToString(),
        TransientMap=dict(call.transient or {}),
    )
    message = proposal_pb2.Proposal(header=header.SerializeToString(), payload=payload.SerializeToString())
    return txid, bytes(message.SerializeToString())


def channel_header(kind: int, channel: str, txid: str, now: float) -> common_pb2.ChannelHeader:
    """A channel header of this type at unix time `now`."""
    header = common_pb2.ChannelHeader(type=kind, channel_id=channel, tx_id=txid)
    header.timestamp.seconds = int(now)
    header.timestamp.nanos = int((now - int(now)) * 1_000_000_000)
    return header


def seek_payload(
    channel: str, creator: bytes, nonce: bytes, start: int, stop: int | None, tls_hash: bytes = b""
) -> bytes:
    """The payload of a signed request for blocks `start` to `stop`, both included.

    Args:
        stop: None: on and on.
        tls_hash: SHA-256 of the client's TLS certificate (DER), where it has one.

    The time is the machine's: a peer compares it with its own.
    """
    info = ab_pb2.SeekInfo(behavior=ab_pb2.SeekInfo.BLOCK_UNTIL_READY)
    info.start.specified.number = start
    info.stop.specified.number = 2**64 - 1 if stop is None else stop
    header = channel_header(common_pb2.DELIVER_SEEK_INFO, channel, "", time.time())
    header.tls_cert_hash = tls_hash
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=header.SerializeToString(),
            signature_header=common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString(),
        ),
        data=info.SerializeToString(),
    )
    return bytes(payload.SerializeToString())


def prepare(proposal_bytes: bytes, response_payload: bytes, endorsements: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The payload of a transaction made of a proposal and its endorsements, without the transient data.

    Args:
        endorsements: (serialized identity, signature) of each endorser.
    """
    message = proposal_pb2.Proposal.FromString(proposal_bytes)
    header = common_pb2.Header.FromString(message.header)
    action = transaction_pb2.ChaincodeActionPayload(
        chaincode_proposal_payload=without_transient(message.payload),
        action=transaction_pb2.ChaincodeEndorsedAction(
            proposal_response_payload=response_payload,
            endorsements=[
                proposal_response_pb2.Endorsement(endorser=endorser, signature=signature)
                for endorser, signature in endorsements
            ],
        ),
    )
    transaction = transaction_pb2.Transaction(
        actions=[transaction_pb2.TransactionAction(header=header.signature_header, payload=action.SerializeToString())]
    )
    payload = common_pb2.Payload(header=header, data=transaction.SerializeToString())
    return bytes(payload.SerializeToString())


def without_transient(payload: bytes) -> bytes:
    """A chaincode proposal payload as it goes on the ledger."""
    full = proposal_pb2.ChaincodeProposalPayload.FromString(payload)
    return bytes(proposal_pb2.ChaincodeProposalPayload(input=full.input).SerializeToString())


def proposal_hash(proposal_bytes: bytes) -> bytes:
    """What a proposal response names: the hash over channel header, signature header and payload without transient data."""
    message = proposal_pb2.Proposal.FromString(proposal_bytes)
    header = common_pb2.Header.FromString(message.header)
    return sha256(header.channel_header + header.signature_header + without_transient(message.payload)).digest()


def result_of(transaction_payload: bytes) -> bytes:
    """The chaincode's answer in the payload of a prepared transaction.

    Raises:
        FormError: it holds none.
    """
    try:
        payload = common_pb2.Payload.FromString(transaction_payload)
        transaction = transaction_pb2.Transaction.FromString(payload.data)
        action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        response = proposal_response_pb2.ProposalResponsePayload.FromString(action.action.proposal_response_payload)
        return bytes(proposal_pb2.ChaincodeAction.FromString(response.extension).response.payload)
    except (DecodeError, IndexError) as error:
        raise FormError(f"a prepared transaction cannot be read: {error}") from None


def transaction_id_of(transaction_payload: bytes) -> str:
    """The transaction id in a payload's channel header.

    Raises:
        FormError: it cannot be read.
    """
    try:
        header = common_pb2.Payload.FromString(transaction_payload).header
        return str(common_pb2.ChannelHeader.FromString(header.channel_header).tx_id)
    except DecodeError as error:
        raise FormError(f"a prepared transaction cannot be read: {error}") from None
