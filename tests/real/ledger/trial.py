"""The contract Counter on a development peer, for the tests beside this file: peer, chaincode and client in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from citykit.ledger.chaincode.runner import ContractRunner
from citykit.ledger.devpeer.peer import DevelopmentPeer, development_peer
from citykit.ledger.devpeer.specification import Chaincode, Client, Specification
from citykit.ledger.fabric.shim import ChaincodeServer, ServerTls
from citykit.settings import FabricSettings
from citykit.testing.counter import Counter
from infra.native import free_port

MSP = "CityMSP"
SUBMITTERS = ("tester", "auditor")


def specification(chaincode_port: int, organisations: tuple[str, ...] = (MSP,)) -> Specification:
    clients = tuple(Client(name, MSP, {"city.service": name}) for name in SUBMITTERS)
    counter = Chaincode("counter", f"127.0.0.1:{chaincode_port}")
    return Specification(organisations=organisations, chaincodes=(counter,), clients=clients, block_wait_ms=10)


@asynccontextmanager
async def running_peer(state: Path, organisations: tuple[str, ...] = (MSP,)) -> AsyncIterator[DevelopmentPeer]:
    """A development peer with Counter on it."""
    port = free_port()
    async with development_peer(state, specification(port, organisations)) as peer:
        tls = state / "tls"
        files = ServerTls(tls / "chaincode-counter.pem", tls / "chaincode-counter.key", tls / "ca.pem")
        server = ChaincodeServer("counter", ContractRunner(Counter()), address=f"127.0.0.1:{port}", tls=files)
        await server.start()
        try:
            yield peer
        finally:
            await server.stop()


def settings_for(peer: DevelopmentPeer) -> FabricSettings:
    """What a service would be told."""
    folder = peer.state
    return FabricSettings(
        peer=peer.address,
        msp=MSP,
        members=str(folder / "organisations" / MSP / "members"),
        tls_ca=str(folder / "tls" / "ca.pem"),
        tls_cert=str(folder / "tls" / f"{MSP}-tester.pem"),
        tls_key=str(folder / "tls" / f"{MSP}-tester.key"),
        commit_s=20,
    )
