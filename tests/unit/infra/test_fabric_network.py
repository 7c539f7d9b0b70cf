"""The order of things when a network is made, joined and changed. Against programs in memory; nothing is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from citykit.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from infra.fabric import Network, Policy
from infra.fabric.chaincodes import Chaincodes
from infra.fabric.channel_update import batch_timeout, set_batch_timeout
from infra.fabric.genesis import config_of
from infra.fabric.joining import add_organisation
from infra.fabric.part import FabricPart
from infra.fabric.plan import new_plan
from infra.fabric.profiles import PROFILES
from infra.fabric.snapshot import join_from_snapshot
from tests.unit.infra.fake_authority import make_authorities
from tests.unit.infra.fake_fabric import FakeFabric


def config_block() -> bytes:
    """A block with a configuration that has a batch timeout."""
    config = configtx_pb2.Config(sequence=1)
    value = config.channel_group.groups["Orderer"].values["BatchTimeout"]
    value.value = orderer_pb2.BatchTimeout(timeout="200ms").SerializeToString()
    payload = common_pb2.Payload(data=configtx_pb2.ConfigEnvelope(config=config).SerializeToString())
    envelope = common_pb2.Envelope(payload=payload.SerializeToString())
    block = common_pb2.Block()
    block.data.data.append(envelope.SerializeToString())
    return bytes(block.SerializeToString())


@pytest.fixture
def fabric(tmp_path: Path) -> FakeFabric:
    return FakeFabric(tmp_path, config_block=config_block())


@pytest.fixture
def net(tmp_path: Path, fabric: FakeFabric) -> Network:
    plan = new_plan(tmp_path / "state", PROFILES["raft3"])
    make_authorities(plan)
    return Network(plan, fabric)


def test_under_a_supervisor_each_stage_does_what_the_next_one_needs(net: Network, fabric: FakeFabric) -> None:
    chaincodes = Chaincodes(net, {"counter": "1"}, ("serve",), {"counter": Policy("counter", ("city", "utility"), 2)})
    net.make()
    part = FabricPart(net, chaincodes, ["metering"], {"WATCHED": "1"})
    orderers, peers, contracts = part.stages
    assert [program.name for program in orderers()] == ["orderer1", "orderer2", "orderer3"]
    assert fabric.joined == set()
    assert [program.name for program in peers()] == ["peer-city", "peer-utility", "peer-auditor"]
    assert fabric.joined == {f"127.0.0.1:{node.admin_port}" for node in net.plan.orderers}
    services = contracts()
    assert {node.address for node in net.plan.peers} < fabric.joined
    assert [(program.name, dict(program.env)) for program in services] == [
        ("chaincode-city", {"WATCHED": "1"}),
        ("chaincode-utility", {}),
    ]
    assert fabric.committed == {}
    part.finish()
    assert fabric.committed["counter"]["sequence"] == 1
    assert (net.plan.state / "profile.json").exists()
    assert part.settings["CITY_FABRIC_PEER"] == net.plan.peer_of("city").address
    assert "raft3, 3 orderers" in part.where


def test_who_has_joined_does_not_join_again(net: Network, fabric: FakeFabric) -> None:
    for _ in range(2):
        net.join_orderers()
        net.join_peers()
    joins = [call for call in fabric.calls if "join" in call]
    assert len(joins) == len(net.plan.nodes)


def test_keys_and_first_block_are_made_once(net: Network, fabric: FakeFabric) -> None:
    net.make()
    net.plan.genesis().write_bytes(b"block")
    net.make()
    assert [call[0] for call in fabric.calls] == ["configtxgen"]
    assert (net.plan.state / "bin" / "peer-city").is_symlink()


def test_what_orders_blocks_is_changed_by_the_orderers_administrators(net: Network, fabric: FakeFabric) -> None:
    assert batch_timeout(net) == "200ms"
    set_batch_timeout(net, "500ms")
    assert len([call for call in fabric.calls if "signconfigtx" in call]) == 2
    (update,) = (call for call in fabric.calls if call[1:3] == ("channel", "update"))
    envelope = common_pb2.Envelope.FromString(Path(update[update.index("-f") + 1]).read_bytes())
    written = written_of(envelope)
    value = written.groups["Orderer"].values["BatchTimeout"].value
    assert orderer_pb2.BatchTimeout.FromString(value).timeout == "500ms"
    with pytest.raises(FailedPrecondition, match="so already"):
        set_batch_timeout(net, "200ms")
    with pytest.raises(InvalidArgument, match="no time"):
        set_batch_timeout(net, "soon")


def test_a_member_does_not_join_twice(net: Network) -> None:
    with pytest.raises(AlreadyExists, match="utility is a member"):
        add_organisation(net, "utility")


def test_a_configuration_is_read_out_of_its_block() -> None:
    assert config_of(config_block()).sequence == 1


def test_a_peer_is_told_where_the_snapshot_is(net: Network, fabric: FakeFabric, tmp_path: Path) -> None:
    join_from_snapshot(net, net.plan.peers[0], tmp_path / "0")
    assert fabric.calls[0][1:] == ("channel", "joinbysnapshot", "--snapshotpath", str(tmp_path / "0"))


def test_status_tells_of_a_network_that_does_not_run(net: Network) -> None:
    status = net.status()
    assert {node["healthy"] for node in status["nodes"]} == {False}
    assert (status["chaincodes"], status["profile"]) == ({}, "raft3")


def written_of(envelope: Any) -> Any:
    payload = common_pb2.Payload.FromString(envelope.payload)
    update = configtx_pb2.ConfigUpdateEnvelope.FromString(payload.data).config_update
    return configtx_pb2.ConfigUpdate.FromString(update).write_set
