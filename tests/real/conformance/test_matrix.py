"""The matrix {our client, Node, Go} x {our shim, Node, Go} against the development peer, over mutual TLS. Its table is printed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from citykit.ledger.devpeer import Chaincode, Specification, development_peer
from citykit.ledger.fabric.errors import CommitInvalid, GatewayError
from infra.fabric.plan import free_ports
from tests.real.conformance.matrix import CHAINCODES, CLIENT_PARTS, MEMBERS, SHIM_PARTS, City, language, try_cell
from tests.real.conformance.parts import Parts
from tests.real.conformance.scenarios import MVCC, SCENARIOS, Scenario
from tests.unit.ledger.devpeer_network import CITY, CLIENTS, COLLECTIONS, UTILITY, Network, chaincode_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
CALLERS = 12


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[City]:
    folder = tmp_path_factory.mktemp("conformance")
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(development_peer(folder / "peer", specification()))
        network = Network(peer, {}, {})

        async def height() -> int:
            return peer.chain.height

        async def settled() -> None:
            """There is one peer."""

        running = City(
            "development peer", lambda member: network.gateway(member, MEMBERS[member]), height, settled, peer.received
        )
        for name, paths in peer.profile["chaincodes"].items():
            if language(name) == "ours":
                server = chaincode_server(peer.profile, name)
                await server.start()
                stack.push_async_callback(server.stop, 0.1)
            else:
                stack.callback(running.chaincode(parts, name, paths, folder).stop)
        await stack.enter_async_context(running.clients(parts, members(peer.profile), folder))
        yield running
        for connection in network.connections.values():
            await connection.close()


def specification() -> Specification:
    """Two organisations of which either endorses, and chaincodes a and b on each shim."""
    policy = f"OR('{CITY}.peer','{UTILITY}.peer')"
    chaincodes = tuple(
        Chaincode(name, f"127.0.0.1:{port}", policy=policy, collections=COLLECTIONS)
        for name, port in zip(CHAINCODES, free_ports(len(CHAINCODES)), strict=True)
    )
    return Specification(
        organisations=(CITY, UTILITY), chaincodes=chaincodes, clients=CLIENTS, block_wait_ms=5, connect_s=30.0
    )


def members(profile: dict[str, Any]) -> dict[str, Any]:
    """What the official clients read of each member."""
    gateway = profile["gateway"]
    return {
        name: {"address": gateway["address"], "tls_ca": gateway["tls_ca"], "msp_id": msp_id, **paths}
        for msp_id, organisation in profile["organisations"].items()
        for name, paths in organisation["identities"].items()
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("shim", SHIM_PARTS)
@pytest.mark.parametrize("client", CLIENT_PARTS)
async def test_cell(city: City, client: str, shim: str, scenario: Scenario, record_property: Any) -> None:
    await try_cell(city, client, shim, scenario, record_property)


@pytest.mark.parametrize("shim", SHIM_PARTS)
async def test_a_shim_runs_many_at_once_and_a_storm_of_conflicts_ends_in_the_right_sum(city: City, shim: str) -> None:
    gateway, chaincode = city.gateway("metering"), f"{shim}-a"

    async def add() -> int:
        """Tries until its own addition commits; returns how often it met a conflict."""
        for conflicts in range(CALLERS + 1):
            try:
                await gateway.submit(chaincode, "add", [b"storm", b"1"])
            except CommitInvalid as conflict:
                assert conflict.code == MVCC
            else:
                return conflicts
        raise AssertionError("each round lets one through, so as many rounds as callers are enough")

    conflicts = await asyncio.gather(*(add() for _ in range(CALLERS)))
    assert sum(conflicts) > 0
    assert await gateway.evaluate(chaincode, "get", [b"storm"]) == str(CALLERS).encode()
    done = await asyncio.gather(*(gateway.submit(chaincode, "put", [b"s%d" % n, b"1"]) for n in range(100)))
    assert len({one.transaction_id for one in done}) == 100


@pytest.mark.parametrize("shim", [shim for shim in SHIM_PARTS if shim != "ours"])
async def test_an_official_chaincode_that_is_killed_under_load_comes_back_and_nothing_is_lost(
    city: City, shim: str
) -> None:
    gateway, chaincode = city.gateway("metering"), f"{shim}-b"
    program, killed = city.programs[chaincode], asyncio.Event()
    acknowledged: list[bytes] = []

    async def write(name: bytes) -> None:
        number = 0
        while not killed.is_set() or number < 10:
            key = b"k-%s-%05d" % (name, number)
            try:
                await gateway.submit(chaincode, "put", [key, key])
            except GatewayError:
                continue  # it was not endorsed: nothing was written, and it is tried again
            acknowledged.append(key)
            number += 1

    writers = [asyncio.create_task(write(b"%d" % number)) for number in range(8)]
    async with asyncio.timeout(60.0):
        while len(acknowledged) < 40:
            await asyncio.sleep(0.005)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, program.kill)
    program.start()
    await loop.run_in_executor(None, program.wait)
    killed.set()
    await asyncio.gather(*writers)
    found = await asyncio.gather(*(gateway.evaluate(chaincode, "get", [key]) for key in acknowledged))
    assert list(found) == acknowledged
