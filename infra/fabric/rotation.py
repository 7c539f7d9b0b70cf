"""Certificate rotation: a node gets a new key and new certificates from its organisation's CAs, and starts again with them.

A peer is rotated alone. An orderer's certificates are also written in the channel's configuration (its consenter), so a channel
update goes with the rotation. The files before are kept beside the new ones until the node is back.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import configuration_pb2, policies_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_configuration

from infra.fabric.channel_update import update_channel
from infra.fabric.crypto import issue, node_folder, organisation_folder, tls_extensions, write_key
from infra.fabric.network import Network, wait_until
from infra.fabric.plan import Node, Plan

_DAYS = 365


def rotate(network: Network, name: str, *, valid: timedelta = timedelta(days=_DAYS)) -> None:
    """Gives a node a new key and new certificates, for signing and for TLS, and starts it with them.

    Raises:
        CommandFailed: the orderers refuse the update of an orderer's consenter.
        EnvironmentFault: the node does not come back.
    """
    node = network.plan.node(name)
    before, after = _files(network.plan, node), renew(network.plan, node, valid)
    if not node.is_peer:
        _update_consenter(network, node, before, after)
        # It must know the update before it starts anew, or it does not find itself among the consenters.
        height = max(network.height(one) for one in network.plan.orderers)
        wait_until(lambda: network.height(node) >= height, f"{name} to have the update of its certificates")
    network.stop(name)
    swap(network.plan, node)
    network.start(name)
    if not node.is_peer:
        wait_until(lambda: network.orders(node), f"{name} to order again")


def certificates(plan: Plan, node: Node) -> dict[str, x509.Certificate]:
    """The node's certificates in force: `sign` and `tls`."""
    return {kind: x509.load_pem_x509_certificate(content) for kind, content in _files(plan, node).items()}


def renew(plan: Plan, node: Node, valid: timedelta) -> dict[str, bytes]:
    """Writes `msp.next` and `tls.next` beside the folders in force and returns the new certificates."""
    organisation = plan.organisation(node.organisation)
    authority = organisation_folder(plan, organisation, orderers=not node.is_peer)
    msp, tls = (_copied(node_folder(plan, node) / part) for part in ("msp", "tls"))
    _renew(_signing(msp), msp / "keystore" / "priv_sk", authority / "ca", valid)
    _renew(tls / "server.crt", tls / "server.key", authority / "tlsca", valid)
    return _files(plan, node, ".next")


def swap(plan: Plan, node: Node) -> None:
    """Puts what `renew` wrote in force; what was before stays beside it as `msp.before` and `tls.before`."""
    for part in ("msp", "tls"):
        folder = node_folder(plan, node) / part
        before = folder.with_name(f"{part}.before")
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
        folder.with_name(f"{part}.next").rename(folder)


def _files(plan: Plan, node: Node, suffix: str = "") -> dict[str, bytes]:
    folder = node_folder(plan, node)
    return {
        "sign": _signing(folder / f"msp{suffix}").read_bytes(),
        "tls": (folder / f"tls{suffix}" / "server.crt").read_bytes(),
    }


def _renew(certificate: Path, key: Path, ca: Path, valid: timedelta) -> None:
    """A new key, and a certificate with the subject and names of the one before."""
    before = x509.load_pem_x509_certificate(certificate.read_bytes())
    fresh = ec.generate_private_key(ec.SECP256R1())
    key.unlink()
    write_key(key, fresh)
    certificate.write_bytes(issue(ca, before.subject, fresh, valid=valid, extensions=_names(before)))


def _names(before: x509.Certificate) -> list[x509.ExtensionType]:
    """What makes it a TLS certificate; nothing for a signing certificate."""
    try:
        before.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        names = before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return tls_extensions(names)


def _copied(folder: Path) -> Path:
    following = folder.with_name(f"{folder.name}.next")
    shutil.rmtree(following, ignore_errors=True)
    shutil.copytree(folder, following)
    return following


def _signing(msp: Path) -> Path:
    return next((msp / "signcerts").glob("*.pem"))


def _update_consenter(network: Network, node: Node, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Puts an orderer's new certificates where the channel's configuration names the old ones."""

    def edit(config: Any) -> None:
        orderer = config.channel_group.groups["Orderer"]
        if network.plan.profile.consensus == "BFT":
            edit_bft(orderer, before, after)
        else:
            edit_raft(orderer, before, after)

    update_channel(network, edit, by_orderers=True)


def edit_raft(orderer: Any, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """In the metadata of Raft, which names the consenters' TLS certificates. `orderer` is the configuration's group."""
    value = orderer.values["ConsensusType"]
    kind = orderer_configuration.ConsensusType.FromString(value.value)
    metadata = raft_configuration.ConfigMetadata.FromString(kind.metadata)
    for consenter in metadata.consenters:
        if consenter.server_tls_cert == before["tls"]:
            consenter.server_tls_cert = consenter.client_tls_cert = after["tls"]
    kind.metadata = metadata.SerializeToString()
    value.value = kind.SerializeToString()


def edit_bft(orderer: Any, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """In the mapping of consenters, and in the policy of block signatures, which names the consenters' identities."""
    value = orderer.values["Orderers"]
    found = configuration_pb2.Orderers.FromString(value.value)
    for consenter in found.consenter_mapping:
        if consenter.server_tls_cert == before["tls"]:
            consenter.server_tls_cert = consenter.client_tls_cert = after["tls"]
            consenter.identity = after["sign"]
    value.value = found.SerializeToString()
    policy = orderer.policies["BlockValidation"].policy
    signatures = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value)
    for principal in signatures.identities:
        identity = identities_pb2.SerializedIdentity.FromString(principal.principal)
        if identity.id_bytes == before["sign"]:
            identity.id_bytes = after["sign"]
            principal.principal = identity.SerializeToString()
    policy.value = signatures.SerializeToString()
