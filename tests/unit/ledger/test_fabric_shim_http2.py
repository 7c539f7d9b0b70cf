"""The chaincode server's HTTP/2: what RFC 9113 and gRPC ask of it, and that a peer which breaks them is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

import grpc
import pytest
from hpack import Decoder

from citykit.ledger.fabric import shim_connection, shim_http2, shim_listener
from citykit.ledger.fabric.shim import ChaincodeServer, Limits, Stub
from tests.unit.ledger.fake_peer import DEADLINE_S, FakePeer, Message, creator, transaction, until
from tests.unit.ledger.raw_http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    Dialler,
    RawClient,
)

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED, CALM = 1, 3, 5, 6, 7, 11
READY = [Message(type=Message.REGISTERED), Message(type=Message.READY)]


async def echo(stub: Stub) -> bytes:
    return stub.args[0]


@pytest.fixture
async def server() -> AsyncIterator[ChaincodeServer]:
    made = ChaincodeServer("label:hash", echo, address="127.0.0.1:0", limits=Limits(message_bytes=4_000_000))
    await made.start()
    yield made
    await made.stop(0)


@pytest.fixture
async def dial(server: ChaincodeServer) -> AsyncIterator[Dialler]:
    dialler = Dialler(server.port)
    yield dialler
    await dialler.close()


async def registered(dial: Dialler, settings: bytes = b"") -> RawClient:
    client = await dial(settings=settings)
    client.open()
    for message in READY:
        client.message(message.SerializeToString())
    return client


def call(data: bytes, txid: str = "t") -> bytes:
    return bytes(transaction(txid, [data], creator(), {}).SerializeToString())


@pytest.mark.parametrize("size", [1, 20_000, 3_000_000])
async def test_large_messages_pass_both_ways(server: ChaincodeServer, size: int) -> None:
    peer = await FakePeer().connect(server.port)
    data = bytes(range(256)) * (size // 256) + b"x"
    outcomes = await asyncio.gather(*(peer.invoke(data) for _ in range(7)))  # more than a window in all
    assert all(outcome.payload == data for outcome in outcomes)
    await peer.close()


async def test_what_is_sent_keeps_within_the_peers_windows_and_frames(dial: Dialler) -> None:
    client = await registered(dial, settings=struct.pack(">HI", 4, 100))
    client.message(call(b"y" * 40_000))
    await client.next(DATA)
    client.send(PING, payload=b"12345678")
    await client.next(PING)
    assert sum(len(payload) for kind, _, _, payload in client.frames if kind == DATA) == 100
    client.send(WINDOW, 0, 1, struct.pack(">I", 50_000))
    while sum(len(payload) for kind, _, _, payload in client.frames if kind == DATA) < 40_000:
        await client.next(DATA)
    assert max(len(payload) for kind, _, _, payload in client.frames if kind == DATA) <= 16_384


async def test_a_window_that_grows_by_settings_lets_more_out(dial: Dialler) -> None:
    client = await registered(dial, settings=struct.pack(">HI", 4, 0))
    client.send(PING, payload=b"12345678")
    await client.next(PING)
    assert not [frame for frame in client.frames if frame[0] == DATA]
    client.send(SETTINGS, 0, 0, struct.pack(">HI", 4, 1_000))
    assert b"label:hash" in (await client.next(DATA))[3]


async def test_messages_may_come_in_pieces_padded_and_several_at_once(dial: Dialler) -> None:
    client = await dial()
    headers = client.encoder.encode(
        [(":method", "POST"), (":path", "/protos.Chaincode/Connect"), ("content-type", "application/grpc+proto")]
    )
    client.send(HEADERS, 0x20, 1, bytes(5) + headers[:7])
    client.send(CONTINUATION, 0, 1, headers[7:9])
    client.send(CONTINUATION, 0x4, 1, headers[9:])
    framed = b"".join(
        struct.pack(">BI", 0, len(data)) + data for data in (*(m.SerializeToString() for m in READY), call(b"hello"))
    )
    for byte in framed[:40]:
        client.send(DATA, 0, 1, bytes([byte]))
    client.send(DATA, 0x8, 1, b"\x03" + framed[40:] + b"\0\0\0")
    while b"hello" not in b"".join(payload for kind, _, _, payload in client.frames if kind == DATA):
        await client.next(DATA)


async def test_pings_are_answered_and_settings_acknowledged(dial: Dialler) -> None:
    client = await dial()
    client.send(PING, payload=b"abcdefgh")
    assert (await client.next(PING))[1:] == (1, 0, b"abcdefgh")
    assert (SETTINGS, 1, 0, b"") in client.frames
    client.send(SETTINGS, 1)
    client.send(77, 0xFF, 3, b"a frame of a kind nobody knows")
    client.send(PING, 1, payload=b"abcdefgh")
    client.send(PING, payload=b"stillon!")
    assert (await client.next(PING))[3] == b"stillon!"


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"path": "/protos.Chaincode/Other"}, "12", "Connect only"),
        ({"path": "/grpc.health.v1.Health/Check"}, "12", "Connect only"),
        ({"content_type": "text/html"}, "3", "gRPC only"),
    ],
)
async def test_other_calls_are_told_what_is_here(dial: Dialler, change: dict[str, Any], status: str, word: str) -> None:
    client = await dial()
    client.open(**change)
    found, message = await client.status()
    assert (found, word in message) == (status, True)


async def test_compressed_and_oversized_messages_end_the_call_not_the_connection(dial: Dialler) -> None:
    client = await dial()
    client.open(1)
    client.message(b"x", compressed=1)
    assert (await client.status())[0] == "12"
    client.open(3)
    client.send(DATA, 0, 3, struct.pack(">BI", 0, 4_000_001))
    assert (await client.status())[0] == "8"
    client.open(5)
    client.message(b"\xff\xff", 5)
    assert (await client.status())[0] == "9"
    client.open(7)
    assert b"label:hash" in (await client.next(DATA))[3]


async def test_a_peer_that_says_it_is_done_ends_its_stream(server: ChaincodeServer, dial: Dialler) -> None:
    client = await registered(dial)
    await until(lambda: server.streams == 1)
    client.send(DATA, 0x1, 1)
    assert (await client.status())[0] == "0"
    assert server.streams == 0


async def test_more_calls_than_allowed_on_a_connection_are_refused(dial: Dialler) -> None:
    client = await dial()
    for number in range(17):
        client.open(2 * number + 1)
    _, _, stream, payload = await client.next(RST_STREAM)
    assert (stream, payload) == (33, struct.pack(">I", REFUSED))


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda client: client.send(DATA, 0, 9, b"x"), PROTOCOL_ERROR),
        (lambda client: client.send(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (lambda client: client.send(RST_STREAM, 0, 9, bytes(4)), PROTOCOL_ERROR),
        (lambda client: client.send(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
        (lambda client: client.send(DATA, 0x8, 1), FRAME_SIZE_ERROR),
        (lambda client: client.send(DATA, 0x8, 1, b"\x09x"), PROTOCOL_ERROR),
        (lambda client: client.open(2), PROTOCOL_ERROR),
        (lambda client: client.send(HEADERS, 0x4, 3, b"\xff\xff\xff\xff\xff"), PROTOCOL_ERROR),
        (lambda client: client.send(CONTINUATION, 0x4, 1, b""), PROTOCOL_ERROR),
        (lambda client: (client.open(3, 0), client.send(PING, payload=bytes(8))), PROTOCOL_ERROR),
        (lambda client: (client.open(3, 0), client.send(CONTINUATION, 0, 3, bytes(20_000))), CALM),
        (lambda client: client.send(PING, payload=b"short"), FRAME_SIZE_ERROR),
        (lambda client: client.send(PUSH, 0, 1, bytes(4)), PROTOCOL_ERROR),
        (lambda client: client.send(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
        (lambda client: client.send(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), FLOW_CONTROL_ERROR),
        (lambda client: client.send(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), PROTOCOL_ERROR),
        (lambda client: client.send(WINDOW, 0, 0, bytes(4)), PROTOCOL_ERROR),
        (lambda client: client.send(WINDOW, 0, 1, struct.pack(">I", 2**31 - 1)), FLOW_CONTROL_ERROR),
        (lambda client: client.send(DATA, 0, 1, bytes(2_000_000)), FRAME_SIZE_ERROR),
        (lambda client: client.writer.write(b"\x20\x00\x00\x00\x00\x00\x00\x00\x01"), FRAME_SIZE_ERROR),
    ],
)  # fmt: skip
async def test_a_broken_frame_ends_the_connection_with_its_code(
    server: ChaincodeServer, dial: Dialler, act: Callable[[RawClient], object], code: int
) -> None:
    client = await registered(dial)
    act(client)
    assert await client.goaway() == code
    await until(lambda: server.streams == 0)


async def test_headers_on_a_stream_that_ended_end_the_connection(dial: Dialler) -> None:
    client = await registered(dial)
    client.send(RST_STREAM, 0, 1, struct.pack(">I", 8))
    client.open(1)
    assert await client.goaway() == STREAM_CLOSED


async def test_calls_opened_and_reset_without_end_are_cut_off(dial: Dialler) -> None:
    client = await dial()
    for number in range(102):
        client.open(2 * number + 1)
        client.send(RST_STREAM, 0, 2 * number + 1, struct.pack(">I", 8))
    assert await client.goaway() == CALM


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", PREFACE[:10] + b"x" * 30]
)
async def test_who_speaks_no_http2_is_told_and_cut_off(dial: Dialler, said: bytes) -> None:
    client = await dial(greet=False)
    client.writer.write(said)
    assert await client.goaway() == PROTOCOL_ERROR


async def test_who_says_nothing_is_cut_off(dial: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim_connection, "_HANDSHAKE_S", 0.05)
    client = await dial(greet=False)
    assert SETTINGS in (await client.ended())


async def test_a_silent_peer_is_asked_and_one_that_does_not_answer_is_cut_off(
    server: ChaincodeServer, dial: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shim_connection, "_KEEPALIVE_S", 0.02)
    monkeypatch.setattr(shim_connection, "_KEEPALIVE_ANSWER_S", 0.3)
    client = await registered(dial)
    for _ in range(2):
        client.send(PING, 1, payload=(await client.next(PING))[3])
    assert server.streams == 1
    await client.next(PING)
    await client.ended()
    await until(lambda: server.streams == 0)


async def test_a_peer_that_asks_and_never_reads_is_cut_off(server: ChaincodeServer, dial: Dialler) -> None:
    client = await registered(dial, settings=struct.pack(">HI", 4, 0))
    keepalive = struct.pack(">BI", 0, 2) + Message(type=Message.KEEPALIVE).SerializeToString()
    with pytest.raises(ConnectionError):
        for _ in range(1_000):
            client.send(DATA, 0, 1, keepalive * 2_000)
            await client.writer.drain()
    await until(lambda: server.streams == 0)


async def test_stopping_says_goaway_and_ends_streams(server: ChaincodeServer, dial: Dialler) -> None:
    client = await registered(dial)
    await until(lambda: server.streams == 1)
    stopping = asyncio.create_task(server.stop())
    assert (await client.status())[0] == "0"
    await client.next(GOAWAY)
    assert await client.ended() == b""
    await stopping


async def test_a_connection_the_peer_takes_leave_of_is_closed(dial: Dialler) -> None:
    client = await dial()
    client.send(GOAWAY, 0, 0, bytes(8))
    await client.ended()
    client.writer.close()


@pytest.mark.parametrize("message", ["", "plain", "é and a % sign\n", "x" * 126, "x" * 127, "x" * 128, "x" * 20_000])
def test_the_end_of_a_call_is_read_by_any_client(message: str) -> None:
    data = shim_http2.trailers(5, 9, message, alone=True)
    length, kind, flags, stream = shim_http2.read_header(data, 0)
    assert (length, kind, flags, stream) == (len(data) - 9, HEADERS, 0x5, 5)
    headers = {str(name): unquote(str(value)) for name, value in Decoder(30_000).decode(data[9:])}
    expected = {":status": "200", "content-type": "application/grpc", "grpc-status": "9", "grpc-message": message}
    assert headers == {name: value for name, value in expected.items() if value}


async def test_more_connections_than_allowed_are_closed(
    server: ChaincodeServer, dial: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shim_listener, "_CONNECTIONS_MAX", 2)
    kept = [await dial(), await dial()]
    for client in kept:
        await client.next(SETTINGS)
    assert await (await dial(greet=False)).ended() == b""
    kept[0].writer.close()
    peer = await connected_again(server)
    assert (await peer.invoke("x")).payload == b"x"
    await peer.close()


async def connected_again(server: ChaincodeServer) -> FakePeer:
    """A peer, once the server has noticed that a connection was closed."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await FakePeer().connect(server.port)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
async def test_random_frames_break_only_their_own_connection(
    server: ChaincodeServer, dial: Dialler, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    choose = random.Random(seed)
    peer = await FakePeer().connect(server.port)
    with caplog.at_level(logging.ERROR):
        for _ in range(60):
            client = await dial()
            client.open()
            for _ in range(choose.randint(1, 12)):
                client.send(
                    choose.randint(0, 10), choose.randint(0, 255), choose.choice([0, 1, 1, 3, 4]), some_bytes(choose)
                )
            client.writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                await client.ended()
        assert (await peer.invoke("still here")).payload == b"still here"
    faults = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record for record in faults if record.name.startswith("citykit.ledger.fabric")] == []
    await peer.close()
    await until(lambda: server.streams == 0)


def some_bytes(choose: random.Random) -> bytes:
    """Bytes that mean nothing, or a part of what means something."""
    framed = b"".join(
        struct.pack(">BI", 0, len(data)) + data for data in (message.SerializeToString() for message in READY)
    )
    kind = choose.randint(0, 3)
    if kind == 0:
        return choose.randbytes(choose.choice([0, 1, 4, 5, 6, 8, 30, 3_000]))
    if kind == 1:
        return framed[: choose.randint(0, len(framed))]
    return framed if kind == 2 else bytes(choose.choice([4, 8, 12]))
