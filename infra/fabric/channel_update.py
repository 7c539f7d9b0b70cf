"""Changes of the channel's configuration: the difference between two configurations, signed by each organisation's administrator.

The rules of the difference are those of a configuration update (`common/configtx.proto`): the read set names what it builds on, the
write set what changes, and the version of each changed item grows by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2
from google.protobuf.message import Message

from citykit.errors import FailedPrecondition, InvalidArgument
from infra.fabric.crypto import admin_msp, node_tls
from infra.fabric.genesis import config_of
from infra.fabric.network import Network
from infra.fabric.nodes import admin_environment, is_healthy
from infra.fabric.profiles import CHANNEL, Organisation

_TIME = re.compile(r"[1-9][0-9]{0,4}(ms|s)")
Edit = Callable[[Any], None]
"""Changes a `common.Config` in place."""


def current_config(network: Network) -> Any:
    """The channel's configuration in force (`common.Config`)."""
    path = _folder(network) / "config.block"
    peer = network.plan.peers[0]
    network.peer(peer, "channel", "fetch", "config", str(path), "-c", CHANNEL, *_orderer(network))
    return config_of(path.read_bytes())


def update_channel(network: Network, edit: Edit, *, by_orderers: bool = False) -> None:
    """Changes the channel's configuration.

    Args:
        edit: changes a copy of the configuration in force.
        by_orderers: sign as administrators of the ordering organisations, which what orders blocks needs.

    Raises:
        FailedPrecondition: the edit changes nothing.
        CommandFailed: the orderers refuse it.
    """
    before = current_config(network)
    after = configtx_pb2.Config()
    after.CopyFrom(before)
    edit(after)
    path = _folder(network) / "update.tx"
    path.write_bytes(update_envelope(CHANNEL, before, after))
    signers = _signers(network, by_orderers)
    for env in signers[1:]:
        network.binaries.call("peer", ["channel", "signconfigtx", "-f", str(path)], env=env)
    submit = ["channel", "update", "-f", str(path), "-c", CHANNEL, *_orderer(network)]
    network.binaries.call("peer", submit, env=signers[0])


def set_batch_timeout(network: Network, timeout: str) -> None:
    """Changes how long a block waits for company, such as `500ms`.

    Raises:
        InvalidArgument: no such time.
    """
    if not _TIME.fullmatch(timeout):
        raise InvalidArgument(f"{timeout!r} is no time: a whole number with ms or s, such as 200ms", field="time")

    def edit(config: Any) -> None:
        value = config.channel_group.groups["Orderer"].values["BatchTimeout"]
        value.value = configuration_pb2.BatchTimeout(timeout=timeout).SerializeToString()

    update_channel(network, edit, by_orderers=True)


def batch_timeout(network: Network) -> str:
    """The batch timeout in force."""
    value = current_config(network).channel_group.groups["Orderer"].values["BatchTimeout"].value
    return str(configuration_pb2.BatchTimeout.FromString(value).timeout)


def update_envelope(channel: str, before: Any, after: Any) -> bytes:
    """The unsigned envelope of a configuration update from `before` to `after`, as `peer channel signconfigtx` takes it.

    Raises:
        FailedPrecondition: they are the same.
    """
    update = config_update(channel, before, after)
    header = common_pb2.ChannelHeader(channel_id=channel, type=common_pb2.HeaderType.CONFIG_UPDATE)
    data = configtx_pb2.ConfigUpdateEnvelope(config_update=update.SerializeToString())
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=header.SerializeToString()), data=data.SerializeToString()
    )
    return bytes(common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString())


def config_update(channel: str, before: Any, after: Any) -> Any:
    """The `common.ConfigUpdate` from `before` to `after`.

    Raises:
        FailedPrecondition: they are the same.
    """
    update = configtx_pb2.ConfigUpdate(channel_id=channel)
    changed = _group(before.channel_group, after.channel_group, update.read_set, update.write_set)
    if not changed:
        raise FailedPrecondition("the channel's configuration is so already; nothing to update")
    return update


def _group(before: Any, after: Any, reads: Any, writes: Any) -> bool:
    """Fills both sets for one group; true where something in it, or below it, changes."""
    reads.version = writes.version = before.version
    members = _members_differ(before, after)
    changed = before.mod_policy != after.mod_policy or members
    for kind in ("values", "policies"):
        changed |= _items(
            getattr(before, kind), getattr(after, kind), getattr(reads, kind), getattr(writes, kind), members
        )
    changed |= _groups(before, after, reads, writes, members)
    if members or before.mod_policy != after.mod_policy:
        writes.version = before.version + 1
        writes.mod_policy = after.mod_policy
    return changed


def _groups(before: Any, after: Any, reads: Any, writes: Any, members: bool) -> bool:
    changed = False
    for name in sorted(after.groups):
        if name not in before.groups:
            _as_new(after.groups[name], writes.groups[name])
            changed = True
            continue
        read, write = configtx_pb2.ConfigGroup(), configtx_pb2.ConfigGroup()
        below = _group(before.groups[name], after.groups[name], read, write)
        if below or members:
            reads.groups[name].CopyFrom(read)
            writes.groups[name].CopyFrom(write)
        changed |= below
    return changed


def _items(before: Any, after: Any, reads: Any, writes: Any, members: bool) -> bool:
    """Values or policies: what changed goes into the write set; where the membership changes, so does a mention of the rest."""
    changed = False
    for name in sorted(after):
        if name in before and _same(before[name], after[name]):
            if members:
                reads[name].version = writes[name].version = before[name].version
            continue
        writes[name].CopyFrom(after[name])
        writes[name].version = before[name].version + 1 if name in before else 0
        changed = True
    return changed


def _as_new(group: Any, write: Any) -> None:
    """A group that was not there: all its parts at version 0."""
    write.CopyFrom(group)
    write.version = 0
    for kind in ("values", "policies"):
        for item in getattr(write, kind).values():
            item.version = 0
    for name in write.groups:
        _as_new(group.groups[name], write.groups[name])


def _members_differ(before: Any, after: Any) -> bool:
    return any(set(getattr(before, kind)) != set(getattr(after, kind)) for kind in ("groups", "values", "policies"))


def _same(before: Message, after: Message) -> bool:
    return before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def _signers(network: Network, by_orderers: bool) -> list[dict[str, str]]:
    """The environments of the administrators that sign; the first one submits."""
    plan = network.plan
    signers = [admin_environment(plan, one) for one in plan.organisations]
    if not by_orderers:
        return signers
    runners = [one for one in plan.organisations if any(node.organisation == one.name for node in plan.orderers)]
    return [_orderer_admin(network, one) for one in runners]


def _orderer_admin(network: Network, organisation: Organisation) -> dict[str, str]:
    return {
        **admin_environment(network.plan, organisation),
        "CORE_PEER_LOCALMSPID": organisation.orderer_msp,
        "CORE_PEER_MSPCONFIGPATH": str(admin_msp(network.plan, organisation, orderers=True)),
    }


def _orderer(network: Network) -> list[str]:
    node = next((one for one in network.plan.orderers if is_healthy(one)), network.plan.orderers[0])
    return ["-o", node.address, "--tls", "--cafile", str(node_tls(network.plan, node).roots)]


def _folder(network: Network) -> Path:
    folder = network.plan.state / "updates"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
