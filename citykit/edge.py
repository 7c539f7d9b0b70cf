"""The gRPC edge: domain errors become `google.rpc.Status` here and nowhere else, and back into domain errors at the caller."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from citykit import errors, telemetry
from citykit.tls import explained

MESSAGE_MAX_BYTES = 16 * 1024 * 1024
"""Of one gRPC message; a month's proof bundle fits."""
_DOMAIN = "provable.city"
_AWAY = "a service of the city cannot be reached just now; try again in a moment"
_PLACES_MAX = 4
"""Innermost frames of a fault that are logged."""
_TREE: dict[grpc.StatusCode, type[errors.CityError]] = {
    kind.code: kind
    for kind in (
        errors.CityError, errors.InvalidArgument, errors.Unauthenticated, errors.PermissionDenied, errors.NotFound,
        errors.AlreadyExists, errors.FailedPrecondition, errors.Conflict, errors.ResourceExhausted, errors.Unavailable,
        errors.OutcomeUnknown, errors.Damaged,
    )
}  # fmt: skip


def city_error(error: grpc.aio.AioRpcError) -> errors.CityError:
    """The domain error that a failed call carries."""
    kind = _TREE.get(error.code(), errors.CityError)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        kind = errors.OutcomeUnknown
    told = error.details() or error.code().name.lower()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what from_call reads
    away = status is None and kind is errors.Unavailable  # said by gRPC itself, with addresses in it
    found = kind(explained(told) or (_AWAY if away else told))
    for detail in status.details if status is not None else ():
        _read_detail(found, detail)
    return found


def _read_detail(found: errors.CityError, detail: Any) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        found.reason = info.reason
    elif detail.Unpack(bad) and bad.field_violations:
        found.field = bad.field_violations[0].field
    elif detail.Unpack(retry):
        found.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9


def status_of(error: errors.CityError) -> status_pb2.Status:
    """The `google.rpc.Status` of a domain error: ErrorInfo, and BadRequest or RetryInfo where they say more."""
    return _status(error.code, error.message, error.reason, error.field, error.retry_after_s)


def _status(
    code: grpc.StatusCode, message: str, reason: str, field: str | None, retry_after_s: float | None
) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=_DOMAIN))
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        nanos = round(retry_after_s * 1e9)
        delay = Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


@lru_cache(maxsize=1_024)
def _told(code: grpc.StatusCode, message: str, reason: str, field: str | None, retry_after_s: float | None) -> Any:
    """The gRPC status of an error; the same refusal is told again and again."""
    return rpc_status.to_status(_status(code, message, reason, field, retry_after_s))


Metadata = Mapping[str, Any]
Check = Callable[[str, Metadata, Any], Awaitable[None]]
"""Looks at a call (its method, its metadata, its context) before the service does; refuses it by raising."""


class Edge:
    """A server as generated code adds servicers to it: each call is measured, traced and checked, its errors are translated.

    The guards are put around a method once, not at each call as interceptors are: half of what a short call costs was their making.

    Args:
        checks: run in this order before each call.
    """

    def __init__(self, server: grpc.aio.Server, checks: Sequence[Check] = ()) -> None:
        self._server = server
        self._checks = tuple(checks)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers(tuple(_Guarded(handler, self._checks) for handler in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """What generated code offers besides; the generic handlers say it all."""


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """A service's handler with each method's guards made once."""

    def __init__(self, inner: Any, checks: tuple[Check, ...]) -> None:
        self._inner = inner
        self._checks = checks
        self._made: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in self._made:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            self._made[method] = _guarded(handler, method, self._checks)
        return self._made[method]


def _guarded(handler: Any, method: str, checks: tuple[Check, ...]) -> Any:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def unary(request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        with _Watch(method, metadata.get("traceparent")) as watch:
            try:
                for check in checks:
                    await check(method, metadata, context)
                return await inner(request, context)
            except Exception as error:
                await watch.abort(context, error)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata() or ())
        with _Watch(method, metadata.get("traceparent")) as watch:
            try:
                for check in checks:
                    await check(method, metadata, context)
                async for answer in inner(request, context):
                    yield answer
            except Exception as error:
                await watch.abort(context, error)

    behaviour: Any = stream if handler.response_streaming else unary
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


class _Watch:
    """One call: its duration, its code, its span, and the translation of its error."""

    def __init__(self, method: str, parent: str | None) -> None:
        self._service, self._rpc = _names(method)
        self._code = grpc.StatusCode.OK
        self._span = telemetry.span(f"{self._service}.{self._rpc}", parent=parent)

    def __enter__(self) -> _Watch:
        self._since = time.perf_counter()
        self._span.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        seconds = time.perf_counter() - self._since
        _seconds(self._service, self._rpc, self._code.name).observe(seconds)
        self._span.__exit__(None, None, None)

    async def abort(self, context: Any, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, grpc.aio.AioRpcError):
            error = city_error(error)
        if not isinstance(error, errors.CityError):
            error = self._failed(error)
        self._code = error.code
        telemetry.mark_failed(error.code.name)
        status = _told(error.code, error.message, error.reason, error.field, error.retry_after_s)
        context.set_trailing_metadata(status.trailing_metadata)
        await context.abort(status.code, status.details)

    def _failed(self, error: Exception) -> errors.CityError:
        """Logs a fault of ours by kind and place: its text may hold personal data (a database's quotes the row)."""
        number = os.urandom(4).hex()
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        fields = {"rpc": self._rpc, "kind": type(error).__name__, "number": number, "at": places[-_PLACES_MAX:]}
        telemetry.logger(self._service).error("call-failed", extra={"fields": fields})
        return errors.CityError(f"something in the city failed (number {number} in its log); try again later")


@lru_cache(maxsize=1_024)
def _names(method: str) -> tuple[str, str]:
    """`/city.metering.v1.MeteringService/GetUsage` -> (`metering`, `GetUsage`)."""
    package, _, rpc = method.lstrip("/").partition("/")
    return service_of(package), rpc


@lru_cache(maxsize=4_096)
def _seconds(service: str, rpc: str, code: str) -> Any:
    """The measure of a method's calls that end so; the library makes its labels anew each time it is asked."""
    return telemetry.RPC_SECONDS.labels(service, rpc, code)


def service_of(full_name: str) -> str:
    """`city.metering.v1.MeteringService` -> `metering`; other packages by their full name."""
    parts = full_name.split(".")
    return parts[1] if parts[0] == "city" and len(parts) > 1 else full_name
