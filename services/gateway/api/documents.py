"""Documents with an ETag (RFC 9110, section 8.8.3): a copy that is still right is not sent again."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request, Response


def described(media_type: str, schema: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of a document: its type, its ETag and 304."""
    etag = {"ETag": {"description": "Send it back as If-None-Match.", "schema": {"type": "string"}}}
    return {
        200: {"content": {media_type: {"schema": schema} if schema else {}}, "headers": etag},
        304: {"description": "The copy named in If-None-Match is still right."},
    }


def document(
    request: Request, content: bytes, media_type: str, *, filename: str = "", cache: str = "private, no-cache"
) -> Response:
    """The content, or 304 when the caller has it. With `filename`: to be saved as that."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": cache}
    if filename:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _matches(sent: str, etag: str) -> bool:
    return any(item.strip().removeprefix("W/") in (etag, "*") for item in sent.split(","))
