"""Errors cross the gRPC edge as google.rpc.Status and come back as the same words; a fault tells the caller nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from citykit import errors
from citykit.edge import Edge, city_error, service_of
from citykit.errors import CityError

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
TREE = [
    errors.InvalidArgument, errors.Unauthenticated, errors.PermissionDenied, errors.NotFound, errors.AlreadyExists,
    errors.FailedPrecondition, errors.Conflict, errors.ResourceExhausted, errors.Unavailable, errors.OutcomeUnknown,
    errors.Damaged,
]  # fmt: skip


@contextlib.asynccontextmanager
async def channel_to(path: Path, failure: Exception | None) -> AsyncIterator[grpc.aio.Channel]:
    """A server with one RPC of each kind, which raises `failure` after a first answer, or echoes."""

    async def unary(request: Any, context: Any) -> bytes:
        if failure:
            raise failure
        return b"".join([part async for part in request]) if hasattr(request, "__aiter__") else request

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        if failure:
            raise failure

    handlers = {
        kind: getattr(grpc, f"{kind}_rpc_method_handler")(stream if kind.endswith("_stream") else unary)
        for kind in KINDS
    }
    server = grpc.aio.server()
    Edge(server).add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("city.metering.v1.MeteringService", handlers),)
    )
    socket = f"unix:{path / 'edge.sock'}"
    server.add_insecure_port(socket)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(socket) as channel:
            yield channel
    finally:
        await server.stop(0)


async def call(channel: grpc.aio.Channel, kind: str) -> list[bytes]:
    async def requests() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    made: Any = getattr(channel, kind)(f"/city.metering.v1.MeteringService/{kind}", None, None)
    started = made(requests()) if kind.startswith("stream") else made(b"ab")
    return [part async for part in started] if kind.endswith("_stream") else [await started]


async def error_of(path: Path, kind: str, failure: Exception) -> CityError:
    async with channel_to(path, failure) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, kind)
        return city_error(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_good_call_passes_through(tmp_path: Path, kind: str) -> None:
    async with channel_to(tmp_path, None) as channel:
        assert await call(channel, kind) == ([b"first"] if kind.endswith("_stream") else [b"ab"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", TREE, ids=lambda word: word.__name__)
async def test_every_word_of_the_tree_survives_the_edge(tmp_path: Path, kind: str, word: type[CityError]) -> None:
    sent = word("the page is too big; ask for at most 500 rows", reason="page", field="page_size", retry_after_s=2.25)
    found = await error_of(tmp_path, kind, sent)
    assert type(found) is word
    assert (found.message, found.reason, found.field, found.retry_after_s) == (sent.message, "page", "page_size", 2.25)


async def test_a_subclass_arrives_as_the_word_of_its_status(tmp_path: Path) -> None:
    found = await error_of(tmp_path, "unary_unary", errors.RequestReused("take a new id"))
    assert (type(found), found.reason, found.field) == (errors.InvalidArgument, "request-id-reused", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_tells_nothing_but_its_number(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "city.metering"):
        found = await error_of(tmp_path, kind, ValueError("row (ada, 12 Elm Street) breaks UNIQUE"))
    assert type(found) is CityError
    [record] = [record for record in caplog.records if record.message == "call-failed"]
    fields = record.__dict__["fields"]
    assert fields["number"] in found.message
    assert fields["kind"] == "ValueError"
    assert any(place.startswith("test_edge.py:") for place in fields["at"])
    assert "ada" not in found.message + str(record.__dict__)


async def test_an_error_of_a_service_behind_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    async with channel_to(tmp_path / "behind", errors.NotFound("no device m-1", reason="unknown-device")) as behind:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(behind, "unary_unary")
    found = await error_of(tmp_path, "unary_unary", caught.value)
    assert (type(found), found.reason) == (errors.NotFound, "unknown-device")


def test_a_deadline_leaves_the_outcome_unknown() -> None:
    empty = grpc.aio.Metadata()
    missed = grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, empty, empty, None, None)
    found = city_error(missed)
    assert (type(found), found.message) == (errors.OutcomeUnknown, "deadline_exceeded")


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("city.metering.v1.MeteringService", "metering"),
        ("grpc.health.v1.Health", "grpc.health.v1.Health"),
        ("city", "city"),
    ],
)
def test_the_service_is_the_word_after_city(name: str, service: str) -> None:
    assert service_of(name) == service


async def test_a_handler_may_end_a_call_itself(tmp_path: Path) -> None:
    async def ending(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.CANCELLED, "ended by the handler")

    handler = grpc.method_handlers_generic_handler(
        "city.metering.v1.MeteringService", {"unary_unary": grpc.unary_unary_rpc_method_handler(ending)}
    )
    server = grpc.aio.server()
    Edge(server).add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{tmp_path / 'edge.sock'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'edge.sock'}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, "unary_unary")
    await server.stop(0)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.CANCELLED, "ended by the handler")


def test_who_cannot_be_reached_is_told_without_addresses() -> None:
    told = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:21967: Connection refused"
    empty = grpc.aio.Metadata()
    refused = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, told, None)
    found = city_error(refused)
    expected = "a service of the city cannot be reached just now; try again in a moment"
    assert (type(found), found.message) == (errors.Unavailable, expected)
