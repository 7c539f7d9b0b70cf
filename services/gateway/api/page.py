"""The dashboard's files: read once, served from memory with an ETag."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response

from citykit.errors import NotFound
from services.gateway.api.documents import document

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_CACHE = "public, no-cache"


def page_router(folder: Path) -> APIRouter:
    """Routes `/` and `/page/{name}` over the files of `folder`."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in _TYPES}

    @router.get("/")
    async def get_page(request: Request) -> Response:
        return document(request, files["index.html"], _TYPES[".html"], cache=_CACHE)

    @router.get("/page/{name}")
    async def get_file(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound("the page has no such file", reason="no-such-path")
        return document(request, files[name], _TYPES[Path(name).suffix], cache=_CACHE)

    return router
