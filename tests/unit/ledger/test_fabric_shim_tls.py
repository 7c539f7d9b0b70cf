"""The chaincode shim over TLS: who may connect, and certificates that are renewed while it serves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from citykit.ledger.fabric.shim import ChaincodeServer, Stub
from tests.unit.ledger.fake_peer import FakePeer
from tests.unit.ledger.tls_files import Authority


async def echo(stub: Stub) -> bytes:
    return stub.args[0]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[ChaincodeServer]:
    made = ChaincodeServer("label:hash", echo, address="localhost:0", tls=authority.server())
    await made.start()
    yield made
    await made.stop()


async def test_a_peer_with_a_certificate_is_served(server: ChaincodeServer, authority: Authority) -> None:
    peer = await FakePeer().connect(server.port, authority.client())
    assert (await peer.invoke("hello")).payload == b"hello"
    await peer.close()


async def test_without_client_roots_any_client_is_served(authority: Authority) -> None:
    server = ChaincodeServer("label:hash", echo, address="localhost:0", tls=authority.server(mutual=False))
    await server.start()
    peer = await FakePeer().connect(server.port, authority.client(shown=False))
    assert (await peer.invoke("hello")).payload == b"hello"
    await peer.close()
    await server.stop()


async def test_strangers_and_plain_text_are_turned_away(
    server: ChaincodeServer, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other")
    stranger.issue("client")
    key, pem = (stranger.folder / "client.key").read_bytes(), (stranger.folder / "client.pem").read_bytes()
    foreign = grpc.ssl_channel_credentials((authority.folder / "ca.pem").read_bytes(), key, pem)
    for credentials in (None, authority.client(shown=False), foreign):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await FakePeer().connect(server.port, credentials)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.streams == 0


async def test_a_renewed_certificate_is_shown_to_the_next_peer(server: ChaincodeServer, authority: Authority) -> None:
    peer = await FakePeer().connect(server.port, authority.client())
    before = await shown(server.port, authority)
    (authority.folder / "server.key").unlink()
    assert await shown(server.port, authority) == before
    authority.issue("server")
    assert await shown(server.port, authority) != before
    again = await FakePeer().connect(server.port, authority.client())
    assert [(await one.invoke("x")).payload for one in (peer, again)] == [b"x", b"x"]
    await again.close()
    await peer.close()


async def shown(port: int, authority: Authority) -> str:
    """The certificate the server shows now."""
    roots = str(authority.folder / "ca.pem")
    return await asyncio.to_thread(ssl.get_server_certificate, ("localhost", port), ca_certs=roots, timeout=10)
