"""Builds identity. The only door into the service."""

from __future__ import annotations

from pathlib import Path

from city.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from citykit.service import Context, Job, Service, Servicer
from services.identity.api import IdentityApi
from services.identity.app.consents import Consents
from services.identity.app.devices import Devices
from services.identity.app.logins import Logins
from services.identity.app.own_data import OwnData
from services.identity.app.people import People
from services.identity.store import METADATA

_FINISH_EVERY_S = 10.0


def build(ctx: Context) -> Service:
    """The service: answers calls, and finishes decisions that a crash or an absent ledger left behind."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    people, devices = People(ctx, store), Devices(ctx, store)
    logins, consents = Logins(ctx, store, people), Consents(ctx, store, people)
    api = IdentityApi(devices, people, logins, consents, OwnData(ctx, store, people))
    return Service(
        name=ctx.name,
        store=store,
        servicers=(Servicer(add_IdentityServiceServicer_to_server, api, "city.identity.v1.IdentityService"),),
        jobs=(Job("finish-decisions", devices.finish, _FINISH_EVERY_S),),
    )
