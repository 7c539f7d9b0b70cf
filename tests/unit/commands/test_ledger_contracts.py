"""`city ledger contracts`: its arguments, its packages, what it prints and its exit codes; against a channel in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from citykit.ledger.chaincode import contract_version, read_places
from citykit.ledger.chaincode.serving import require_version
from infra.fabric.policies import read_policies
from services.__main__ import main
from services.registry import contracts
from tests.unit.ledger.fake_gateway import fails
from tests.unit.ledger.fake_lifecycle import FakeChannel, serving
from tests.unit.ledger.tls_files import Authority

NAMES = sorted(str(getattr(one, "name", "")) for one in contracts())
AWAY = grpc.StatusCode.UNAVAILABLE


def places(host: str = "127.0.0.1") -> list[str]:
    return [f"--chaincode={name}={host}:{7101 + number}" for number, name in enumerate(NAMES)]


class Channel:
    """A fake channel on a thread of its own: the command runs a loop itself."""

    def __init__(self) -> None:
        self.fake = FakeChannel()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server, self.address = asyncio.run_coroutine_threadsafe(serving(self.fake), self._loop).result(20)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(None), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Channel]:
    found = Channel()
    members = tmp_path / "members"
    Authority(members).issue("admin")
    monkeypatch.setenv("CITY_FABRIC_PEER", found.address)
    monkeypatch.setenv("CITY_FABRIC_MEMBERS", str(members))
    yield found
    found.stop()


def bring(*arguments: str) -> int:
    return main(["ledger", "contracts", "--wait=0", *places(), *arguments])


def agreed_by_all(channel: Channel) -> None:
    """The other organisations approve what ours has."""
    for (_, name, sequence), (content, _) in list(channel.fake.approved.items()):
        for one in ("UtilityMSP", "AuditorMSP"):
            channel.fake.approved[one, name, sequence] = (content, "")


class TestAChannel:
    def test_it_approves_waits_and_commits_when_run_again(
        self, channel: Channel, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert bring() == 2
        said = capsys.readouterr()
        assert "nothing was committed: anchors" in said.err
        assert "approved by CityMSP, not by AuditorMSP, UtilityMSP" in said.err
        assert channel.fake.committed == {}
        agreed_by_all(channel)
        assert bring() == 0
        lines = capsys.readouterr().out.splitlines()
        assert len([line for line in lines if "committed, approved by AuditorMSP, CityMSP, UtilityMSP" in line]) == len(
            NAMES
        )
        assert sorted(channel.fake.committed) == NAMES
        assert bring() == 0
        assert all(line.endswith("in force, nothing to do") for line in capsys.readouterr().out.splitlines())

    def test_a_check_changes_nothing(self, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
        assert bring("--check") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len([line for line in lines if "would be installed on" in line]) == len(NAMES)
        assert (channel.fake.installed, channel.fake.approved) == ({}, {})

    def test_the_version_names_the_code_and_the_policy(self, channel: Channel) -> None:
        bring()
        agreed_by_all(channel)
        bring()
        policies = read_policies()
        for contract in contracts():
            name = str(getattr(contract, "name", ""))
            assert channel.fake.committed[name][0] == f"{contract_version(contract)}+{policies[name].digest}"

    def test_whoever_is_no_administrator_is_told_so(self, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
        channel.fake.administrator = False
        assert bring() == 2
        assert "from administrators of its organisation only" in capsys.readouterr().err

    def test_each_of_our_peers_is_asked_and_one_that_is_away_named(
        self, channel: Channel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CITY_FABRIC_EVALUATE_S", "0.5")
        assert bring(f"--peer={channel.address}", "--peer=127.0.0.1:1") == 3
        assert "the peer 127.0.0.1:1 does not answer" in capsys.readouterr().err
        assert channel.fake.approved == {}

    def test_what_a_peer_refuses_otherwise_is_said(self, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
        channel.fake.script["ProcessProposal"] = [fails(grpc.StatusCode.UNKNOWN, "no space left on device")]
        assert bring() == 2
        assert "refused: no space left on device" in capsys.readouterr().err

    def test_what_the_gateway_refuses_is_said(self, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
        channel.fake.script["Evaluate"] = [fails(grpc.StatusCode.PERMISSION_DENIED, "who are you")]
        assert bring() == 2
        assert "refuses the lifecycle of contracts: who are you" in capsys.readouterr().err

    def test_an_administrator_that_is_not_there(self, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
        assert bring("--member=nobody") == 2
        assert "no certificate of nobody" in capsys.readouterr().err


class TestPlaces:
    def test_chaincodes_serve_under_what_is_installed(self, channel: Channel, tmp_path: Path) -> None:
        path = tmp_path / "places.json"
        assert bring(f"--places={path}") == 0
        assert channel.fake.asked_for == []
        found = read_places(path)
        assert sorted(found) == NAMES
        bring()
        assert {one.chaincode_id for one in found.values()} == set(channel.fake.installed.values())
        for contract in contracts():
            require_version(contract, found[str(getattr(contract, "name", ""))].chaincode_id)

    def test_with_tls_they_listen_where_their_name_leads(self, tmp_path: Path) -> None:
        for name in ("ca.crt", "peer.crt", "peer.key", "tls.crt", "tls.key"):
            (tmp_path / name).write_text(f"{name} as PEM")
        path = tmp_path / "places.json"
        told = ["ledger", "contracts", f"--places={path}", f"--tls={tmp_path}", *places("chaincode-1.city.svc")]
        assert main(told) == 0
        one = read_places(path)["anchors"]
        assert one.address == "0.0.0.0:7101"
        assert one.tls is not None
        assert (one.tls.certificate, one.tls.client_roots) == (tmp_path / "tls.crt", tmp_path / "ca.crt")
        before = one.chaincode_id
        (tmp_path / "peer.crt").write_text("another certificate")
        assert main(told) == 0
        assert read_places(path)["anchors"].chaincode_id != before
        assert "as PEM" not in json.dumps(json.loads(path.read_text()))  # paths only


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], f"CityMSP runs {NAMES[0]}"),
        ([*places(), "--chaincode=voting=127.0.0.1:7199"], "--chaincode names 'voting'"),
        (["--chaincode=anchors"], "must be NAME=HOST:PORT"),
        (["--chaincode=anchors=127.0.0.1:0"], "must be NAME=HOST:PORT"),
        (places("chaincode.example.org"), "needs --tls"),
        ([*places("c.example.org"), "--tls=/nowhere"], "/nowhere/ca.crt cannot be read"),
        ([*places(), "--wait=-1"], "--wait is 0 to 86400 seconds"),
        ([*places(), "--wait=90000"], "--wait is 0 to 86400 seconds"),
        ([*places(), "--policies=/nowhere"], "/nowhere cannot be read"),
        ([*places(), *(f"--peer=p{number}:7051" for number in range(101))], "100 are allowed"),
    ],
)
def test_wrong_usage_is_told(
    channel: Channel, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "contracts", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert channel.fake.asked_for == []


def test_a_contract_without_a_policy_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "policies.yaml"
    table.write_text("contracts:\n  anchors: {organisations: [city], needed: 1}\n")
    assert main(["ledger", "contracts", f"--policies={table}", *places()]) == 2
    assert f"no endorsement policy for {NAMES[1]}" in capsys.readouterr().err


def test_an_organisation_that_runs_no_contract_of_its_own_still_agrees(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CITY_FABRIC_MSP", "CountyMSP")
    assert main(["ledger", "contracts", "--check"]) == 0
    assert "would be installed" not in capsys.readouterr().out
