"""The first block of the channel: `configtx.yaml` from the plan, made into a block by `configtxgen`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from fabric_protos.common import common_pb2, configtx_pb2

from infra.fabric.binaries import Binaries
from infra.fabric.crypto import node_folder, node_tls, organisation_folder
from infra.fabric.plan import Node, Plan
from infra.fabric.profiles import CHANNEL, Organisation

_PROFILE = "City"
BATCH_TIMEOUT = "200ms"


def make_genesis(plan: Plan, binaries: Binaries) -> None:
    """Writes the genesis block; nothing where it is there."""
    if plan.genesis().exists():
        return
    write_configtx(plan, plan.state)
    arguments = ["-profile", _PROFILE, "-channelID", CHANNEL, "-outputBlock", str(plan.genesis())]
    binaries.call("configtxgen", [*arguments, "-configPath", str(plan.state)])


def organisation_group(plan: Plan, binaries: Binaries, organisation: Organisation) -> Any:
    """An organisation of the plan as it stands in a channel's configuration (`common.ConfigGroup`).

    It is taken out of the first block of a channel that nobody joins, so that `configtxgen` alone knows how an MSP is written.
    """
    folder = plan.state / "joining"
    folder.mkdir(parents=True, exist_ok=True)
    block = folder / f"{organisation.name}.block"
    write_configtx(plan, folder)
    arguments = ["-profile", _PROFILE, "-channelID", "joining", "-outputBlock", str(block), "-configPath", str(folder)]
    binaries.call("configtxgen", arguments)
    return config_of(block.read_bytes()).channel_group.groups["Application"].groups[organisation.msp]


def config_of(block: bytes) -> Any:
    """The configuration (`common.Config`) in a configuration block."""
    envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    return configtx_pb2.ConfigEnvelope.FromString(payload.data).config


def write_configtx(plan: Plan, folder: Path) -> None:
    """`configtx.yaml` in this folder."""
    document = {"Profiles": {_PROFILE: _profile(plan)}}
    (folder / "configtx.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def _profile(plan: Plan) -> dict[str, Any]:
    return {
        "Policies": _group_policies("ANY Readers", "ANY Writers", "MAJORITY Admins"),
        "Capabilities": {"V3_0": True},
        "Orderer": _orderer(plan),
        "Application": {
            "Organizations": [_peer_organisation(plan, one) for one in plan.organisations],
            "Policies": {
                **_group_policies("ANY Readers", "ANY Writers", "MAJORITY Admins"),
                "LifecycleEndorsement": _meta("MAJORITY Endorsement"),
                "Endorsement": _meta("MAJORITY Endorsement"),
            },
            "Capabilities": {"V2_5": True},
        },
    }


def _orderer(plan: Plan) -> dict[str, Any]:
    runners = [one for one in plan.organisations if any(node.organisation == one.name for node in plan.orderers)]
    return {
        "OrdererType": plan.profile.consensus,
        "BatchTimeout": BATCH_TIMEOUT,
        "BatchSize": {"MaxMessageCount": 500, "AbsoluteMaxBytes": "10 MB", "PreferredMaxBytes": "2 MB"},
        "Organizations": [_orderer_organisation(plan, one) for one in runners],
        "Policies": {
            **_group_policies("ANY Readers", "ANY Writers", "MAJORITY Admins"),
            "BlockValidation": _meta("ANY Writers"),  # for BFT configtxgen computes it from the consenters
        },
        "Capabilities": {"V2_0": True},
        **(_bft(plan) if plan.profile.consensus == "BFT" else _raft(plan)),
    }


def _raft(plan: Plan) -> dict[str, Any]:
    consenters = [_consenter(plan, node) for node in plan.orderers]
    options = {
        "TickInterval": "250ms",
        "ElectionTick": 10,
        "HeartbeatTick": 1,
        "MaxInflightBlocks": 5,
        "SnapshotIntervalSize": "16 MB",
    }
    return {"EtcdRaft": {"Consenters": consenters, "Options": options}}


def _bft(plan: Plan) -> dict[str, Any]:
    """Time limits are shorter than Fabric's own (a minute until a dead leader is missed), long enough for a busy machine."""
    return {
        "ConsenterMapping": [
            {
                "ID": number,
                "MSPID": plan.organisation(node.organisation).orderer_msp,
                "Identity": str(_signing_certificate(plan, node)),
                **_consenter(plan, node),
            }
            for number, node in enumerate(plan.orderers, 1)
        ],
        "SmartBFT": {
            "RequestBatchMaxInterval": BATCH_TIMEOUT,
            "RequestForwardTimeout": "3s",
            "RequestComplainTimeout": "6s",
            "RequestAutoRemoveTimeout": "3m0s",
            "ViewChangeResendInterval": "3s",
            "ViewChangeTimeout": "12s",
            "LeaderHeartbeatTimeout": "8s",
            "LeaderHeartbeatCount": 10,
            "CollectTimeout": "1s",
            "IncomingMessageBufferSize": 200,
            "RequestPoolSize": 100_000,
        },
    }


def _consenter(plan: Plan, node: Node) -> dict[str, Any]:
    certificate = str(node_tls(plan, node).certificate)
    return {"Host": node.host, "Port": node.port, "ClientTLSCert": certificate, "ServerTLSCert": certificate}


def _signing_certificate(plan: Plan, node: Node) -> Path:
    return next((node_folder(plan, node) / "msp" / "signcerts").glob("*.pem"))


def _peer_organisation(plan: Plan, organisation: Organisation) -> dict[str, Any]:
    msp = organisation.msp
    anchors = [node for node in plan.peers if node.organisation == organisation.name]
    return {
        "Name": msp,
        "ID": msp,
        "MSPDir": str(organisation_folder(plan, organisation) / "msp"),
        "Policies": {
            "Readers": _signature(f"OR('{msp}.member')"),
            "Writers": _signature(f"OR('{msp}.client', '{msp}.admin')"),
            "Admins": _signature(f"OR('{msp}.admin')"),
            "Endorsement": _signature(f"OR('{msp}.peer')"),
        },
        "AnchorPeers": [{"Host": node.host, "Port": node.port} for node in anchors],
    }


def _orderer_organisation(plan: Plan, organisation: Organisation) -> dict[str, Any]:
    msp = organisation.orderer_msp
    return {
        "Name": msp,
        "ID": msp,
        "MSPDir": str(organisation_folder(plan, organisation, orderers=True) / "msp"),
        "Policies": {
            "Readers": _signature(f"OR('{msp}.member')"),
            "Writers": _signature(f"OR('{msp}.member')"),
            "Admins": _signature(f"OR('{msp}.admin')"),
        },
        "OrdererEndpoints": [node.address for node in plan.orderers if node.organisation == organisation.name],
    }


def _group_policies(readers: str, writers: str, admins: str) -> dict[str, Any]:
    return {"Readers": _meta(readers), "Writers": _meta(writers), "Admins": _meta(admins)}


def _meta(rule: str) -> dict[str, str]:
    return {"Type": "ImplicitMeta", "Rule": rule}


def _signature(rule: str) -> dict[str, str]:
    return {"Type": "Signature", "Rule": rule}
