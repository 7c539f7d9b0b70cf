"""What infra.fabric writes down: policies, packages, plans, the files its programs read; and the external builder's scripts."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from citykit.errors import InvalidArgument, NotFound
from citykit.settings import read_settings
from infra.fabric import Network, Policy, Private, network, nodes, read_policies
from infra.fabric.connection import city_settings, write_profile
from infra.fabric.crypto import generate, identity, node_tls
from infra.fabric.genesis import write_configtx
from infra.fabric.packages import Endpoint, make_package
from infra.fabric.plan import Plan, load_plan, new_plan
from infra.fabric.profiles import ORGANISATIONS, PROFILES, organisation_named, profile_named
from infra.fabric.rotation import certificates, renew, swap
from services.registry import contracts
from tests.unit.infra.fake_authority import make_authorities
from tests.unit.infra.fake_fabric import FakeFabric

BUILDER = Path("infra/fabric/builder/bin")


@pytest.fixture(params=sorted(PROFILES))
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    made = new_plan(tmp_path / "state", PROFILES[request.param])
    make_authorities(made)
    return made


class TestPolicies:
    def test_every_contract_has_one_and_no_organisation_decides_alone(self) -> None:
        table = read_policies()
        assert set(table) == {getattr(contract, "name", "") for contract in contracts()}
        assert all(policy.needed >= 2 for policy in table.values())
        known = {one.name for one in ORGANISATIONS}
        assert all(known.issuperset(policy.organisations) for policy in table.values())

    def test_they_are_put_in_fabrics_words(self) -> None:
        policy = Policy("c", ("city", "auditor"), 2, (Private("both", ("city", "auditor"), 5),))
        assert policy.signature_policy == "OutOf(2, 'CityMSP.peer', 'AuditorMSP.peer')"
        (collection,) = policy.collections()
        assert collection["policy"] == "OR('CityMSP.member', 'AuditorMSP.member')"
        assert (collection["blockToLive"], collection["memberOnlyRead"]) == (5, True)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{organisations: [city], needed: 2}", "needed is 2, but 1 organisations"),
            ("{organisations: [city], needed: 0}", "needed is 0"),
            ("{organisations: [City], needed: 1}", "'City' is no organisation"),
            ("{organisations: [city], needed: 1, more: 1}", "unknown 'more'"),
            ("{organisations: [city], needed: 1, private: [{name: p, organisations: [city], keep: 1}]}", "unknown 'keep'"),
        ],
    )  # fmt: skip
    def test_an_impossible_line_is_named(self, tmp_path: Path, line: str, message: str) -> None:
        path = tmp_path / "policies.yaml"
        path.write_text(f"contracts:\n  c: {line}\n")
        with pytest.raises(InvalidArgument, match=message):
            read_policies(path)


class TestPackages:
    def test_the_id_follows_from_the_content_alone(self) -> None:
        first, again = (make_package("c_1", Endpoint("127.0.0.1:1")) for _ in range(2))
        moved = make_package("c_1", Endpoint("127.0.0.1:2"))
        assert first.id == again.id
        assert first.id.startswith("c_1:")
        assert moved.id != first.id

    def test_it_says_where_the_chaincode_is_and_whom_to_trust(self) -> None:
        package = make_package("c_1", Endpoint("127.0.0.1:1", "ROOTS", "CERTIFICATE", "KEY"))
        outer = _files(package.content)
        assert json.loads(outer["metadata.json"]) == {"type": "ccaas", "label": "c_1"}
        connection = json.loads(_files(outer["code.tar.gz"])["connection.json"])
        assert connection["address"] == "127.0.0.1:1"
        assert (connection["tls_required"], connection["root_cert"]) == (True, "ROOTS")
        assert (connection["client_auth_required"], connection["client_cert"]) == (True, "CERTIFICATE")

    def test_the_builder_takes_it_and_hands_the_address_on(self, tmp_path: Path) -> None:
        source, metadata, built, released = (tmp_path / name for name in ("source", "metadata", "built", "released"))
        for folder in (source, metadata, built, released):
            folder.mkdir()
        outer = _files(make_package("c_1", Endpoint("127.0.0.1:1")).content)
        (metadata / "metadata.json").write_bytes(outer["metadata.json"])
        (source / "connection.json").write_bytes(_files(outer["code.tar.gz"])["connection.json"])
        (source / "META-INF" / "statedb").mkdir(parents=True)
        assert _script("detect", source, metadata).returncode == 0
        assert _script("build", source, metadata, built).returncode == 0
        assert _script("release", built, released).returncode == 0
        handed = json.loads((released / "chaincode" / "server" / "connection.json").read_bytes())
        assert handed["address"] == "127.0.0.1:1"
        assert (released / "statedb").is_dir()

    def test_the_builder_leaves_other_kinds_and_refuses_one_without_an_address(self, tmp_path: Path) -> None:
        (tmp_path / "metadata.json").write_text('{"type": "golang", "label": "c"}')
        assert _script("detect", tmp_path, tmp_path).returncode != 0
        refused = _script("build", tmp_path, tmp_path, tmp_path)
        assert refused.returncode != 0
        assert b"connection.json" in refused.stderr


class TestPlan:
    def test_it_is_kept(self, plan: Plan) -> None:
        plan.save()
        assert load_plan(plan.state) == plan
        ports = [port for node in plan.nodes for port in (node.port, node.operations_port, node.admin_port)]
        assert len(set(ports)) == len(ports)

    def test_nodes_of_another_machine_are_known_by_their_own_names(self, plan: Plan) -> None:
        node = replace(plan.orderers[0], host="orderer.example.org", aliases=("orderer",))
        wider = replace(plan, nodes=(node, *plan.nodes[1:]))
        wider.save()
        assert load_plan(plan.state) == wider
        (plan.state / "new").mkdir()
        generate(replace(wider, state=plan.state / "new"), FakeFabric(plan.state))
        config = yaml.safe_load((plan.state / "new" / "cryptogen.yaml").read_text())
        (spec,) = [one for group in config["OrdererOrgs"] for one in group["Specs"] if one["Hostname"] == node.name]
        assert spec["SANS"] == ["localhost", "127.0.0.1", "orderer.example.org", "orderer"]
        write_configtx(wider, plan.state)
        orderer = yaml.safe_load((plan.state / "configtx.yaml").read_text())["Profiles"]["City"]["Orderer"]
        hosts = [one["Host"] for one in orderer.get("ConsenterMapping") or orderer["EtcdRaft"]["Consenters"]]
        assert hosts[0] == "orderer.example.org"
        assert set(hosts[1:]) <= {"127.0.0.1"}

    def test_what_is_not_there_is_named(self, plan: Plan) -> None:
        with pytest.raises(NotFound, match="no node 'x'; there are orderer1"):
            plan.node("x")
        with pytest.raises(NotFound, match="no organisation 'x'; there are city"):
            plan.organisation("x")
        with pytest.raises(NotFound, match="network up"):
            load_plan(plan.state / "elsewhere")
        with pytest.raises(InvalidArgument, match="there are raft1, raft3, bft4"):
            profile_named("raft2")
        with pytest.raises(InvalidArgument, match="lower-case"):
            organisation_named("The City")


class TestFiles:
    def test_the_channel_has_all_organisations_and_the_profiles_consenters(self, plan: Plan) -> None:
        write_configtx(plan, plan.state)
        document = yaml.safe_load((plan.state / "configtx.yaml").read_text())["Profiles"]["City"]
        assert [one["ID"] for one in document["Application"]["Organizations"]] == [
            "CityMSP",
            "UtilityMSP",
            "AuditorMSP",
        ]
        assert document["Capabilities"] == {"V3_0": True}
        orderer = document["Orderer"]
        bft = plan.profile.consensus == "BFT"
        consenters = orderer["ConsenterMapping"] if bft else orderer["EtcdRaft"]["Consenters"]
        assert [one["Port"] for one in consenters] == [node.port for node in plan.orderers]
        assert all(Path(one["ServerTLSCert"]).exists() for one in consenters)
        assert orderer["BatchTimeout"] == "200ms"
        if bft:
            assert [one["ID"] for one in consenters] == [1, 2, 3, 4]
            assert all(Path(one["Identity"]).exists() for one in consenters)

    def test_the_programs_find_what_they_read(self, plan: Plan) -> None:
        nodes.prepare(plan, FakeFabric(plan.state))
        core = yaml.safe_load((plan.state / "core.yaml").read_text())
        (builder,) = core["chaincode"]["externalBuilders"]
        assert (Path(builder["path"]) / "bin" / "detect").stat().st_mode & 0o111
        for node in plan.nodes:
            program = nodes.program(plan, node)
            read = Path(program.env["FABRIC_CFG_PATH"]) / ("core.yaml" if node.is_peer else "orderer.yaml")
            assert read.exists()
        peer = nodes.program(plan, plan.peers[0])
        assert Path(peer.env["CORE_PEER_TLS_CERT_FILE"]).exists()
        assert peer.env["CORE_PEER_GOSSIP_RECONNECTINTERVAL"] == "2s"
        assert not nodes.is_healthy(plan.peers[0])

    def test_a_service_gets_its_own_certificate_and_the_settings_to_it(self, plan: Plan) -> None:
        net = Network(plan, FakeFabric(plan.state))
        settings = read_settings(city_settings(net, ["metering"])).fabric
        assert settings.peer == plan.peer_of("city").address
        assert settings.endorsements == 2
        folder = Path(settings.members.format(service="metering"))
        assert sorted(path.name for path in folder.iterdir()) == ["metering.key", "metering.pem"]
        assert (folder / "metering.key").stat().st_mode & 0o077 == 0
        certificate = x509.load_pem_x509_certificate((folder / "metering.pem").read_bytes())
        names = {one.oid: one.value for one in certificate.subject}
        assert names == {NameOID.COMMON_NAME: "metering", NameOID.ORGANIZATIONAL_UNIT_NAME: "client"}
        profile = json.loads(write_profile(net, ["metering"]).read_text())
        assert profile["organisations"]["CityMSP"]["identities"]["metering"]["key"] == str(folder / "metering.key")
        assert profile["organisations"]["AuditorMSP"]["identities"] == {}

    def test_a_certificate_may_be_one_that_has_expired(self, plan: Plan) -> None:
        late = identity(plan, ORGANISATIONS[0], "late", valid=timedelta(minutes=-1))
        assert x509.load_pem_x509_certificate(late.certificate.read_bytes()).not_valid_after_utc < datetime.now(UTC)

    def test_a_node_gets_another_key_under_the_same_names(self, plan: Plan) -> None:
        node = plan.nodes[0]
        before, key = certificates(plan, node), node_tls(plan, node).key.read_bytes()
        renew(plan, node, timedelta(days=2))
        assert certificates(plan, node) == before
        swap(plan, node)
        after = certificates(plan, node)
        assert node_tls(plan, node).key.read_bytes() != key
        for kind in ("sign", "tls"):
            assert after[kind].subject == before[kind].subject
            assert after[kind].issuer == before[kind].issuer
            assert after[kind].public_key() != before[kind].public_key()
        names = after["tls"].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names == before["tls"].extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_without_the_programs_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABRIC_BIN", raising=False)
    with pytest.raises(Exception, match=r"^not run: FABRIC_BIN names no folder with peer, orderer, "):
        network(tmp_path, "raft1")
    with pytest.raises(Exception, match="no folder with peer"):
        network(tmp_path, "raft1", tmp_path / "elsewhere")


def _files(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        found = {member.name: opened.extractfile(member) for member in opened.getmembers()}
        return {name: content.read() for name, content in found.items() if content is not None}


def _script(name: str, *arguments: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([BUILDER / name, *arguments], capture_output=True, check=False)
