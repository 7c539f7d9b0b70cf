"""Assembles the HTTP application. Called by `main.build` and by the tests."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from citykit.errors import CityError
from services.gateway.api import demo, health, live, oidc, parking, payments, problems, public, resident, staff
from services.gateway.api.edge import BodyLimit, HeadAsGet, LastResort, SecurityHeaders
from services.gateway.api.openapi import VERSION, describe
from services.gateway.api.page import page_router
from services.gateway.api.parts import Parts


def create_app(parts: Parts) -> FastAPI:
    """The ASGI application: security headers around everything, then the body limit, then the routes."""
    app = FastAPI(
        title="Provable City",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for router in (
        public.router,
        live.router,
        parking.public,
        payments.public,
        payments.provider,
        resident.router,
        parking.resident,
        staff.router,
        parking.staff,
        payments.staff,
        payments.resident,
        public.files,
        oidc.router,
        health.router,
        demo.router,
    ):
        app.include_router(router)
    app.include_router(page_router(parts.page))
    app.add_exception_handler(CityError, problems.on_city_error)
    app.add_exception_handler(RequestValidationError, problems.on_validation_error)
    app.add_exception_handler(HTTPException, problems.on_http_error)
    app.add_middleware(HeadAsGet, endless="/api/v1/live")
    app.add_middleware(BodyLimit, limit=parts.settings.body_max)
    app.add_middleware(LastResort, log=parts.log)
    app.add_middleware(SecurityHeaders)
    _replace_openapi(app)
    return app


def _replace_openapi(app: FastAPI) -> None:
    described: Any = partial(describe, app)
    app.openapi = described  # type: ignore[method-assign]  # the documented way to change the document


def _operation_id(route: APIRoute) -> str:
    """`get_bill`, as in the code: what a generated client calls it."""
    return route.name
