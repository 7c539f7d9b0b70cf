"""The gRPC edge: domain errors become `google.rpc.Status` here and nowhere else, and back into domain errors at the caller."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from citykit import errors, telemetry

MESSAGE_MAX_BYTES = 16 * 1024 * 1024
"""Of one gRPC message; a month's proof bundle fits."""
_DOMAIN = "provable.city"
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
    found = kind(error.details() or error.code().name.lower())
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # AioRpcError has what from_call reads
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


class EdgeInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Translates errors, measures and traces every call of every service."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        parent = dict(handler_call_details.invocation_metadata or ()).get("traceparent")
        return wrapped(
            handler, lambda inner: _guarded(inner, method, parent), lambda inner: _guarded_stream(inner, method, parent)
        )


def wrapped(handler: Any, unary: Callable[[Any], Any], stream: Callable[[Any], Any]) -> Any:
    """The handler with its behaviour replaced: `unary` wraps behaviours with one answer, `stream` those with many."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    behaviour = stream(inner) if handler.response_streaming else unary(inner)
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _guarded(inner: Any, method: str, parent: str | None) -> Any:
    async def behaviour(request: Any, context: Any) -> Any:
        with _Watch(method, parent) as watch:
            try:
                return await inner(request, context)
            except Exception as error:
                await watch.abort(context, error)

    return behaviour


def _guarded_stream(inner: Any, method: str, parent: str | None) -> Any:
    async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
        with _Watch(method, parent) as watch:
            try:
                async for answer in inner(request, context):
                    yield answer
            except Exception as error:
                await watch.abort(context, error)

    return behaviour


class _Watch:
    """One call: its duration, its code, its span, and the translation of its error."""

    def __init__(self, method: str, parent: str | None) -> None:
        package, _, self._rpc = method.lstrip("/").partition("/")
        self._service = service_of(package)
        self._code = grpc.StatusCode.OK
        self._span = telemetry.span(f"{self._service}.{self._rpc}", parent=parent)

    def __enter__(self) -> _Watch:
        self._since = time.perf_counter()
        self._span.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        seconds = time.perf_counter() - self._since
        telemetry.RPC_SECONDS.labels(self._service, self._rpc, self._code.name).observe(seconds)
        self._span.__exit__(None, None, None)

    async def abort(self, context: Any, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, grpc.aio.AioRpcError):
            error = city_error(error)
        if not isinstance(error, errors.CityError):
            error = self._failed(error)
        self._code = error.code
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


def service_of(full_name: str) -> str:
    """`city.metering.v1.MeteringService` -> `metering`; other packages by their full name."""
    parts = full_name.split(".")
    return parts[1] if parts[0] == "city" and len(parts) > 1 else full_name
