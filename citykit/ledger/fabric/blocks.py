"""Blocks: their hashes, and what is in them as plain values. Used by block events, by channel configuration, and by peers.

Sources: common/common.proto, peer/transaction.proto; a block's hash is SHA-256 over the ASN.1 DER of SEQUENCE {number INTEGER,
previous hash OCTET STRING, data hash OCTET STRING}, the data hash SHA-256 over the concatenated envelopes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric.errors import BlockDamaged, FormError

ENDORSED = 3
"""Type of an endorser transaction (common.HeaderType)."""
NOT_VALIDATED = 254


@dataclass(frozen=True, slots=True)
class ChaincodeEvent:
    """An event a chaincode set.

    Attributes:
        index: the transaction's place in its block; -1 where the source does not tell.
    """

    chaincode: str
    transaction_id: str
    name: str
    payload: bytes
    block: int
    index: int = -1


@dataclass(frozen=True, slots=True)
class Call:
    """What an endorsed transaction did.

    Attributes:
        result: what the chaincode answered.
        event: (name, payload), where it set one.
        endorsers: MSP ids, in order.
        writes: namespaces that were written.
    """

    chaincode: str
    arguments: tuple[bytes, ...]
    status: int
    result: bytes
    event: tuple[str, bytes] | None
    endorsers: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transaction:
    """One envelope of a block.

    Attributes:
        kind: common.HeaderType; 3 is an endorsed transaction, 1 a configuration.
        code: protos.TxValidationCode; 0 is valid, 254 where the block does not say.
        time: unix seconds the client named.
        creator: (MSP id, certificate PEM) of who made it.
        call: None unless it is an endorsed transaction.
    """

    transaction_id: str
    kind: int
    code: int
    time: int
    creator: tuple[str, bytes]
    call: Call | None
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A block.

    Attributes:
        message: common.Block as it came.
        private: index of a transaction -> rwset.TxPvtReadWriteSet, of the collections the reader's organisation is in; where asked for.
    """

    number: int
    previous_hash: bytes
    data_hash: bytes
    transactions: tuple[Transaction, ...]
    message: Any
    private: Mapping[int, Any] = field(default_factory=dict)

    def events(self) -> list[ChaincodeEvent]:
        """The chaincode events of valid transactions, in order."""
        return [
            ChaincodeEvent(call.chaincode, item.transaction_id, *call.event, self.number, index)
            for index, item in enumerate(self.transactions)
            if item.code == 0 and (call := item.call) is not None and call.event is not None
        ]


def header_bytes(number: int, previous_hash: bytes, data_hash: bytes) -> bytes:
    """The ASN.1 DER of a block's header: what its hash and its signatures are over."""
    integer = number.to_bytes(number.bit_length() // 8 + 1, "big")
    body = _der(0x02, integer) + _der(0x04, previous_hash) + _der(0x04, data_hash)
    return _der(0x30, body)


def header_hash(number: int, previous_hash: bytes, data_hash: bytes) -> bytes:
    """A block's hash, as the next one names it."""
    return sha256(header_bytes(number, previous_hash, data_hash)).digest()


def data_hash(envelopes: list[bytes]) -> bytes:
    return sha256(b"".join(envelopes)).digest()


def parse_block(message: Any) -> Block:
    """A block's content.

    Raises:
        FormError: naming the block and the transaction.
    """
    codes = _codes(message)
    number = int(message.header.number)
    transactions = []
    for index, data in enumerate(message.data.data):
        try:
            code = codes[index] if index < len(codes) else NOT_VALIDATED
            transactions.append(parse_envelope(bytes(data), code))
        except (DecodeError, IndexError) as error:
            raise FormError(f"transaction {index} of block {number} cannot be read: {error}") from None
    header = message.header
    return Block(number, bytes(header.previous_hash), bytes(header.data_hash), tuple(transactions), message)


def parse_envelope(data: bytes, code: int) -> Transaction:
    """One envelope's content. Raises DecodeError or IndexError."""
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
    channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    creator = identities_pb2.SerializedIdentity.FromString(
        common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
    )
    call = _call(payload.data) if channel.type == ENDORSED else None
    who = (str(creator.mspid), bytes(creator.id_bytes))
    return Transaction(channel.tx_id, channel.type, code, channel.timestamp.seconds, who, call, data)


def require_follows(block: Block, before: Block | None) -> None:
    """Raises BlockDamaged unless a block's content is what its header says, and it follows the one before, where that is known."""
    if data_hash([item.envelope for item in block.transactions]) != block.data_hash:
        raise BlockDamaged(f"the content of block {block.number} is not what its header says")
    if before is None:
        return
    if block.previous_hash != header_hash(before.number, before.previous_hash, before.data_hash):
        raise BlockDamaged(f"block {block.number} does not follow block {before.number}: it names another hash")


def last_config(message: Any) -> int:
    """Number of the block that holds the configuration a block was made under.

    Raises:
        FormError: the block does not say.
    """
    try:
        signatures = common_pb2.Metadata.FromString(message.metadata.metadata[common_pb2.SIGNATURES])
        return int(common_pb2.OrdererBlockMetadata.FromString(signatures.value).last_config.index)
    except (DecodeError, IndexError):
        raise FormError(f"block {message.header.number} does not name its configuration") from None


def _call(data: bytes) -> Call:
    transaction = transaction_pb2.Transaction.FromString(data)
    payload = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    asked = proposal_pb2.ChaincodeProposalPayload.FromString(payload.chaincode_proposal_payload)
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(asked.input).chaincode_spec
    response = proposal_response_pb2.ProposalResponsePayload.FromString(payload.action.proposal_response_payload)
    action = proposal_pb2.ChaincodeAction.FromString(response.extension)
    endorsers = [
        identities_pb2.SerializedIdentity.FromString(item.endorser).mspid for item in payload.action.endorsements
    ]
    written = rwset_pb2.TxReadWriteSet.FromString(action.results)
    return Call(
        chaincode=str(action.chaincode_id.name or spec.chaincode_id.name),
        arguments=tuple(bytes(item) for item in spec.input.args),
        status=int(action.response.status),
        result=bytes(action.response.payload),
        event=_event(action.events),
        endorsers=tuple(str(name) for name in endorsers),
        writes=tuple(str(item.namespace) for item in written.ns_rwset),
    )


def _event(data: bytes) -> tuple[str, bytes] | None:
    if not data:
        return None
    event = chaincode_event_pb2.ChaincodeEvent.FromString(data)
    return (str(event.event_name), bytes(event.payload)) if event.event_name else None


def _codes(message: Any) -> bytes:
    place = common_pb2.TRANSACTIONS_FILTER
    metadata = message.metadata.metadata
    return bytes(metadata[place]) if len(metadata) > place else b""


def _der(tag: int, content: bytes) -> bytes:
    """One DER value of a definite length (X.690, 8.1)."""
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - the short form of a length
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
