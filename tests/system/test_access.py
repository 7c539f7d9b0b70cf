"""Every RPC of every service, called with every role: generated from the descriptors, over real gRPC with stub handlers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from citykit.access import (
    AccessCheck,
    KeySource,
    ServiceTokens,
    TokenVerifier,
    bearer_client_interceptors,
    bearer_interceptors_of,
    mint,
    role_name,
    rules_of,
    signing_key,
)
from citykit.edge import Edge, city_error, service_of
from citykit.errors import PermissionDenied, Unauthenticated
from citykit.settings import CitySettings

PROTOS = Path(__file__).parents[2] / "protos"
ROLES = [role_name(number) for number in access_pb2.Role.values() if number]
CITY_KEY = signing_key(bytes(range(32)))
SERVICE_SEED = bytes(range(32, 64))
ISSUER = f"https://{CitySettings().general.city}"


def services() -> list[ServiceDescriptor]:
    """Every service any proto of the city defines: a new one is covered without a change here."""
    found: list[ServiceDescriptor] = []
    for path in sorted(PROTOS.rglob("*.proto")):
        name = path.relative_to(PROTOS).as_posix()
        import_module(name.replace("/", ".").removesuffix(".proto") + "_pb2")
        found += descriptor_pool.Default().FindFileByName(name).services_by_name.values()  # type: ignore[no-untyped-call]
    return found


SERVICES = services()
METHODS = [method for service in SERVICES for method in service.methods]


def rule_of(method: MethodDescriptor) -> Any:
    return method.GetOptions().Extensions[access_pb2.access]


def roles_of(method: MethodDescriptor) -> set[str]:
    return {role_name(role) for role in rule_of(method).roles}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


class Stubs(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Answers every RPC with an empty message, and GetJwks with the city's keys."""

    def __init__(self) -> None:
        self._methods = {path_of(method): method for method in METHODS}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = self._methods.get(handler_call_details.method)
        return None if method is None else _handler(method)


def _handler(method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    make_request = message_factory.GetMessageClass(method.input_type)
    answer = message_factory.GetMessageClass(method.output_type)()
    if isinstance(answer, identity.GetJwksResponse):
        answer.json = json.dumps({"keys": [CITY_KEY.as_dict(private=False)]})

    async def unary(request: Any, context: Any) -> Any:
        return answer

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield answer

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(method.client_streaming, method.server_streaming)]
    behaviour: Any = stream if method.server_streaming else unary
    return make(behaviour, make_request.FromString, lambda message: message.SerializeToString())


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[str]:
    """A server that guards all services as a city does."""
    socket = f"unix:{tmp_path / 'access.sock'}"
    channels: list[grpc.aio.Channel] = []

    def dial(_: str) -> grpc.aio.Channel:
        channels.append(grpc.aio.insecure_channel(socket))
        return channels[-1]

    verifier = TokenVerifier(CitySettings(), KeySource(dial), ServiceTokens(SERVICE_SEED, "any").public_key)
    guard = AccessCheck(verifier, rules_of([service.full_name for service in SERVICES]))
    server = grpc.aio.server()
    Edge(server, (guard,)).add_generic_rpc_handlers((Stubs(),))
    server.add_insecure_port(socket)
    await server.start()
    try:
        yield socket
    finally:
        await server.stop(0)
        for channel in channels:
            await channel.close(None)


def token(role: str, audience: str) -> str:
    if role == "service":
        return ServiceTokens(SERVICE_SEED, "tester").token(audience)
    now = int(time.time())
    return mint(CITY_KEY, {
        "iss": ISSUER, "sub": f"{role}-1", "aud": audience, "roles": [role], "iat": now, "exp": now + 600,
    })  # fmt: skip


@contextlib.asynccontextmanager
async def calling(socket: str, bearer: str | None) -> AsyncIterator[grpc.aio.Channel]:
    interceptors = bearer_interceptors_of(bearer) if bearer else []
    async with grpc.aio.insecure_channel(socket, interceptors=interceptors) as channel:
        yield channel


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, *, sends: bool = True) -> None:
    """One call with an empty request, read to its end.

    Args:
        sends: false: a stream of requests in which none comes, as a call that is refused needs none; gRPC's client tells a refusal that arrives
            while it writes as an internal error.
    """
    request = message_factory.GetMessageClass(method.input_type)()
    read = message_factory.GetMessageClass(method.output_type).FromString
    write = type(request).SerializeToString
    path = path_of(method)

    async def requests() -> AsyncIterator[Any]:
        if not sends:
            await asyncio.Event().wait()
        yield request

    if method.client_streaming:
        streaming: Any = channel.stream_stream if method.server_streaming else channel.stream_unary
        started = streaming(path, write, read)(requests())
    else:
        single: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        started = single(path, write, read)(request)
    if method.server_streaming:
        async for _ in started:
            pass
    else:
        await started


def test_every_rpc_declares_who_may_call() -> None:
    rules = rules_of([service.full_name for service in SERVICES])
    assert set(rules) == {path_of(method) for method in METHODS}
    for method in METHODS:
        rule = rule_of(method)
        assert bool(rule.roles) != rule.public, f"{path_of(method)} needs roles or public, not both"
        assert rule.note or not rule.public, f"{path_of(method)} is public and does not say why"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
@pytest.mark.parametrize("role", ROLES)
async def test_only_the_listed_roles_get_in(tmp_path: Path, service: ServiceDescriptor, role: str) -> None:
    bearer = token(role, service_of(service.full_name))
    async with served(tmp_path) as socket, calling(socket, bearer) as channel:
        for method in service.methods:
            if rule_of(method).public or role in roles_of(method):
                await call(channel, method)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(channel, method, sends=False)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, path_of(method)
            assert isinstance(city_error(refused.value), PermissionDenied)
            assert role in (refused.value.details() or "")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
async def test_without_a_token_only_public_rpcs_answer(tmp_path: Path, service: ServiceDescriptor) -> None:
    async with served(tmp_path) as socket, calling(socket, None) as channel:
        for method in service.methods:
            if rule_of(method).public:
                await call(channel, method)
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(channel, method, sends=False)
            assert isinstance(city_error(refused.value), Unauthenticated), path_of(method)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
async def test_a_token_of_another_service_opens_nothing(tmp_path: Path, service: ServiceDescriptor) -> None:
    bearer = token("service", "another")
    async with served(tmp_path) as socket, calling(socket, bearer) as channel:
        for method in service.methods:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(channel, method, sends=False)
            assert city_error(refused.value).reason == "token-audience", path_of(method)


async def test_an_rpc_nobody_declared_is_unknown(tmp_path: Path) -> None:
    async with served(tmp_path) as socket, calling(socket, token("operator", "metering")) as channel:
        strange: Any = channel.unary_unary("/city.metering.v1.MeteringService/Nothing", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await strange(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_only_bearer_tokens_are_read(tmp_path: Path) -> None:
    method = next(method for method in METHODS if not rule_of(method).public)
    request = message_factory.GetMessageClass(method.input_type)()
    async with served(tmp_path) as socket, calling(socket, None) as channel:
        call_it: Any = channel.unary_unary(path_of(method), type(request).SerializeToString, None)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call_it(request, metadata=(("authorization", "Basic YWRhOmFkYQ=="),))
        assert city_error(refused.value).reason == "token-malformed"


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_service_shows_its_token_on_every_kind_of_call_unless_another_is_given(
    tmp_path: Path, kind: str
) -> None:
    seen: list[str] = []

    async def unary(request: Any, context: Any) -> bytes:
        seen.append(dict(context.invocation_metadata())["authorization"])
        return b""

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        seen.append(dict(context.invocation_metadata())["authorization"])
        yield b""

    handler = getattr(grpc, f"{kind}_rpc_method_handler")(stream if kind.endswith("_stream") else unary)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("city.test.v1.Test", {"Go": handler}),))
    socket = f"unix:{tmp_path / 'bearer.sock'}"
    server.add_insecure_port(socket)
    await server.start()
    tokens = ServiceTokens(SERVICE_SEED, "tester")
    async with grpc.aio.insecure_channel(socket, interceptors=bearer_client_interceptors(tokens, "test")) as channel:
        for metadata in ((), (("authorization", "Bearer given"),)):
            made: Any = getattr(channel, kind)("/city.test.v1.Test/Go", None, None)
            started = made(iter([b""]) if kind.startswith("stream") else b"", metadata=metadata)
            if kind.endswith("_stream"):
                assert [part async for part in started] == [b""]
            else:
                assert await started == b""
    await server.stop(0)
    assert seen == [f"Bearer {tokens.token('test')}", "Bearer given"]
