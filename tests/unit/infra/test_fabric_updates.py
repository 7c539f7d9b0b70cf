"""The difference between two channel configurations: versions, read and write sets (common/configtx.proto)."""

from __future__ import annotations

from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, policies_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.orderer.etcdraft import configuration_pb2 as raft_pb2

from citykit.errors import FailedPrecondition
from infra.fabric.channel_update import config_update, update_envelope
from infra.fabric.rotation import edit_bft, edit_raft


def config() -> Any:
    """Two groups with a value and a policy each, at various versions."""
    made = configtx_pb2.Config(sequence=3)
    root = made.channel_group
    root.version, root.mod_policy = 1, "Admins"
    for name, version in (("Orderer", 4), ("Application", 5)):
        group = root.groups[name]
        group.version, group.mod_policy = version, "Admins"
        group.values["Size"].value, group.values["Size"].version = b"1", 7
        group.policies["Admins"].mod_policy, group.policies["Admins"].version = "Admins", 2
    root.groups["Application"].groups["CityMSP"].version = 9
    return made


def changed(edit: Any) -> Any:
    before, after = config(), config()
    edit(after.channel_group)
    return config_update("city", before, after)


def test_a_changed_value_grows_by_one_and_nothing_else_is_written() -> None:
    def edit(root: Any) -> None:
        root.groups["Orderer"].values["Size"].value = b"2"

    update = changed(edit)
    written = update.write_set.groups["Orderer"]
    assert (written.values["Size"].value, written.values["Size"].version) == (b"2", 8)
    assert (written.version, update.read_set.groups["Orderer"].version) == (4, 4)
    assert list(update.write_set.groups) == ["Orderer"]
    assert list(written.policies) == []
    assert list(update.read_set.groups["Orderer"].values) == []


def test_a_changed_policy_grows_by_one() -> None:
    def edit(root: Any) -> None:
        root.groups["Orderer"].policies["Admins"].mod_policy = "Others"

    policy = changed(edit).write_set.groups["Orderer"].policies["Admins"]
    assert (policy.version, policy.mod_policy) == (3, "Others")


def test_a_new_member_changes_its_group_and_mentions_the_others() -> None:
    def edit(root: Any) -> None:
        member = root.groups["Application"].groups["CountyMSP"]
        member.version = 6
        member.values["MSP"].value, member.values["MSP"].version = b"msp", 6

    update = changed(edit)
    written, read = (one.groups["Application"] for one in (update.write_set, update.read_set))
    assert (read.version, written.version) == (5, 6)
    assert written.mod_policy == "Admins"
    assert (read.groups["CityMSP"].version, written.groups["CityMSP"].version) == (9, 9)
    assert (written.values["Size"].version, written.values["Size"].value) == (7, b"")
    assert written.policies["Admins"].version == 2
    new = written.groups["CountyMSP"]
    assert (new.version, new.values["MSP"].version, new.values["MSP"].value) == (0, 0, b"msp")
    assert "CountyMSP" not in read.groups


def test_a_member_that_leaves_changes_its_group() -> None:
    def edit(root: Any) -> None:
        del root.groups["Application"].groups["CityMSP"]

    update = changed(edit)
    assert update.write_set.groups["Application"].version == 6
    assert "CityMSP" not in update.write_set.groups["Application"].groups


def test_another_mod_policy_changes_the_group() -> None:
    def edit(root: Any) -> None:
        root.groups["Orderer"].mod_policy = "Others"

    written = changed(edit).write_set.groups["Orderer"]
    assert (written.version, written.mod_policy) == (5, "Others")


def test_no_change_is_no_update() -> None:
    with pytest.raises(FailedPrecondition, match="so already"):
        changed(lambda root: None)


def test_the_envelope_holds_the_update_for_its_channel() -> None:
    after = config()
    after.channel_group.groups["Orderer"].values["Size"].value = b"2"
    envelope = common_pb2.Envelope.FromString(update_envelope("city", config(), after))
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    assert (header.channel_id, header.type) == ("city", common_pb2.CONFIG_UPDATE)
    update = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data).config_update
    assert configtx_pb2.ConfigUpdate.FromString(update).channel_id == "city"


BEFORE = {"tls": b"tls 1", "sign": b"sign 1"}
AFTER = {"tls": b"tls 2", "sign": b"sign 2"}


def test_a_raft_consenter_gets_its_new_certificates_and_no_other_does() -> None:
    metadata = raft_pb2.ConfigMetadata()
    for content in (b"tls 1", b"tls of another"):
        metadata.consenters.add(server_tls_cert=content, client_tls_cert=content)
    group = configtx_pb2.ConfigGroup()
    kind = orderer_pb2.ConsensusType(type="etcdraft", metadata=metadata.SerializeToString())
    group.values["ConsensusType"].value = kind.SerializeToString()
    edit_raft(group, BEFORE, AFTER)
    written = orderer_pb2.ConsensusType.FromString(group.values["ConsensusType"].value)
    found = raft_pb2.ConfigMetadata.FromString(written.metadata).consenters
    assert [(one.server_tls_cert, one.client_tls_cert) for one in found] == [(b"tls 2",) * 2, (b"tls of another",) * 2]


def test_a_bft_consenter_gets_them_in_the_mapping_and_in_the_policy_of_block_signatures() -> None:
    group = configtx_pb2.ConfigGroup()
    mapping, policy = configuration_pb2.Orderers(), policies_pb2.SignaturePolicyEnvelope()
    for tls, sign in ((b"tls 1", b"sign 1"), (b"tls 9", b"sign 9")):
        mapping.consenter_mapping.add(server_tls_cert=tls, client_tls_cert=tls, identity=sign)
        member = identities_pb2.SerializedIdentity(mspid="CityOrdererMSP", id_bytes=sign)
        policy.identities.add(principal=member.SerializeToString())
    group.values["Orderers"].value = mapping.SerializeToString()
    group.policies["BlockValidation"].policy.value = policy.SerializeToString()
    edit_bft(group, BEFORE, AFTER)
    found = configuration_pb2.Orderers.FromString(group.values["Orderers"].value).consenter_mapping
    assert [(one.server_tls_cert, one.identity) for one in found] == [(b"tls 2", b"sign 2"), (b"tls 9", b"sign 9")]
    named = policies_pb2.SignaturePolicyEnvelope.FromString(group.policies["BlockValidation"].policy.value)
    members = [identities_pb2.SerializedIdentity.FromString(one.principal) for one in named.identities]
    assert [one.id_bytes for one in members] == [b"sign 2", b"sign 9"]
