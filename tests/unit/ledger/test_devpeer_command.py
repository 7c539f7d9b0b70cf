"""What `city serve ledger` is told, and what it refuses."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.ledger.devpeer import Collection, read_specification
from citykit.ledger.devpeer.__main__ import main
from citykit.settings import ObservabilitySettings, read_settings
from infra.native import free_port
from services.commands.devpeer import _serve, add_arguments, city_specification, serve_ledger
from services.registry import SERVICES, contracts
from tests.unit.ledger.devpeer_network import chaincode_server, specification

NAMES = [str(getattr(contract, "name", "")) for contract in contracts()]
ADDRESSES = {name: f"127.0.0.1:{9000 + n}" for n, name in enumerate(NAMES)}


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


def test_every_contract_is_a_chaincode_and_every_service_a_client() -> None:
    made = city_specification(ADDRESSES, read_settings({"CITY_LEDGER_BLOCK_MAX": "7"}))
    assert [one.name for one in made.chaincodes] == NAMES
    assert {one.name: one.attributes["city.service"] for one in made.clients} == {name: name for name in SERVICES}
    assert made.block_max == 7


def test_a_contract_without_an_address_is_named() -> None:
    with pytest.raises(InvalidArgument, match=NAMES[0]):
        city_specification({n: a for n, a in ADDRESSES.items() if n != NAMES[0]}, read_settings({}))
    with pytest.raises(InvalidArgument, match="NAME=HOST:PORT"):
        serve_ledger(parsed("--chaincode", "anchors"), read_settings({}))


def test_a_city_in_earnest_gets_no_development_peer(tmp_path: Path) -> None:
    given = [part for name, address in ADDRESSES.items() for part in ("--chaincode", f"{name}={address}")]
    arguments = parsed("--state", str(tmp_path), *given)
    with pytest.raises(FailedPrecondition, match="--trial"):
        serve_ledger(arguments, read_settings({"CITY_GENERAL_MODE": "cluster"}))
    assert list(tmp_path.iterdir()) == []


async def test_it_says_whether_it_is_ready_and_ends_on_sigterm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    wanted = specification(connect_s=1.0)
    served = asyncio.create_task(_serve(tmp_path, wanted, ObservabilitySettings(port=port)), name="ledger")

    async def answer(path: str) -> tuple[int, str]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            response = await client.get(path)
            return response.status_code, response.text

    async def until(path: str, status: int) -> str:
        async with asyncio.timeout(20.0):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    found, text = await answer(path)
                    if found == status:
                        return text
                await asyncio.sleep(0.02)

    await until("/readyz", 503)
    assert (await answer("/livez"))[0] == 200
    async with asyncio.timeout(20.0):
        while not (tmp_path / "profile.json").exists():
            await asyncio.sleep(0.02)
    profile = json.loads((tmp_path / "profile.json").read_bytes())
    servers = [chaincode_server(profile, name) for name in ("notes", "other")]
    for server in servers:
        await server.start()
    await until("/readyz", 200)
    assert "city_ledger_blocks 1.0" in (await answer("/metrics"))[1]
    os.kill(os.getpid(), signal.SIGTERM)
    await served
    for server in servers:
        await server.stop(0.1)
    assert "not Fabric, one operator" in capsys.readouterr().out


def test_a_specification_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "peer.json"
    chaincode = {"name": "notes", "address": "h:1", "collections": [{"name": "c", "members": ["CityMSP"]}]}
    path.write_text(
        json.dumps({"channel": "x", "chaincodes": [chaincode], "clients": [{"name": "a", "msp_id": "CityMSP"}]})
    )
    made = read_specification(path)
    assert made.channel == "x"
    assert made.chaincodes[0].collections == (Collection("c", ("CityMSP",)),)


@pytest.mark.parametrize("document", ['{"chanel": "x"}', "[]", "no", '{"chaincodes": [{"name": "a", "colour": 1}]}'])
def test_a_specification_that_cannot_be_read_is_refused(
    tmp_path: Path, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "peer.json"
    path.write_text(document)
    assert main(["--state", str(tmp_path / "state"), "--specification", str(path)]) == 2
    assert "development peer: " in capsys.readouterr().err
