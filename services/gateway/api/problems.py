"""Every error of the HTTP API as problem details (RFC 9457). Used by the application and its middleware."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import grpc
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from citykit.errors import CityError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "tag:provable.city,2026:problem/"
"""Problem types are tag URIs (RFC 4151): they name, and are not fetched."""

_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNKNOWN: 504,
}
_REASON_STATUS: Mapping[str, int] = {"request-id-reused": 422, "body-too-large": 413}
DEFAULT_RETRY_S = 2


class FieldError(BaseModel):
    """One field at fault."""

    field: str = Field(description="Where: `body.purpose`, `query.page_size`, `header.idempotency-key`.")
    message: str


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": TYPE_PREFIX + "not-found",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no bill bill-2016-10-04-0000000000000000 of yours",
                    "reason": "not-found",
                }
            ]
        }
    )

    type: str = Field(description="A tag URI that names the kind of problem. Not to be fetched.")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What was wrong, what is allowed and what to do next.")
    reason: str = Field(description="Machine word, stable: the end of `type`.")
    errors: list[FieldError] | None = Field(default=None, description="The fields at fault, when there are any.")


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A response with problem details."""
    body = Problem(
        type=TYPE_PREFIX + reason,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        reason=reason,
        errors=[FieldError(field=field, message=message) for field, message in errors] or None,
    )
    content = body.model_dump(exclude_none=True)
    return JSONResponse(
        content, status, headers={"Cache-Control": "no-store", **(headers or {})}, media_type=MEDIA_TYPE
    )


def status_of(error: CityError) -> int:
    """The HTTP status of a domain error."""
    return _REASON_STATUS.get(error.reason) or _STATUS.get(error.code, 500)


def of_city_error(error: CityError) -> JSONResponse:
    """A domain error as a response: status, challenge or retry time included."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="city"' + (
            ', error="invalid_token"' if error.reason != "no-token" else ""
        )
    if error.retry_after_s is not None or status in {429, 503}:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s or DEFAULT_RETRY_S))
    errors = [(error.field, error.message)] if error.field else ()
    return problem(status, error.reason, error.message, errors=errors, headers=headers)


async def on_city_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of `CityError`."""
    if not isinstance(error, CityError):
        raise error
    return of_city_error(error)


async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of FastAPI's validation errors: every field named, the value never repeated."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = [(_place(item["loc"]), str(item["msg"])) for item in error.errors()]
    missing_key = [item for item in found if item[0] == "header.idempotency-key"]
    if missing_key:
        return problem(
            400,
            "idempotency-key",
            "this request changes something: send the header Idempotency-Key, 1 to 100 printable ASCII characters, new for"
            " each act and the same for its retries",
            errors=missing_key,
        )
    return problem(422, "invalid-request", "; ".join(f"{field}: {message}" for field, message in found), errors=found)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of the framework's own errors: unknown path, wrong method, unreadable body."""
    if not isinstance(error, HTTPException):
        raise error
    reasons = {404: "no-such-path", 405: "method-not-allowed", 413: "body-too-large"}
    details = {
        404: "there is nothing at this path; /openapi.json lists the paths",
        405: f"{request.method} is not possible here; the header Allow lists what is",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request) or headers.get("Allow", "")
    return problem(error.status_code, reasons.get(error.status_code, "http-error"), detail, headers=headers)


def _allowed(request: Request) -> str:
    """Every documented method of the path: the framework names those of the first route it meets."""
    for template, methods in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            return ", ".join(sorted(method.upper() for method in methods))
    return ""


def _place(location: Any) -> str:
    return ".".join(
        str(part).lower() if index == 1 and location[0] == "header" else str(part)
        for index, part in enumerate(location)
    )
