"""The same matrix on Fabric itself, so that what the development peer is held to is what Fabric does. Without FABRIC_BIN it was not run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509

from citykit.ledger.devpeer.certificates import Authority, Subject, issue, new_key, write_private
from citykit.ledger.fabric import Gateway, Tls, connect, read_identity, system
from citykit.ledger.fabric.connection import Connection
from citykit.ledger.fabric.errors import GatewayError
from citykit.ledger.fabric.shim import ChaincodeServer, ServerTls
from infra.fabric import FABRIC_BIN, Endpoint, Network, Policy, Private, network, not_run
from infra.fabric.crypto import chaincode_tls, load_key, node_tls, organisation_folder
from infra.fabric.plan import free_ports
from tests.real.conformance.matrix import CHAINCODES, CLIENT_PARTS, MEMBERS, SHIM_PARTS, City, language, try_cell
from tests.real.conformance.parts import Parts
from tests.real.conformance.scenarios import SCENARIOS, Scenario
from tests.unit.ledger.devpeer_network import CLIENTS
from tests.unit.ledger.scenario_chaincode import scenario as own_chaincode

pytestmark = pytest.mark.asyncio(loop_scope="module")
RUN = ("city", "utility")
COLLECTIONS = (Private("both", RUN), Private("city-only", ("city",)))
READY_S = 90.0


@pytest.fixture(scope="module")
def net(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One Raft orderer, three organisations; two of them run the chaincodes, and either endorses."""
    line = not_run(os.environ.get(FABRIC_BIN))
    if line:
        pytest.skip(line)
    made = network(tmp_path_factory.mktemp("fabric"), "raft1")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city(net: Network, parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[City]:
    folder = tmp_path_factory.mktemp("conformance")
    members = issued(net, folder)
    async with AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}
        for msp_id in set(MEMBERS.values()):
            first = next(one for one in members.values() if one["msp_id"] == msp_id)
            connections[msp_id] = connect(first["address"], tls=Tls(Path(first["tls_ca"]).read_bytes()))
            stack.push_async_callback(connections[msp_id].close)

        def gateway(member: str) -> Gateway:
            own = members[member]
            names = read_identity(own["msp_id"], Path(own["certificate"]), Path(own["key"]))
            return Gateway(connections[own["msp_id"]], "city", *names)

        async def settled() -> None:
            wanted = await system.height(gateway("metering"))
            async with asyncio.timeout(READY_S):
                while await system.height(gateway("reader")) < wanted:
                    await asyncio.sleep(0.05)

        running = City("Fabric, raft1", gateway, lambda: system.height(gateway("metering")), settled)
        await _deploy(stack, net, running, parts, folder)
        await stack.enter_async_context(running.clients(parts, members, folder))
        yield running


def issued(net: Network, folder: Path) -> dict[str, Any]:
    """Certificates of the same members by Fabric's own authorities, and where each finds its organisation's peer."""
    found = {}
    for client in CLIENTS:
        organisation = next(one for one in net.plan.organisations if one.msp == client.msp_id)
        authority = organisation_folder(net.plan, organisation) / "ca"
        certificate = x509.load_pem_x509_certificate(next(authority.glob("*.pem")).read_bytes())
        subject = Subject(client.name, client.msp_id, client.role, attributes=client.attributes)
        whose = Authority(certificate, load_key(authority / "priv_sk"))
        pair = issue(whose, subject, datetime.now(UTC), 1, new_key(client.key))
        path = folder / f"{client.name}.pem"
        path.write_bytes(pair.certificate)
        write_private(path.with_suffix(".key"), pair.key)
        peer = net.plan.peer_of(organisation.name)
        found[client.name] = {
            "address": peer.address, "tls_ca": str(node_tls(net.plan, peer).roots), "msp_id": client.msp_id,
            "certificate": str(path), "key": str(path.with_suffix(".key")),
        }  # fmt: skip
    return found


async def _deploy(stack: AsyncExitStack, net: Network, running: City, parts: Parts, folder: Path) -> None:
    """Starts and deploys every chaincode; both organisations' peers use the same server."""
    server, _ = chaincode_tls(net.plan, net.plan.organisation("city"))
    endpoints: dict[str, Endpoint] = {}
    for name, port in zip(CHAINCODES, free_ports(len(CHAINCODES)), strict=True):
        endpoint = endpoints[name] = net.endpoint("city", port)
        package = net.package(name, "1", endpoint).id
        if language(name) == "ours":
            tls = ServerTls(server.certificate, server.key, server.roots)
            own = ChaincodeServer(package, own_chaincode, address=endpoint.address, tls=tls)
            await own.start()
            stack.push_async_callback(own.stop, 0.1)
            continue
        paths = {
            "chaincode_id": package, "address": endpoint.address, "certificate": str(server.certificate),
            "key": str(server.key), "client_ca": str(server.roots),
        }  # fmt: skip
        stack.callback(running.chaincode(parts, name, paths, folder).stop)
    for native in running.programs.values():
        await asyncio.to_thread(native.wait)
    policy = Policy("", RUN, 1, COLLECTIONS)
    releases = [
        net.release(replace(policy, contract=name), "1", dict.fromkeys(RUN, endpoint))
        for name, endpoint in endpoints.items()
    ]
    await asyncio.to_thread(net.deploy_many, releases)
    for name in CHAINCODES:
        for member in ("metering", "reader"):
            await _answers(running.gateway(member), name)


async def _answers(gateway: Gateway, chaincode: str) -> None:
    """Returns once this organisation's peer runs the chaincode."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                await gateway.evaluate(chaincode, "transient", [b"x"])
            except GatewayError:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("shim", SHIM_PARTS)
@pytest.mark.parametrize("client", CLIENT_PARTS)
async def test_cell(city: City, client: str, shim: str, scenario: Scenario, record_property: Any) -> None:
    await try_cell(city, client, shim, scenario, record_property)
