"""A chaincode that breaks the protocol disturbs nobody: its stream ends, the peer connects again, the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, chaincode_shim_pb2_grpc, proposal_response_pb2

from citykit.ledger.devpeer import development_peer
from citykit.ledger.fabric.errors import EvaluateError
from tests.unit.ledger.devpeer_network import Network, specification

Message = chaincode_shim_pb2.ChaincodeMessage
REGISTER = Message(type=Message.REGISTER, payload=chaincode_pb2.ChaincodeID(name="notes").SerializeToString())
ANSWER = proposal_response_pb2.Response(status=200, payload=b"ok").SerializeToString()


class Rogue(chaincode_shim_pb2_grpc.ChaincodeServicer):  # type: ignore[misc] # generated, untyped
    """Sends `opening` on its first connection, registers on later ones, and answers a transaction with `answer`'s messages."""

    def __init__(self, opening: list[Any], answer: Callable[[Any], list[Any]]) -> None:
        self._opening = opening
        self._answer = answer
        self.connections = 0
        self.errors: list[str] = []

    async def Connect(self, incoming: AsyncIterator[Any], context: Any) -> None:
        self.connections += 1
        for message in self._opening if self.connections == 1 else [REGISTER]:
            await context.write(message)
        async for message in incoming:
            if message.type == Message.ERROR:
                self.errors.append(message.payload.decode())
            if message.type == Message.TRANSACTION:
                for answer in self._answer(message):
                    await context.write(answer)


def completed(message: Any, payload: bytes = ANSWER) -> Any:
    return Message(type=Message.COMPLETED, txid=message.txid, channel_id=message.channel_id, payload=payload)


def asks(message: Any, kind: int, payload: bytes = b"", channel: str = "city", txid: str = "") -> Any:
    return Message(type=kind, txid=txid or message.txid, channel_id=channel, payload=payload)


@asynccontextmanager
async def against(state: Path, rogue: Rogue, **changes: Any) -> AsyncIterator[Network]:
    """A peer whose only chaincode is the rogue, in plain text."""
    server = grpc.aio.server()
    chaincode_shim_pb2_grpc.add_ChaincodeServicer_to_server(rogue, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    wanted = specification(execute_s=5.0, **changes)
    chaincode = replace(wanted.chaincodes[0], address=f"127.0.0.1:{port}", tls=False)
    async with development_peer(state, replace(wanted, chaincodes=(chaincode,))) as peer:
        running = Network(peer, {}, {})
        yield running
        for connection in running.connections.values():
            await connection.close()
    await server.stop(None)


@pytest.mark.parametrize(
    "opening",
    [
        [Message(type=Message.COMPLETED)],
        [Message(type=99)],
        [Message(type=Message.REGISTER, payload=b"\xff\xff")],
        [Message(type=Message.REGISTER, payload=chaincode_pb2.ChaincodeID(name="other").SerializeToString())],
    ],
    ids=["speaks before it registers", "unknown message", "registers with nonsense", "registers as another"],
)
async def test_a_chaincode_that_begins_wrongly_is_connected_again(tmp_path: Path, opening: list[Any]) -> None:
    rogue = Rogue(opening, lambda message: [completed(message)])
    async with against(tmp_path, rogue) as running:
        assert await running.gateway().evaluate("notes", "run") == b"ok"
    assert rogue.connections == 2


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (lambda m: asks(m, 99), "99"),
        (lambda m: asks(m, Message.GET_STATE, b"\xff\xff"), "GET_STATE failed"),
        (lambda m: asks(m, Message.GET_STATE, txid="of another"), "no ledger context"),
        (lambda m: asks(m, Message.GET_STATE, channel="town"), "no ledger context"),
        (lambda m: asks(m, Message.INVOKE_CHAINCODE, b"\xff\xff"), "INVOKE_CHAINCODE failed"),
        (lambda m: asks(m, Message.INVOKE_CHAINCODE, txid="of another"), "could not get valid transaction"),
        (lambda m: asks(m, Message.QUERY_STATE_NEXT), "query iterator not found"),
        (lambda m: asks(m, Message.PUT_STATE), "a key must not be empty"),
        (lambda m: asks(m, Message.WRITE_BATCH_STATE, b"\x0a\x00"), "unknown operation type"),
    ],
)
async def test_a_wrong_question_is_answered_with_an_error(tmp_path: Path, question: Any, said: str) -> None:
    rogue = Rogue([REGISTER], lambda message: [question(message), completed(message)])
    async with against(tmp_path, rogue) as running:
        assert await running.gateway().evaluate("notes", "run") == b"ok"
        async with asyncio.timeout(5.0):
            while not rogue.errors:
                await asyncio.sleep(0.002)
    assert said in rogue.errors[0]
    assert rogue.connections == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda m: completed(m, b"\xff\xff"), "answered with no response"),
        (lambda m: asks(m, Message.ERROR, b"out of ink"), "transaction returned with failure: out of ink"),
        (
            lambda m: completed(m, proposal_response_pb2.Response(status=500, message="no").SerializeToString()),
            "500, no",
        ),
        (lambda m: completed(m, proposal_response_pb2.Response(status=7).SerializeToString()), "chaincode response 7"),
    ],
)
async def test_an_answer_that_is_none_is_told_to_the_client(tmp_path: Path, answer: Any, said: str) -> None:
    rogue = Rogue([REGISTER], lambda message: [answer(message)])
    async with against(tmp_path, rogue) as running:
        with pytest.raises(EvaluateError, match=said):
            await running.gateway().evaluate("notes", "run")
