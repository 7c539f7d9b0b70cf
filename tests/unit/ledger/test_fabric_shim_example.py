"""The shim's example does what its docstring says."""

from __future__ import annotations

from citykit.ledger.fabric.examples.notes_chaincode import notes
from citykit.ledger.fabric.shim import ChaincodeServer
from tests.unit.ledger.fake_peer import FakePeer, creator


async def test_notes_belong_to_their_authors() -> None:
    server = ChaincodeServer("notes:1", notes, address="localhost:0")
    peer = await FakePeer().connect(await server.start())
    ada, bob = creator("ada"), creator("bob", "OtherMSP", role="clerk")
    put = await peer.invoke("put", "n/1", "hello", identity=ada)
    assert (put.status, put.event) == (200, ("note-put", b"n/1"))
    assert (await peer.invoke("get", "n/1")).payload == b'{"author": "CityMSP/ada", "text": "hello"}'
    assert (await peer.invoke("put", "n/1", "mine", identity=bob)).status == 403
    assert (await peer.invoke("put", "n/2", "mine", identity=bob)).status == 200
    assert b"OtherMSP/clerk" in peer.state["n/2"]
    assert (await peer.invoke("list", "n/")).payload == b'["n/1", "n/2"]'
    assert (await peer.invoke("remove", "n/1", identity=ada)).status == 200
    assert [(await peer.invoke(*call)).status for call in (("get", "n/1"), ("get",), ("sing",))] == [404, 400, 404]
    await peer.close()
    await server.stop()
