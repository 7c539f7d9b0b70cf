"""Deployment by the lifecycle: who approves, which sequence, what a second run does. Against a channel in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.ledger.chaincode import read_places
from infra.fabric import Endpoint, Network, Policy
from infra.fabric.chaincodes import Chaincodes, places_file
from infra.fabric.lifecycle import Release
from infra.fabric.plan import new_plan
from infra.fabric.profiles import PROFILES
from tests.unit.infra.fake_authority import make_authorities
from tests.unit.infra.fake_fabric import FakeFabric

POLICY = Policy("counter", ("city", "utility"), 2)


@pytest.fixture
def fabric(tmp_path: Path) -> FakeFabric:
    return FakeFabric(tmp_path)


@pytest.fixture
def net(tmp_path: Path, fabric: FakeFabric) -> Network:
    plan = new_plan(tmp_path / "state", PROFILES["raft1"])
    make_authorities(plan)
    return Network(plan, fabric)


def release(net: Network, version: str, port: int = 1) -> Release:
    endpoints = {name: Endpoint(f"127.0.0.1:{port}") for name in POLICY.organisations}
    return net.release(POLICY, version, endpoints)


def test_all_approve_those_who_run_it_install_and_the_first_sequence_is_one(net: Network, fabric: FakeFabric) -> None:
    definition = net.deploy_many([release(net, "a")])["counter"]
    assert (definition.version, definition.sequence) == ("a", 1)
    assert set(fabric.installed) == {"CityMSP", "UtilityMSP"}
    packages = {msp: package for (msp, _, _), package in fabric.approved.items()}
    assert packages["AuditorMSP"] == ""
    assert packages["CityMSP"].startswith("counter_a:")
    (commit,) = fabric.acts("commit")
    assert commit.count("--peerAddresses") == 3
    assert commit[commit.index("--signature-policy") + 1] == "OutOf(2, 'CityMSP.peer', 'UtilityMSP.peer')"


def test_another_version_takes_the_next_sequence(net: Network) -> None:
    net.deploy_many([release(net, "a")])
    assert net.deploy_many([release(net, "b")])["counter"].sequence == 2


def test_the_same_version_again_commits_nothing(net: Network, fabric: FakeFabric) -> None:
    net.deploy_many([release(net, "a")])
    approvals = len(fabric.acts("approveformyorg"))
    assert net.deploy_many([release(net, "a")])["counter"].sequence == 1
    assert len(fabric.acts("commit")) == 1
    assert len(fabric.acts("approveformyorg")) == approvals


def test_a_chaincode_that_moved_is_approved_again_under_its_sequence(net: Network, fabric: FakeFabric) -> None:
    net.deploy_many([release(net, "a")])
    before = fabric.approved["CityMSP", "counter", 1]
    net.deploy_many([release(net, "a", port=2)])
    assert fabric.approved["CityMSP", "counter", 1] != before
    assert len(fabric.acts("commit")) == 1


def test_chaincodes_are_served_anew_between_the_approvals_and_the_commit(net: Network, fabric: FakeFabric) -> None:
    seen: list[int] = []
    net.deploy_many([release(net, "a")], lambda: seen.append(len(fabric.acts("approveformyorg"))))
    assert seen == [3]
    assert fabric.calls.index(fabric.acts("commit")[0]) > fabric.calls.index(fabric.acts("approveformyorg")[-1])


def test_without_a_majority_nothing_is_committed(net: Network, fabric: FakeFabric) -> None:
    net.lifecycle.approve("city", release(net, "a"), 1)
    with pytest.raises(FailedPrecondition, match="only city approved"):
        net.lifecycle.commit(release(net, "a"), 1)
    assert fabric.acts("commit") == []


def test_an_organisation_of_the_policy_needs_an_address(net: Network) -> None:
    with pytest.raises(FailedPrecondition, match="no chaincode address for utility"):
        net.release(POLICY, "a", {"city": Endpoint("127.0.0.1:1")})


class TestChaincodes:
    def chaincodes(self, net: Network, version: str) -> Chaincodes:
        return Chaincodes(net, {"counter": version}, ("true",), {"counter": POLICY})

    def test_each_organisation_gets_its_places_and_addresses_stay(self, net: Network) -> None:
        (first,) = self.chaincodes(net, "a").write_places()
        places = read_places(places_file(net, "city"))
        assert places["counter"].chaincode_id == first.packages["city"].id
        assert places["counter"].tls is not None
        self.chaincodes(net, "b").write_places()
        again = read_places(places_file(net, "city"))
        assert again["counter"].address == places["counter"].address
        assert again["counter"].chaincode_id != places["counter"].chaincode_id
        assert not places_file(net, "auditor").exists()

    def test_deploy_refuses_another_version_and_upgrade_one_that_is_not_there(self, net: Network) -> None:
        with pytest.raises(NotFound, match="network deploy"):
            self.chaincodes(net, "a").upgrade()
        net.deploy_many(self.chaincodes(net, "a").write_places())
        assert self.chaincodes(net, "a").changes() == {}
        with pytest.raises(FailedPrecondition, match="network upgrade"):
            self.chaincodes(net, "b").deploy()

    def test_another_policy_is_an_upgrade_of_the_same_package(self, net: Network) -> None:
        (first,) = self.chaincodes(net, "a").write_places()
        net.deploy_many([first])
        looser = Chaincodes(net, {"counter": "a"}, ("true",), {"counter": Policy("counter", ("city", "utility"), 1)})
        assert list(looser.changes()) == ["counter"]
        (second,) = looser.write_places()
        assert second.packages["city"].id == first.packages["city"].id
        assert net.deploy_many([second])["counter"].sequence == 2
        assert looser.changes() == {}

    def test_a_contract_without_a_policy_is_not_deployed(self, net: Network) -> None:
        with pytest.raises(InvalidArgument, match="no endorsement policy for other"):
            Chaincodes(net, {"other": "1"}, ("true",), {"counter": POLICY})
