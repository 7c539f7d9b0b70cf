"""The peers and orderers as programs: their configuration, environment and how one sees that they are ready."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from infra.fabric.binaries import Binaries
from infra.fabric.crypto import admin_msp, node_folder, node_tls, organisation_folder
from infra.fabric.plan import Node, Plan
from infra.fabric.profiles import CHANNEL, Organisation
from infra.native import Program, listens

_HEALTH_S = 2.0
_STOP_S = 20.0
_MESSAGE_MAX = 100 * 1024 * 1024
_BUILDER = Path(__file__).parent / "builder"
_TIME_WINDOW = "876000h"
"""How far a transaction's time may be from the peer's: a century, since a replay of the city names times of years ago."""
_GARBAGE_PERCENT = "300"  # less CPU for collecting garbage, about 100 MB more memory a node under load
_LOG = "comm.grpc.server,endorser,gateway,grpc=warning:info"  # without a line or two for every transaction
_KNOWN = f'gossip_membership_total_peers_known{{channel="{CHANNEL}"}}'
_GOSSIP = {
    # Fabric's own intervals let cross-organisation endorsement fail for half a minute after a start.
    "RECONNECTINTERVAL": "2s",
    "PUBLISHSTATEINFOINTERVAL": "1s",
    "REQUESTSTATEINFOINTERVAL": "1s",
    "ALIVETIMEINTERVAL": "1s",
    "MEMBERSHIPTRACKERINTERVAL": "500ms",
    "ALIVEEXPIRATIONTIMEOUT": "8s",
}
_PRIVATE = {
    "pullRetryThreshold": "5s",
    "transientstoreMaxBlockRetention": 20_000,
    "pushAckTimeout": "3s",
    "btlPullMargin": 10,
    "reconcileBatchSize": 10,
    "reconcileSleepInterval": "10s",
    "reconciliationEnabled": True,
    "implicitCollectionDisseminationPolicy": {"requiredPeerCount": 0, "maxPeerCount": 1},
}


def prepare(plan: Plan, binaries: Binaries) -> None:
    """Writes what the programs read at start: `core.yaml`, the external builder, one `orderer.yaml` a node; and their names."""
    (plan.state / "core.yaml").write_text(yaml.safe_dump(_core(plan), sort_keys=False))
    shutil.copytree(_BUILDER, plan.state / "builder", dirs_exist_ok=True)
    for script in (plan.state / "builder" / "bin").iterdir():
        script.chmod(0o755)
    for node in plan.nodes:
        _name(plan, binaries, node)
    for node in plan.orderers:
        folder = data_folder(plan, node)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orderer.yaml").write_text(yaml.safe_dump(_orderer(plan, node), sort_keys=False))


def program(plan: Plan, node: Node) -> Program:
    """The node as a program for `infra.native`. Ready: it listens, and says so itself (`/healthz`)."""
    if node.is_peer:
        argv, env = [_named(plan, node), "node", "start"], _peer_environment(plan, node)
    else:
        argv, env = [_named(plan, node)], {"FABRIC_CFG_PATH": str(data_folder(plan, node))}
    logging = {"FABRIC_LOGGING_SPEC": _LOG, "FABRIC_LOGGING_FORMAT": "json"}
    return Program(
        node.name, argv, lambda: _serves(node), env={"GOGC": _GARBAGE_PERCENT, **logging, **env}, stop_s=_STOP_S
    )


def _named(plan: Plan, node: Node) -> str:
    """The node's program under its own name and this state folder, by which one tells whose process it is."""
    return str(plan.state / "bin" / node.name)


def _name(plan: Plan, binaries: Binaries, node: Node) -> None:
    link = Path(_named(plan, node))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(binaries.path("peer" if node.is_peer else "orderer"))


def _serves(node: Node) -> bool:
    """Healthy, and listening where callers and, for an orderer, administrators come: that is not one moment."""
    return is_healthy(node) and listens(node.port) and (node.is_peer or listens(node.admin_port))


def is_healthy(node: Node) -> bool:
    """Whether the node answers its health check; false while it does not listen."""
    url = f"http://127.0.0.1:{node.operations_port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=_HEALTH_S) as answer:
            return int(answer.status) == 200  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False


def known_peers(node: Node) -> int:
    """How many other peers of the channel a peer knows; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.operations_port}/metrics", timeout=_HEALTH_S) as answer:
            lines = answer.read().decode().splitlines()
    except (urllib.error.URLError, OSError):
        return 0
    return next((int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(_KNOWN)), 0)


def data_folder(plan: Plan, node: Node) -> Path:
    """Where a node keeps its blocks and state."""
    return plan.state / "nodes" / node.name


def admin_environment(plan: Plan, organisation: Organisation, peer: Node | None = None) -> dict[str, str]:
    """The environment in which the `peer` command acts as the organisation's administrator, on its own or another peer."""
    target = peer or plan.peer_of(organisation.name)
    return {
        "FABRIC_CFG_PATH": str(plan.state),
        "FABRIC_LOGGING_SPEC": "error",
        "CORE_PEER_LOCALMSPID": organisation.msp,
        "CORE_PEER_MSPCONFIGPATH": str(admin_msp(plan, organisation)),
        "CORE_PEER_ADDRESS": target.address,
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(node_tls(plan, target).roots),
    }


def _peer_environment(plan: Plan, node: Node) -> dict[str, str]:
    tls, data = node_tls(plan, node), data_folder(plan, node)
    return {
        "FABRIC_CFG_PATH": str(plan.state),
        "CORE_PEER_ID": node.name,
        "CORE_PEER_ADDRESS": node.address,
        "CORE_PEER_LISTENADDRESS": node.address,
        "CORE_PEER_CHAINCODELISTENADDRESS": f"127.0.0.1:{node.admin_port}",
        "CORE_PEER_LOCALMSPID": plan.organisation(node.organisation).msp,
        "CORE_PEER_MSPCONFIGPATH": str(node_folder(plan, node) / "msp"),
        "CORE_PEER_FILESYSTEMPATH": str(data),
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_CERT_FILE": str(tls.certificate),
        "CORE_PEER_TLS_KEY_FILE": str(tls.key),
        "CORE_PEER_TLS_ROOTCERT_FILE": str(tls.roots),
        "CORE_PEER_AUTHENTICATION_TIMEWINDOW": _TIME_WINDOW,
        "CORE_PEER_GOSSIP_BOOTSTRAP": node.address,
        "CORE_PEER_GOSSIP_EXTERNALENDPOINT": node.address,
        "CORE_OPERATIONS_LISTENADDRESS": f"127.0.0.1:{node.operations_port}",
        "CORE_LEDGER_SNAPSHOTS_ROOTDIR": str(data / "snapshots"),
        **{f"CORE_PEER_GOSSIP_{name}": value for name, value in _GOSSIP.items()},
    }


def _core(plan: Plan) -> dict[str, Any]:
    """What all peers share; what differs between them is in their environment."""
    return {
        "peer": {
            "networkId": "city",
            "BCCSP": {"Default": "SW", "SW": {"Hash": "SHA2", "Security": 256}},
            "gateway": {"enabled": True, "endorsementTimeout": "30s", "broadcastTimeout": "30s", "dialTimeout": "10s"},
            "keepalive": {"minInterval": "30s"},
            "gossip": {"useLeaderElection": False, "orgLeader": True, "state": {"enabled": False}, "pvtData": _PRIVATE},
            "deliveryclient": {"policy": "cluster", "blockGossipEnabled": False, "reConnectBackoffThreshold": "2s"},
            "handlers": {
                "authFilters": [{"name": "DefaultAuth"}, {"name": "ExpirationCheck"}, {"name": "TimeWindowCheck"}],
                "decorators": [{"name": "DefaultDecorator"}],
                "endorsers": {"escc": {"name": "DefaultEndorsement"}},
                "validators": {"vscc": {"name": "DefaultValidation"}},
            },
            "discovery": {
                "enabled": True,
                "authCacheEnabled": True,
                "authCacheMaxSize": 1000,
                "authCachePurgeRetentionRatio": 0.75,
            },
            "limits": {"concurrency": {"endorserService": 2500, "deliverService": 2500, "gatewayService": 2500}},
            "maxRecvMsgSize": _MESSAGE_MAX,
            "maxSendMsgSize": _MESSAGE_MAX,
        },
        "vm": {"endpoint": ""},  # no container engine: chaincode runs as a service of its own
        "chaincode": {
            "externalBuilders": [{"name": "ccaas", "path": str(plan.state / "builder")}],
            "installTimeout": "60s",
            "startuptimeout": "20s",
            "executetimeout": "30s",
            "mode": "net",
            "system": {"_lifecycle": "enable", "cscc": "enable", "lscc": "enable", "qscc": "enable"},
            "logging": {"level": "info", "shim": "warning"},
            "runtimeParams": {
                "useWriteBatch": True,
                "maxSizeWriteBatch": 1000,
                "useGetMultipleKeys": True,
                "maxSizeGetMultipleKeys": 1000,
            },
        },
        "ledger": {
            "state": {"stateDatabase": "goleveldb", "totalQueryLimit": 100_000},
            "history": {"enableHistoryDatabase": True},
            "pvtdataStore": {"purgeInterval": 100},
        },
        "metrics": {"provider": "prometheus"},
    }


def _orderer(plan: Plan, node: Node) -> dict[str, Any]:
    tls, data = node_tls(plan, node), data_folder(plan, node)
    organisation = plan.organisation(node.organisation)
    shown = {
        "Enabled": True,
        "PrivateKey": str(tls.key),
        "Certificate": str(tls.certificate),
        "RootCAs": [str(tls.roots)],
    }
    roots = [
        str(
            organisation_folder(plan, organisation, orderers=True)
            / "tlsca"
            / f"tlsca.{organisation.orderer_domain}-cert.pem"
        )
    ]
    return {
        "General": {
            "ListenAddress": "127.0.0.1",
            "ListenPort": node.port,
            "TLS": {**shown, "ClientAuthRequired": False},
            "Keepalive": {"ServerMinInterval": "30s"},
            "LocalMSPDir": str(node_folder(plan, node) / "msp"),
            "LocalMSPID": organisation.orderer_msp,
            "BootstrapMethod": "none",
        },
        "FileLedger": {"Location": str(data / "ledger")},
        "Operations": {"ListenAddress": f"127.0.0.1:{node.operations_port}"},
        "Metrics": {"Provider": "prometheus"},
        "Admin": {
            "ListenAddress": f"127.0.0.1:{node.admin_port}",
            "TLS": {**shown, "ClientAuthRequired": True, "ClientRootCAs": roots},
        },
        "ChannelParticipation": {"Enabled": True, "MaxRequestBodySize": "1 MB"},
        "Consensus": {"WALDir": str(data / "wal"), "SnapDir": str(data / "snapshots")},
    }
