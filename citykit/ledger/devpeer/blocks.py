"""Blocks as Fabric makes them: hashes, the orderer's signature, the transaction filter, and the first block.

Header hash: SHA-256 over the ASN.1 SEQUENCE {INTEGER number, OCTET STRING previous, OCTET STRING data}. Data hash: SHA-256 over the
envelopes, one after another. The orderer signs metadata value, its signature header and the header's ASN.1 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2

from citykit.ledger.devpeer.members import Members, NotMember, Signer
from citykit.ledger.devpeer.specification import KIND
from citykit.ledger.port import LedgerDamaged

_LONG = 0x80
SIGNATURES, LAST_CONFIG, FILTER, ORDERER, COMMIT_HASH = range(5)


def header_bytes(header: common_pb2.BlockHeader) -> bytes:
    """The ASN.1 form of a header (DER)."""
    number = int(header.number)
    integer = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return _tag(0x30, _tag(0x02, integer) + _tag(0x04, header.previous_hash) + _tag(0x04, header.data_hash))


def header_hash(header: common_pb2.BlockHeader) -> bytes:
    return sha256(header_bytes(header)).digest()


def data_hash(envelopes: Sequence[bytes]) -> bytes:
    return sha256(b"".join(envelopes)).digest()


def make_block(
    orderer: Signer, nonce: bytes, number: int, previous: bytes, envelopes: Sequence[bytes], codes: Sequence[int]
) -> common_pb2.Block:
    """A signed block. `codes` are the validation codes, one for each envelope."""
    header = common_pb2.BlockHeader(number=number, previous_hash=previous, data_hash=data_hash(envelopes))
    value = common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=0)).SerializeToString()
    signed_header = common_pb2.SignatureHeader(creator=orderer.serialized, nonce=nonce).SerializeToString()
    signature = orderer.sign(value + signed_header + header_bytes(header))
    signatures = common_pb2.Metadata(value=value)
    signatures.signatures.add(signature_header=signed_header, signature=signature)
    metadata = [signatures.SerializeToString(), b"", bytes(codes), b"", b""]
    return common_pb2.Block(
        header=header,
        data=common_pb2.BlockData(data=envelopes),
        metadata=common_pb2.BlockMetadata(metadata=metadata),
    )


def check_block(block: common_pb2.Block, number: int, previous: bytes, members: Members) -> None:
    """That a stored block is the next one, whole and signed by the orderer.

    Raises:
        LedgerDamaged: naming the block.
    """
    if block.header.number != number or block.header.previous_hash != previous:
        raise LedgerDamaged(f"block {number} does not follow the one before it")
    if block.header.data_hash != data_hash(block.data.data):
        raise LedgerDamaged(f"block {number}: its transactions are not those that were ordered")
    if len(block.metadata.metadata[FILTER]) != len(block.data.data):
        raise LedgerDamaged(f"block {number}: not one validation code for each transaction")
    try:
        _check_signature(block, members)
    except (NotMember, IndexError) as error:
        raise LedgerDamaged(f"block {number}: the orderer's signature does not hold ({error})") from None


def first_envelope(
    channel: str, members: Mapping[str, bytes], orderers: Mapping[str, bytes], time: tuple[int, int]
) -> bytes:
    """The configuration transaction of block 0: MSP id -> authority (PEM) of the organisations and of the orderer.

    Its consensus type is `development-peer`, by which anybody who reads the channel sees that it is not Fabric.
    """
    config = configtx_pb2.Config()
    groups = config.channel_group.groups
    for group, authorities in (("Application", members), ("Orderer", orderers)):
        for msp_id, authority in authorities.items():
            groups[group].groups[msp_id].values["MSP"].value = _msp(msp_id, authority)
    consensus = configuration_pb2.ConsensusType(type=KIND).SerializeToString()
    groups["Orderer"].values["ConsensusType"].value = consensus
    head = common_pb2.ChannelHeader(type=common_pb2.CONFIG, channel_id=channel)
    head.timestamp.seconds, head.timestamp.nanos = time
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=head.SerializeToString()),
        data=configtx_pb2.ConfigEnvelope(config=config).SerializeToString(deterministic=True),
    )
    return bytes(common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString())


def _msp(msp_id: str, authority: bytes) -> bytes:
    msp = msp_config_pb2.FabricMSPConfig(name=msp_id, root_certs=[authority])
    msp.fabric_node_ous.enable = True
    for role in ("client", "peer", "admin", "orderer"):
        unit = getattr(msp.fabric_node_ous, f"{role}_ou_identifier")
        unit.organizational_unit_identifier = role
    return bytes(msp_config_pb2.MSPConfig(config=msp.SerializeToString()).SerializeToString())


def _check_signature(block: common_pb2.Block, members: Members) -> None:
    signatures = common_pb2.Metadata.FromString(block.metadata.metadata[SIGNATURES])
    one = signatures.signatures[0]
    creator = common_pb2.SignatureHeader.FromString(one.signature_header).creator
    message = signatures.value + one.signature_header + header_bytes(block.header)
    if members.signed_before(creator, message, one.signature).role != "orderer":
        raise NotMember("it is not an orderer's")


def _tag(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _LONG:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG | len(length)]) + length + content
