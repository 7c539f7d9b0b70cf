"""Routes anyone may call: the city, its load, its logs and its tariffs. No personal data, no single home."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.simulation.v1 import simulation_service_pb2 as simulation
from citykit.clock import iso
from services.gateway.api import bodies, models
from services.gateway.api.documents import described, document
from services.gateway.api.parameters import Here, LogName, TransactionId

router = APIRouter(prefix="/api/v1", tags=["public"])
files = APIRouter(tags=["logs"])
IMMUTABLE = "public, max-age=31536000, immutable"


@router.get("/city")
async def get_city(here: Here) -> models.City:
    """The city: its name, its time and, in a demo, whom the page may show."""
    names = await here.demo.names() if here.demo else []
    return models.City.model_validate(
        {
            "city": here.general.city,
            "mode": here.general.mode,
            "time_zone": here.general.zone,
            "city_time": iso(here.clock.now()),
            "backbone": await here.backbone.words(),
            "demo_logins": names,
        }
    )


@router.get("/load")
async def get_load(
    here: Here, slots: Annotated[int, Query(ge=1, le=1_000, description="Half-hour slots back from now.")] = 96
) -> models.Load:
    """The whole city's load by slot."""
    answer = await here.calls.ask("metering", "GetCityLoad", metering.GetCityLoadRequest(slots=slots))
    return models.view(models.Load, answer)


@router.get("/tariffs")
async def list_tariffs(here: Here) -> models.Tariffs:
    """Every published tariff, as the verifier reads it."""
    answer = await here.calls.ask("metering", "ListTariffs", metering.ListTariffsRequest())
    return models.Tariffs(tariffs=[json.loads(text) for text in answer.tariffs_json])


@router.get("/logs")
async def list_logs(here: Here) -> models.Heads:
    """The city's Merkle logs: how far each has grown and is anchored."""
    return models.view(models.Heads, await here.calls.ask("notary", "ListLogs", notary.ListLogsRequest()))


@router.get("/logs/{log}")
async def get_head(here: Here, log: LogName) -> models.Head:
    """The newest anchored head of one log."""
    return models.view(models.Head, (await here.calls.ask("notary", "GetHead", notary.GetHeadRequest(log=log))).head)


@router.get("/logs/{log}/inclusion")
async def get_inclusion(
    here: Here,
    log: LogName,
    index: Annotated[int, Query(ge=0, le=bodies.SAFE, description="Of the entry, from 0.")],
    size: Annotated[int, Query(ge=0, le=bodies.SAFE, description="Tree size; 0: the newest anchored.")] = 0,
) -> models.InclusionProof:
    """Proof that an entry is in the log."""
    request = notary.GetInclusionProofRequest(log=log, index=index, size=size)
    return models.view(models.InclusionProof, await here.calls.ask("notary", "GetInclusionProof", request))


@router.get("/logs/{log}/consistency")
async def get_consistency(
    here: Here,
    log: LogName,
    from_size: Annotated[int, Query(ge=0, le=bodies.SAFE, description="The smaller tree.")],
    to_size: Annotated[int, Query(ge=0, le=bodies.SAFE, description="The larger tree; 0: the newest anchored.")] = 0,
) -> models.ConsistencyProof:
    """Proof that the log only grew between two sizes."""
    request = notary.GetConsistencyProofRequest(log=log, from_size=from_size, to_size=to_size)
    return models.view(models.ConsistencyProof, await here.calls.ask("notary", "GetConsistencyProof", request))


@router.get("/ledger/transactions/{transaction}")
async def get_evidence(here: Here, transaction: TransactionId) -> models.Evidence:
    """What proves a decision on the ledger."""
    answer = await here.calls.ask("notary", "GetEvidence", notary.GetEvidenceRequest(transaction=transaction))
    return models.Evidence(transaction=transaction, evidence=json.loads(answer.json))


@router.get("/neighbourhood")
async def get_neighbourhood(here: Here) -> models.Neighbourhood:
    """The demo's meters on a schematic map, and where its data comes from. Absent outside a demo (404)."""
    answer = await here.calls.ask("simulation", "GetNeighbourhood", simulation.GetNeighbourhoodRequest())
    return models.view(models.Neighbourhood, answer)


@router.get("/replay")
async def get_replay(here: Here) -> models.Replay:
    """How far the demo is, and the faults there are. Absent outside a demo (404)."""
    return models.view(models.Replay, await here.calls.ask("simulation", "GetReplay", simulation.GetReplayRequest()))


@files.get("/logs/{log}/checkpoint", response_class=Response, responses=described("text/plain"))
async def get_checkpoint(request: Request, here: Here, log: LogName) -> Response:
    """The newest checkpoint, a signed note (C2SP tlog-tiles)."""
    answer = await here.calls.ask("notary", "GetTile", notary.GetTileRequest(log=log, path="checkpoint"))
    return document(request, answer.content, "text/plain; charset=utf-8", cache="public, no-cache")


@files.get(
    "/logs/{log}/tile/{tile:path}",
    response_class=Response,
    responses=described("application/octet-stream", {"type": "string", "format": "binary"}),
)
async def get_tile(
    request: Request,
    here: Here,
    log: LogName,
    tile: Annotated[
        str, Path(pattern=r"^(entries|[0-9]{1,2})(/x?[0-9]{3})+(\.p/[0-9]{1,3})?$", max_length=100, examples=["0/000"])
    ],
) -> Response:
    """A tile or an entry bundle of the log by its C2SP tlog-tiles path. Holds hashes and commitments only."""
    answer = await here.calls.ask("notary", "GetTile", notary.GetTileRequest(log=log, path=f"tile/{tile}"))
    cache = IMMUTABLE if answer.immutable else "public, no-cache"
    return document(request, answer.content, "application/octet-stream", cache=cache)


@files.get("/trust.json", response_class=Response, responses=described("application/json"))
async def get_trust(request: Request, here: Here) -> Response:
    """The public keys a verifier needs (docs/PROOFS.md).

    A server under check could hand out keys that suit it: compare this file with one from elsewhere, as docs/PROOFS.md says.
    """
    answer = await here.calls.ask("notary", "GetTrust", notary.GetTrustRequest())
    return document(request, answer.json.encode(), "application/json", filename="trust.json", cache="public, no-cache")
