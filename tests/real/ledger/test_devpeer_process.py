"""The development peer as a process that is killed: what it said was committed is there afterwards, once, and its chain verifies."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from citykit.ledger.fabric import Gateway, blocks, connect, read_identity, system
from citykit.ledger.fabric.blocks import header_hash
from citykit.ledger.fabric.connection import Connection, Deadlines
from citykit.ledger.fabric.errors import CommitInvalid, FabricError
from citykit.ledger.fabric.shim import ChaincodeServer, ServerTls
from infra.native import Native, Program, free_port, listens
from tests.unit.ledger.devpeer_network import CITY, specification, tls_of
from tests.unit.ledger.scenario_chaincode import scenario

KILLS, CALLERS, SEED = 5, 16, 20260
DEADLINE_S = 60.0


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Native]:
    port = free_port()
    wanted = specification(port=port)
    path = tmp_path / "peer.json"
    path.write_text(json.dumps(dataclasses.asdict(wanted)))
    argv = [
        sys.executable,
        "-m",
        "citykit.ledger.devpeer",
        "--state",
        str(tmp_path / "state"),
        "--specification",
        str(path),
    ]
    native = Native(Program("devpeer", argv, lambda: listens(port), ready_s=30.0), tmp_path)
    native.start()
    native.wait()
    yield native
    native.kill()


def profile_of(peer: Native) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((peer.log.parent / "state" / "profile.json").read_bytes())
    return document


def server(profile: dict[str, Any]) -> ChaincodeServer:
    paths = profile["chaincodes"]["notes"]
    tls = ServerTls(Path(paths["certificate"]), Path(paths["key"]), Path(paths["client_ca"]))
    return ChaincodeServer(paths["chaincode_id"], scenario, address=paths["address"], tls=tls)


def client(profile: dict[str, Any]) -> tuple[Connection, Gateway]:
    paths = profile["organisations"][CITY]["identities"]["metering"]
    deadlines = Deadlines(commit_s=5.0)
    connection = connect(profile["gateway"]["address"], tls=tls_of(profile, paths), deadlines=deadlines)
    return connection, Gateway(connection, "city", *read_identity(CITY, Path(paths["certificate"]), Path(paths["key"])))


async def test_what_was_said_to_be_committed_survives_sigkill(peer: Native) -> None:
    dice = random.Random(SEED)
    print(f"seed {SEED}")
    acknowledged: dict[str, bytes] = {}
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        profile = profile_of(peer)
        chaincode = server(profile)
        await chaincode.start()
        stack.push_async_callback(chaincode.stop, 0.1)
        connection, gateway = client(profile)
        stack.push_async_callback(connection.close)
        callers = [asyncio.create_task(_submit(gateway, f"c{n}", acknowledged, stop)) for n in range(CALLERS)]
        for _ in range(KILLS):
            await _more(acknowledged, len(acknowledged) + dice.randrange(20, 60))
            await asyncio.get_running_loop().run_in_executor(None, _kill_and_start, peer)
        await _more(acknowledged, len(acknowledged) + 20)
        stop.set()
        await asyncio.gather(*callers)
        await _check(gateway, acknowledged)


async def _submit(gateway: Gateway, name: str, acknowledged: dict[str, bytes], stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        key = f"{name}-{number:05}"
        try:
            done = await gateway.submit("notes", "put", [key.encode(), key.encode()])
        except (FabricError, CommitInvalid):
            number += 1  # its outcome is not known: another key, so that each is written by one transaction
            continue
        acknowledged[done.transaction_id] = key.encode()
        number += 1


async def _more(acknowledged: dict[str, bytes], wanted: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)


def _kill_and_start(peer: Native) -> None:
    peer.kill()
    peer.start()
    peer.wait()


async def _check(gateway: Gateway, acknowledged: dict[str, bytes]) -> None:
    """Everything acknowledged is on the chain as valid and in the state, nothing twice, and the chain verifies."""
    seen: dict[str, int] = {}
    previous = b""
    last = await system.height(gateway) - 1
    async for block in blocks(gateway, start=0, stop=last):
        assert block.previous_hash == previous
        previous = header_hash(block.number, block.previous_hash, block.data_hash)
        for transaction in block.transactions:
            if transaction.code == 0 and transaction.transaction_id:
                seen[transaction.transaction_id] = seen.get(transaction.transaction_id, 0) + 1
    assert {one: seen.get(one, 0) for one in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert max(seen.values()) == 1
    for key in acknowledged.values():
        assert await gateway.evaluate("notes", "get", [key]) == key
