"""The OpenAPI 3.1 document: FastAPI's, with problem details where FastAPI would describe its own errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.gateway.api.problems import MEDIA_TYPE, Problem

VERSION = "1.0.0"
DESCRIPTION = """
Everything a resident, a contractor or a member of staff does with the city, and the proof of what it says.

- **Errors** are problem details (RFC 9457); `reason` is stable.
- **What changes something** needs the header `Idempotency-Key`: the same key gives the same answer and acts once.
- **Lists** come in pages: hand `next_page_token` back as `page_token`.
- **Documents** carry an ETag.
- **Proofs**: a bundle (of a bill, a reservation, a receipt, a statement) and `/trust.json` are the two files `python -m verifier`
  needs; docs/PROOFS.md defines every byte.
"""
TAGS = [
    {"name": "public", "description": "For anyone, without a token. No personal data, no single home."},
    {"name": "resident", "description": "About the caller's own home, reservations and money."},
    {"name": "contractor", "description": "What a contractor has: the own record, its export and its erasure."},
    {
        "name": "staff",
        "description": "Control room, car parks, billing and registry; each role does its own work only.",
    },
    {"name": "provider", "description": "For the payment provider; its signature stands for a token."},
    {"name": "logs", "description": "Merkle logs as files (C2SP tlog-tiles) and the keys to check them."},
    {"name": "openid", "description": "OpenID Connect: authorization code with PKCE."},
    {"name": "operations", "description": "Liveness, readiness, metrics."},
    {"name": "demo", "description": "There in a demo only."},
]
_WORDS = {
    "400": "The request is wrong whatever the state of the city, or lacks the Idempotency-Key.",
    "401": "No token, or one that does not hold.",
    "403": "The caller is known and may not do this.",
    "404": "No such thing, or not visible to the caller.",
    "409": "Not in the present state, or somebody changed the same thing at once.",
    "413": "The body is too large.",
    "422": "A field is wrong, or the Idempotency-Key came before with other content.",
    "429": "A stated limit is reached; Retry-After says when to try again.",
    "500": "Something went wrong here, and it is logged.",
    "503": "A part is away for now; nothing was done. Try again after Retry-After.",
    "504": "No answer in time: the call may have acted. Try again with the same Idempotency-Key.",
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"description": "RFC 6750, section 3.", "schema": {"type": "string"}}},
    "429": _RETRY,
    "503": _RETRY,
}
_ALWAYS_WELL = {"/livez", "/metrics"}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document. Kept in `app.openapi_schema` after the first time."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Provable City", version=VERSION, description=DESCRIPTION.strip(), routes=app.routes, tags=TAGS,
            openapi_version="3.1.0",
        )  # fmt: skip
        schemas = document["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schemas["Problem"].pop("$defs", {}))
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _describe_errors(path, method, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_errors(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status in sorted(_possible(path, method, operation)):
        responses.setdefault(status, {"description": _WORDS[status], "content": {}})
        if status in _HEADERS:
            responses[status].setdefault("headers", _HEADERS[status])
        responses[status]["content"].setdefault(MEDIA_TYPE, {"schema": {"$ref": "#/components/schemas/Problem"}})
    operation["responses"] = dict(sorted(responses.items()))


def _possible(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    """Which errors an operation can have, by its shape."""
    if path in _ALWAYS_WELL:
        return {"500"}
    possible = {"404", "429", "500", "503", "504"}
    if operation.get("security"):
        possible |= {"401", "403"}
    if operation.get("parameters") or "requestBody" in operation:
        possible |= {"400", "422"}
    if method in {"post", "put", "delete"}:
        possible |= {"400", "403", "409", "413", "422"}
    return possible | ({"409"} if operation.get("security") else set())
