"""Serving contracts as chaincodes: where, under which package, and what stops the start."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from citykit.errors import CityError, EnvironmentFault, InvalidArgument
from citykit.ledger.chaincode import Place, contract_version, package_label, read_places, serve
from citykit.ledger.chaincode.convention import SUBMITTER_ATTRIBUTE, invocation_arguments
from citykit.ledger.contract import Transaction, evaluates
from citykit.testing.counter import Counter
from services.registry import contracts
from tests.unit.ledger.fake_peer import FakePeer, creator
from tests.unit.ledger.probe_contract import Misnamed, Probe
from tests.unit.ledger.tls_files import Authority

PLACE = Place("counter:hash", "localhost:0")


class Undetermined:
    """Lies in a module that reads files and the network."""

    name = "undetermined"

    @evaluates
    def look(self, tx: Transaction) -> None: ...


async def test_several_contracts_are_served_each_on_its_own_address() -> None:
    places = {"counter": PLACE, "probe": Place("probe:hash", "localhost:0")}
    async with serve([Counter(), Probe()], places) as serving:
        peers = {name: await FakePeer().connect(port) for name, port in serving.ports.items()}
        assert {name: peer.package_id for name, peer in peers.items()} == {
            "counter": "counter:hash",
            "probe": "probe:hash",
        }
        assert serving.peers() == {"counter": 1, "probe": 1}
        assert (
            await peers["counter"].invoke(*invocation_arguments("value", {"key": "a"}))
        ).payload == b'{"result":null}'
        for peer in peers.values():
            await peer.close()
    assert sorted(serving.peers().values()) == [0, 0]


@pytest.mark.parametrize(("operator", "allowed"), [("CityMSP", "CityMSP"), ("OtherMSP", "OtherMSP")])
async def test_only_the_operators_members_are_services_of_the_city(operator: str, allowed: str) -> None:
    """Every organisation's authority can certify somebody as `auditor`."""
    async with serve([Counter()], {"counter": PLACE}, operator=operator) as serving:
        peer = await FakePeer().connect(serving.ports["counter"])
        call = invocation_arguments("clear", {"key": "a"}, "r")
        for msp_id in ("CityMSP", "OtherMSP", "UtilityMSP"):
            done = await peer.invoke(*call, identity=creator("x", msp_id, **{SUBMITTER_ATTRIBUTE: "auditor"}))
            if msp_id == allowed:
                assert done.status == 200
            else:
                assert (done.status, f"not {msp_id}.auditor" in done.message) == (400, True)
        await peer.close()


async def test_a_contract_without_a_place_is_not_served() -> None:
    async with serve([Counter(), Probe()], {"counter": PLACE}) as serving:
        assert list(serving.ports) == ["counter"]


@pytest.mark.parametrize(
    ("contract", "place", "kind", "message"),
    [
        (Probe(), PLACE, InvalidArgument, "no contract 'counter' here; there are probe"),
        (
            Counter(),
            replace(PLACE, chaincode_id="counter_0123456789ab:hash"),
            InvalidArgument,
            "deploy the contract again",
        ),
        (Counter(), replace(PLACE, address="nowhere.invalid:1"), EnvironmentFault, "counter cannot be served"),
    ],
)
async def test_what_stops_the_start(contract: Any, place: Place, kind: type[CityError], message: str) -> None:
    with pytest.raises(kind, match=message):
        async with serve([contract], {"counter": place}):
            raise AssertionError("it started")


async def test_an_address_that_is_taken_stops_the_start_and_what_was_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = replace(PLACE, address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EnvironmentFault, match="cannot bind"):
            async with serve([Probe(), Counter()], {"probe": Place("probe:hash", "localhost:0"), "counter": place}):
                raise AssertionError("it started")


@pytest.mark.parametrize(
    ("contract", "message"),
    [(Misnamed(), "no chaincode name"), (Undetermined(), "not deterministic.*reads the network")],
)
async def test_a_contract_no_peer_should_run_stops_the_start(contract: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        async with serve([contract], {contract.name: PLACE}):
            raise AssertionError("it started")


async def test_a_package_of_this_version_is_served() -> None:
    async with serve(
        [Counter()], {"counter": replace(PLACE, chaincode_id=f"{package_label(Counter())}:hash")}
    ) as serving:
        assert serving.ports["counter"] > 0


def test_the_version_is_of_the_code_and_differs_between_contracts() -> None:
    versions = {contract.name: contract_version(contract) for contract in contracts()}  # type: ignore[attr-defined]
    assert all(len(version) == 12 for version in versions.values())
    assert len({versions["anchors"], versions["devices"], versions["models"]}) == 3
    assert package_label(contracts()[0]).split("_")[1] in versions.values()


def test_places_are_read_with_paths_beside_the_document(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    authority.server()
    files = {"certificate": "tls/server.pem", "key": "tls/server.key", "client_ca": "tls/ca.pem"}
    plain = {
        "chaincode_id": "b:2",
        "address": "b.example:2",
        "listen": "localhost:2",
        "tls": False,
        "certificate": "tls/server.pem",
    }
    document = {"chaincodes": {"a": {"chaincode_id": "a:1", "address": "localhost:1", **files}, "b": plain}}
    path = tmp_path / "places.json"
    path.write_text(json.dumps(document))
    places = read_places(path)
    assert places["a"].tls and places["a"].tls.client_roots == tmp_path / "tls" / "ca.pem"
    assert places["b"] == Place("b:2", "localhost:2")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: None,
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"chaincodes": {"a": {"address": "localhost:1"}}}'),
    ],
)
def test_places_that_do_not_read_say_what_is_needed(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "places.json"
    write(path)
    with pytest.raises(InvalidArgument, match=r"places\.json"):
        read_places(path)
