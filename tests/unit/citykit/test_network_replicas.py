"""Several replicas of a service under one name: calls spread over them, and a new one gets its share when connections have aged."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from citykit.errors import SettingsError
from citykit.network import TlsNetwork, read_addresses, server_options, tls_network
from citykit.settings import ServicesSettings
from citykit.testing.polling import until
from infra.certificates import ensure_certificates
from infra.native import free_port

PLACES = ("127.0.0.1", "127.0.0.2")
METHOD, STREAM = "/city.test.v1.TestService/Ask", "/city.test.v1.TestService/Send"
NAMES = ("identity", "notary")
CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
"""The second where the caller was just sending."""
AGED = ServicesSettings(connection_age_s=0.2, connection_grace_s=1.0)
AGED_LATER = ServicesSettings(connection_age_s=1.0, connection_grace_s=1.0)
"""Long enough for a few rounds of calls in between."""
ROUNDS = 5
_QUESTION = 12
"""Bytes of a DNS message before its question (RFC 1035, 4.1.1)."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ensure_certificates(folder, NAMES)
    return folder


class Replica(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Answers each call, and counts: unary calls, and requests of streams."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(self._one)
        return grpc.stream_stream_rpc_method_handler(self._each)

    async def _one(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        return request

    async def _each(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.calls += 1
            yield request


@asynccontextmanager
async def replica(certificates: Path, listen: str, settings: ServicesSettings) -> AsyncIterator[Replica]:
    """A replica of identity at an address of its own, as a pod is."""
    network = TlsNetwork({"identity": "dns:///identity:50051"}, lambda name: certificates / name, (), listen)
    found, server = Replica(), grpc.aio.server(options=server_options(settings))
    server.add_generic_rpc_handlers((found,))
    network.listen(server, ["identity"])
    await server.start()
    try:
        yield found
    finally:
        await server.stop(0.1)


def caller(certificates: Path, address: str) -> grpc.aio.Channel:
    network = TlsNetwork({"identity": address}, lambda name: certificates / name)
    return network.channel("notary", "identity")


@dataclass(frozen=True)
class Stub:
    """What generated code would be."""

    one: Any
    stream: Any


def stub(channel: grpc.aio.Channel) -> Stub:
    return Stub(
        channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None),
        channel.stream_stream(STREAM, request_serializer=None, response_deserializer=None),
    )


async def ask(channel: grpc.aio.Channel, times: int) -> None:
    call = stub(channel).one
    for _ in range(times):
        assert await call(b"?", timeout=10.0, wait_for_ready=True) == b"?"


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"!"


async def test_calls_spread_over_the_replicas_of_a_name(certificates: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(replica(certificates, f"{place}:{port}", ServicesSettings()))
            for place in PLACES
        ]
        targets = ",".join(f"{place}:{port}" for place in PLACES)
        channel = await stack.enter_async_context(caller(certificates, f"ipv4:{targets}"))

        async def both() -> bool:
            await ask(channel, 1)
            return all(one.calls for one in replicas)

        await until(both, "a connection to each replica")
        before = [one.calls for one in replicas]
        await ask(channel, 100)
        assert [one.calls - was for one, was in zip(replicas, before, strict=True)] == [50, 50]


async def test_an_address_alone_goes_to_one_replica(certificates: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(replica(certificates, f"{place}:{port}", ServicesSettings()))
            for place in PLACES
        ]
        channel = await stack.enter_async_context(caller(certificates, f"127.0.0.1:{port}"))
        await ask(channel, 10)
        assert [one.calls for one in replicas] == [10, 0]


def waiting(certificates: Path, address: str, *, wait: bool) -> grpc.aio.Channel:
    network = TlsNetwork({"identity": f"dns:///{address}"}, lambda name: certificates / name, wait=wait)
    return network.channel("notary", "identity")


async def test_a_call_to_nobody_fails_at_once(certificates: Path) -> None:
    async with waiting(certificates, f"127.0.0.1:{free_port()}", wait=False) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await stub(channel).one(b"?", timeout=30.0)
    assert away.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_waits_for_a_service_that_is_replaced_where_that_is_set(certificates: Path) -> None:
    """The old one has stopped, the new one has not begun; a call's own time limit stands."""
    address = f"127.0.0.1:{free_port()}"
    async with waiting(certificates, address, wait=True) as channel:
        asked = asyncio.ensure_future(stub(channel).one(b"?", timeout=30.0))
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await stub(channel).one(b"?", timeout=0.2)
        assert away.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not asked.done()
        async with replica(certificates, address, ServicesSettings()):
            assert await asked == b"?"


async def test_a_replica_that_comes_later_gets_its_share(certificates: Path) -> None:
    """A name server tells of it, and the age of connections makes callers ask again."""
    port, known = free_port(), [PLACES[0]]
    async with AsyncExitStack() as stack:
        names = stack.enter_context(name_server(known))
        first = await stack.enter_async_context(replica(certificates, f"{PLACES[0]}:{port}", AGED))
        channel = await stack.enter_async_context(caller(certificates, f"dns://{names}/identity.city.test:{port}"))
        await ask(channel, 5)
        assert first.calls == 5
        second = await stack.enter_async_context(replica(certificates, f"{PLACES[1]}:{port}", AGED))
        known.append(PLACES[1])

        async def joined() -> bool:
            await ask(channel, 1)
            return second.calls > 0

        await until(joined, "a call at the new replica")


async def test_the_calls_of_a_version_are_its_share_of_the_replicas(certificates: Path) -> None:
    """Three replicas of the old version and one of the new behind one name: of a hundred calls, 25 try the new one."""
    port, places = free_port(), [f"127.0.0.{number}" for number in range(1, 5)]
    async with AsyncExitStack() as stack:
        names = stack.enter_context(name_server(places))
        *old, new = [
            await stack.enter_async_context(replica(certificates, f"{place}:{port}", ServicesSettings()))
            for place in places
        ]
        channel = await stack.enter_async_context(caller(certificates, f"dns://{names}/identity.city.test:{port}"))
        await spread(channel, [*old, new])
        before = [sum(one.calls for one in old), new.calls]
        await ask(channel, 100)
        assert [sum(one.calls for one in old) - before[0], new.calls - before[1]] == [75, 25]


async def test_the_share_of_a_version_follows_its_replicas_and_no_call_fails(certificates: Path) -> None:
    """One of four, then two, then all: what left the name gets no call any more, though it still runs, and may then end."""
    port, known = free_port(), [f"127.0.0.{number}" for number in range(1, 5)]
    async with AsyncExitStack() as stack:
        names = stack.enter_context(name_server(known))
        old_stack = await stack.enter_async_context(AsyncExitStack())

        async def begun(number: int, among: AsyncExitStack) -> Replica:
            return await among.enter_async_context(replica(certificates, f"127.0.0.{number}:{port}", AGED_LATER))

        old, new = [await begun(number, old_stack) for number in (1, 2, 3)], [await begun(4, stack)]
        channel = await stack.enter_async_context(caller(certificates, f"dns://{names}/identity.city.test:{port}"))
        await spread(channel, [*old, *new])

        new.append(await begun(5, stack))
        known[:] = ["127.0.0.1", "127.0.0.2", "127.0.0.4", "127.0.0.5"]
        await spread(channel, [*old[:2], *new], [old[2]])

        new += [await begun(6, stack), await begun(7, stack)]
        known[:] = [f"127.0.0.{number}" for number in range(4, 8)]
        await spread(channel, new, old)
        had = [one.calls for one in old]
        ending = asyncio.ensure_future(old_stack.aclose())
        while not ending.done():
            await ask_at_once(channel, 1)
        await ending
        await spread(channel, new, old)
        assert [one.calls for one in old] == had


async def spread(channel: grpc.aio.Channel, among: Sequence[Replica], without: Sequence[Replica] = ()) -> None:
    """Until a few rounds of calls go to each of these as often, and to those not at all. A call that fails fails the test."""

    async def even() -> bool:
        every = (*among, *without)
        before = [one.calls for one in every]
        await ask_at_once(channel, ROUNDS * len(among))
        had = [one.calls - was for one, was in zip(every, before, strict=True)]
        return had == [*([ROUNDS] * len(among)), *([0] * len(without))]

    await until(even, f"the same number of calls at each of {len(among)} replicas")


async def ask_at_once(channel: grpc.aio.Channel, times: int) -> None:
    """Calls that do not wait for somebody to be there."""
    call = stub(channel).one
    for _ in range(times):
        assert await call(b"?", timeout=10.0) == b"?"


async def test_a_stream_is_cut_when_its_connection_has_aged_and_what_was_answered_stays(certificates: Path) -> None:
    """Who sends on such a stream begins it again with what has no answer yet."""
    port, answered = free_port(), 0
    settings = ServicesSettings(connection_age_s=0.1, connection_grace_s=1.0)
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(replica(certificates, f"127.0.0.1:{port}", settings))
        channel = await stack.enter_async_context(caller(certificates, f"dns:///127.0.0.1:{port}"))
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            async for _ in stub(channel).stream(endless()):
                answered += 1
        assert cut.value.code() in CUT
        assert 0 < answered <= found.calls
        await ask(channel, 1)


def test_a_server_ends_connections_only_where_an_age_is_set() -> None:
    assert not [name for name, _ in server_options(ServicesSettings()) if "age" in name and "connection" in name]
    options = dict(server_options(ServicesSettings(connection_age_s=300.0, connection_grace_s=60.0)))
    assert options["grpc.max_connection_age_ms"] == 300_000
    assert options["grpc.max_connection_age_grace_ms"] == 60_000


async def test_where_a_process_listens_is_not_where_others_look(certificates: Path) -> None:
    assert read_addresses("identity=dns:///identity:50051") == {"identity": "dns:///identity:50051"}
    network = TlsNetwork({"identity": "dns:///identity:50051"}, lambda name: certificates / name)
    server = grpc.aio.server()
    with pytest.raises(SettingsError, match=r"CITY_SERVICES_LISTEN to a host:port.*0\.0\.0\.0:50051"):
        network.listen(server, ["identity"])
    for wrong in ("50051", ":50051", "0.0.0.0", "dns:///identity:50051"):
        with pytest.raises(SettingsError, match="CITY_SERVICES_LISTEN must be host:port"):
            tls_network(ServicesSettings(certificates="x", listen=wrong))


@contextmanager
def name_server(known: Sequence[str]) -> Iterator[str]:
    """Answers every question for an address with what is known at that moment, for no time to keep."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind(("127.0.0.1", 0))
        served.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(served.fileno(), _answer, served, known)
        try:
            yield f"127.0.0.1:{served.getsockname()[1]}"
        finally:
            loop.remove_reader(served.fileno())


def _answer(served: socket.socket, known: Sequence[str]) -> None:
    message, asker = served.recvfrom(512)
    end = message.index(b"\0", _QUESTION) + 5
    kind = struct.unpack("!H", message[end - 4 : end - 2])[0]
    found = [socket.inet_aton(one) for one in known] if kind == 1 else []
    records = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + address for address in found)
    header = message[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
    served.sendto(header + message[_QUESTION:end] + records, asker)
