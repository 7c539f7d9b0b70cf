"""The configuration of a channel: whose certificates are whose, and who orders. Read from a configuration block.

Used where something is verified away from the network. Source: common/configtx.proto, msp/msp_config.proto, orderer/configuration.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric.errors import FormError

CONSENSUS = frozenset({"etcdraft", "BFT"})
"""What Fabric's orderers run (3.x)."""


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation's MSP.

    Attributes:
        roots, intermediates: certificates of its authorities, PEM.
        peer_unit, orderer_unit: the organisational unit that marks a certificate as a peer's or orderer's; empty where units say nothing.
    """

    msp_id: str
    roots: tuple[bytes, ...]
    intermediates: tuple[bytes, ...]
    peer_unit: str
    orderer_unit: str


@dataclass(frozen=True, slots=True)
class Consenter:
    """One orderer of a BFT channel, which signs blocks by its number."""

    number: int
    msp_id: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class ChannelConfiguration:
    """What a channel is made of.

    Attributes:
        consensus: "etcdraft" or "BFT"; anything else is not Fabric.
        consenters: of a BFT channel.
    """

    members: tuple[Organisation, ...]
    orderers: tuple[Organisation, ...]
    consensus: str
    consenters: tuple[Consenter, ...]


def read_configuration(block: Any) -> ChannelConfiguration:
    """The configuration in a configuration block (common.Block).

    Raises:
        FormError: it is no configuration block.
    """
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[0]).payload)
        channel = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
        group = configtx_pb2.ConfigEnvelope.FromString(payload.data).config.channel_group
        if channel.type != common_pb2.CONFIG:
            raise FormError(f"block {block.header.number} holds no configuration of a channel")
        return _configuration(group)
    except (DecodeError, IndexError) as error:
        raise FormError(f"block {block.header.number} holds no configuration of a channel: {error}") from None


def _configuration(group: Any) -> ChannelConfiguration:
    orderer = group.groups["Orderer"]
    consensus = orderer_pb2.ConsensusType.FromString(orderer.values["ConsensusType"].value)
    mapping = configuration_pb2.Orderers.FromString(orderer.values["Orderers"].value)
    return ChannelConfiguration(
        members=_organisations(group.groups["Application"]),
        orderers=_organisations(orderer),
        consensus=str(consensus.type),
        consenters=tuple(
            Consenter(int(item.id), str(item.msp_id), bytes(item.identity)) for item in mapping.consenter_mapping
        ),
    )


def _organisations(group: Any) -> tuple[Organisation, ...]:
    found = [_organisation(item.values["MSP"].value) for item in group.groups.values()]
    return tuple(sorted(found, key=lambda item: item.msp_id))


def _organisation(value: bytes) -> Organisation:
    msp = msp_config_pb2.FabricMSPConfig.FromString(msp_config_pb2.MSPConfig.FromString(value).config)
    units = msp.fabric_node_ous
    return Organisation(
        msp_id=str(msp.name),
        roots=tuple(bytes(item) for item in msp.root_certs),
        intermediates=tuple(bytes(item) for item in msp.intermediate_certs),
        peer_unit=str(units.peer_ou_identifier.organizational_unit_identifier) if units.enable else "",
        orderer_unit=str(units.orderer_ou_identifier.organizational_unit_identifier) if units.enable else "",
    )
