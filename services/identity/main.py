"""Builds identity. The only door into the service."""

from __future__ import annotations

from pathlib import Path

from city.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from citykit.service import Context, Service, Servicer
from services.identity.api import IdentityApi
from services.identity.app.devices import Devices
from services.identity.app.logins import Logins
from services.identity.app.people import People
from services.identity.store import METADATA


def build(ctx: Context) -> Service:
    """The service."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    people = People(ctx, store)
    api = IdentityApi(Devices(ctx, store), people, Logins(ctx, store, people))
    servicer = Servicer(add_IdentityServiceServicer_to_server, api, "city.identity.v1.IdentityService")
    return Service(name="identity", store=store, servicers=(servicer,))
