"""A development peer with two chaincodes on our shim and clients of two organisations, over mutual TLS on loopback."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from citykit.ledger.devpeer import Chaincode, Client, Collection, DevelopmentPeer, Specification, development_peer
from citykit.ledger.devpeer.enrolment import enrol, profile
from citykit.ledger.fabric import Gateway, Tls, connect, read_identity
from citykit.ledger.fabric.connection import Connection
from citykit.ledger.fabric.shim import ChaincodeServer, Handler, ServerTls, Stub
from infra.native import free_port
from tests.unit.ledger.scenario_chaincode import scenario

CITY, UTILITY = "CityMSP", "UtilityMSP"
CLIENTS = (
    Client("metering", CITY, {"city.service": "metering"}),
    Client("billing", CITY),
    Client("edward", CITY, key="ed25519"),
    Client("reader", UTILITY, {"city.service": "reader"}),
)
COLLECTIONS = (
    Collection("both", (CITY, UTILITY)),
    Collection("city-only", (CITY,)),
)


@dataclass
class Network:
    """What runs.

    Attributes:
        servers: chaincode servers by chaincode name.
        handlers: what each runs; a test may put another in.
    """

    peer: DevelopmentPeer
    servers: dict[str, ChaincodeServer]
    connections: dict[str, Connection]
    handlers: dict[str, Handler] = field(default_factory=dict)

    def gateway(self, client: str = "metering", msp_id: str = CITY, channel: str = "city") -> Gateway:
        """A client of the channel."""
        name = f"{msp_id}-{client}"
        paths = self.peer.profile["organisations"][msp_id]["identities"][client]
        if name not in self.connections:
            self.connections[name] = connect(self.peer.address, tls=tls_of(self.peer.profile, paths))
        identity, signer = read_identity(msp_id, Path(paths["certificate"]), Path(paths["key"]))
        return Gateway(self.connections[name], channel, identity, signer)


def specification(*, policy: str = "OR('CityMSP.peer','UtilityMSP.peer')", **changes: Any) -> Specification:
    """Two organisations, the chaincodes `notes` and `other` on free ports; blocks as soon as anything waits."""
    chaincodes = tuple(
        Chaincode(name, f"127.0.0.1:{free_port()}", policy=policy, collections=COLLECTIONS)
        for name in ("notes", "other")
    )
    made = Specification(
        organisations=(CITY, UTILITY), chaincodes=chaincodes, clients=CLIENTS, block_wait_ms=2, connect_s=5.0
    )
    return replace(made, **changes)


def tls_of(profile: dict[str, Any], paths: dict[str, Any]) -> Tls:
    """TLS material of a client."""
    return Tls(
        Path(profile["gateway"]["tls_ca"]).read_bytes(),
        Path(paths["tls_certificate"]).read_bytes(),
        Path(paths["tls_key"]).read_bytes(),
    )


def chaincode_server(
    profile: dict[str, Any], name: str, address: str = "", handler: Handler = scenario
) -> ChaincodeServer:
    """A chaincode on our shim, with the TLS material the peer made for it."""
    paths = profile["chaincodes"][name]
    tls = ServerTls(Path(paths["certificate"]), Path(paths["key"]), Path(paths["client_ca"]))
    return ChaincodeServer(paths["chaincode_id"], handler, address=address or paths["address"], tls=tls)


@asynccontextmanager
async def network(state: Path, wanted: Specification | None = None) -> AsyncIterator[Network]:
    """Peer and chaincodes, started. The chaincodes take free ports first, so that nobody else has them by then."""
    wanted = wanted or specification()
    async with AsyncExitStack() as stack:
        made = profile(enrol(state, wanted, datetime.datetime.now(datetime.UTC)), wanted, 0)
        servers: dict[str, ChaincodeServer] = {}
        handlers: dict[str, Handler] = {one.name: scenario for one in wanted.chaincodes}
        places = []
        for chaincode in wanted.chaincodes:
            chosen = partial(_run, handlers, chaincode.name)
            server = servers[chaincode.name] = chaincode_server(made, chaincode.name, "127.0.0.1:0", chosen)
            places.append(replace(chaincode, address=f"127.0.0.1:{await server.start()}"))
            stack.push_async_callback(_stop, server)
        peer = await stack.enter_async_context(development_peer(state, replace(wanted, chaincodes=tuple(places))))
        running = Network(peer, servers, {}, handlers)
        yield running
        for connection in running.connections.values():
            await connection.close()


async def _run(handlers: dict[str, Handler], name: str, stub: Stub) -> Any:
    return await handlers[name](stub)


async def _stop(server: ChaincodeServer) -> None:
    """Stops a server once its peer has left, which needs no grace."""
    async with asyncio.timeout(5.0):
        while server.streams:
            await asyncio.sleep(0.002)
    await server.stop(0.1)
