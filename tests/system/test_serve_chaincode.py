"""`city serve chaincode` as the process it is: every contract served over mutual TLS, health, a clean end, and a wrong package refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from citykit.ledger.chaincode import package_label
from citykit.ledger.chaincode.convention import invocation_arguments, parse_answer
from citykit.testing.polling import until
from infra.native import free_port
from services.registry import contracts
from tests.unit.ledger.fake_peer import FakePeer, Message, creator
from tests.unit.ledger.tls_files import Authority

START_S = 120.0


def write_places(folder: Path, authority: Authority, version: str = "") -> dict[str, Any]:
    """A place for each contract; another version than the code's where one is given."""
    authority.server()
    files = {"certificate": "tls/server.pem", "key": "tls/server.key", "client_ca": "tls/ca.pem"}
    chaincodes = {}
    for contract in contracts():
        name = package_label(contract).rpartition("_")[0]
        label = f"{name}_{version}" if version else package_label(contract)
        chaincodes[name] = {"chaincode_id": f"{label}:hash", "address": f"127.0.0.1:{free_port()}", **files}
    (folder / "places.json").write_text(json.dumps({"chaincodes": chaincodes}))
    return chaincodes


@asynccontextmanager
async def process(folder: Path, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = [sys.executable, "-m", "services", "serve", "chaincode", "--places", str(folder / "places.json")]
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **env}, stdout=pipe, stderr=pipe)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_every_contract_is_served_until_sigterm_and_running_transactions_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    places = write_places(tmp_path, authority)
    operations = free_port()
    async with process(tmp_path, CITY_OBSERVABILITY_PORT=str(operations)) as served:
        await said(served, "chaincodes: ")
        assert await asyncio.to_thread(status, f"http://127.0.0.1:{operations}/readyz") == 200
        peers = {name: await peer_of(place, authority) for name, place in places.items()}
        assert {name: peer.package_id for name, peer in peers.items()} == {
            name: place["chaincode_id"] for name, place in places.items()
        }

        async def counted() -> bool:
            metrics = (await asyncio.to_thread(read, f"http://127.0.0.1:{operations}/metrics")).splitlines()
            return 'city_chaincode_peers{contract="anchors"} 1.0' in metrics

        await until(counted, "the peer is counted once its READY has come")
        await ends_what_runs(peers["anchors"], served)
        for peer in peers.values():
            assert await peer.ended() is grpc.StatusCode.OK
            await peer.close()


async def ends_what_runs(peer: FakePeer, served: asyncio.subprocess.Process) -> None:
    """SIGTERM in the middle of a transaction: it ends as if nothing had been."""
    held: list[Any] = []
    peer.script = lambda request: held.append(request) if request.type == Message.GET_STATE else NotImplemented
    call = invocation_arguments("head", {"origin": "log"})
    running = asyncio.create_task(peer.invoke(*call, identity=creator("notary")))
    await until(lambda: len(held) == 1, "the transaction runs")
    served.send_signal(signal.SIGTERM)
    async with asyncio.timeout(START_S):
        while (await peer.invoke(b"any")).status != 503:
            await asyncio.sleep(0.01)
    await peer.send(peer.answer(held[0]))
    assert parse_answer((await running).payload).result is None
    async with asyncio.timeout(START_S):
        assert await served.wait() == 0


async def test_a_package_of_another_version_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    write_places(tmp_path, Authority(tmp_path / "tls"), version="000000000000")
    async with process(tmp_path) as served:
        async with asyncio.timeout(START_S):
            _, told = await served.communicate()
        assert served.returncode == 2
        assert b"deploy the contract again" in told


async def said(served: asyncio.subprocess.Process, start: str) -> None:
    assert served.stdout is not None
    async with asyncio.timeout(START_S):
        line = await served.stdout.readline()
    assert line.decode().startswith(start)


async def peer_of(place: dict[str, Any], authority: Authority) -> FakePeer:
    return await FakePeer().connect(int(place["address"].rpartition(":")[2]), authority.client())


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
