"""Liveness, readiness and metrics, telling the truth: ready means that the services this one needs have answered just now."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from google.protobuf.message import Message
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from city.identity.v1 import identity_service_pb2 as identity
from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from citykit import telemetry
from citykit.errors import CityError, NotFound
from services.gateway.api import models
from services.gateway.api.parameters import Here
from services.gateway.api.problems import problem

router = APIRouter(tags=["operations"])
PROBE_S = 2.0
CLUSTER = "cluster"
_WELL = {"ready", "service-absent"}
_PROBES: tuple[tuple[str, str, Message], ...] = (
    ("identity", "GetJwks", identity.GetJwksRequest()),
    ("metering", "ListTariffs", metering.ListTariffsRequest()),
    ("notary", "ListLogs", notary.ListLogsRequest()),
    ("parking", "GetBooks", parking.GetBooksRequest()),
    ("payments", "GetBooks", payments.GetBooksRequest()),
)


@router.get("/livez")
async def get_liveness() -> models.Health:
    """200: this process answers."""
    return models.Health(status="alive")


@router.get("/readyz", response_model=models.Health)
async def get_readiness(here: Here) -> Any:
    """200: every service of this city that the gateway needs has answered within 2 s. 503 names those that have not."""
    states = await asyncio.gather(*(_probe(here, *probe) for probe in _PROBES))
    parts = {service: state for (service, _, _), state in zip(_PROBES, states, strict=True)}
    away = [(f"parts.{service}", state) for service, state in parts.items() if state not in _WELL]
    if away:
        detail = (
            f"not ready: {', '.join(field.removeprefix('parts.') for field, _ in away)}; try again in a few seconds"
        )
        return problem(503, "not-ready", detail, errors=away, headers={"Retry-After": "2"})
    return JSONResponse({"status": "ready", "parts": parts})


async def _probe(here: Here, service: str, rpc: str, request: Message) -> str:
    try:
        await here.calls.ask(service, rpc, request, timeout_s=PROBE_S)
    except CityError as error:
        return error.reason
    return "ready"


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def get_metrics(here: Here) -> Response:
    """Every metric of this process, in the text form of Prometheus."""
    if here.general.mode == CLUSTER:  # this port faces residents
        raise NotFound("metrics are on the port that CITY_OBSERVABILITY_PORT names")
    return Response(generate_latest(telemetry.REGISTRY), media_type=CONTENT_TYPE_LATEST)
