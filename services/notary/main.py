"""Builds the notary. The only door into the service."""

from __future__ import annotations

from pathlib import Path

from city.notary.v1.notary_service_pb2_grpc import add_NotaryServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.note import public_key
from citykit.service import Context, Invariant, Job, Service, Servicer
from services.notary.api import NotaryApi
from services.notary.app import Notary
from services.notary.events import BATCH_MAX, GROUP, LOG_TOPICS
from services.notary.store import METADATA


def build(ctx: Context) -> Service:
    """The service: consumes every topic with a log, anchors every `anchor_interval_s`."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    app = Notary(ctx, store)
    (ctx.directory / "log-key").write_text(public_key(ctx.key("log-signing")).hex(), encoding="ascii")
    api = NotaryApi(app, ctx.directory.parent)
    return Service(
        name="notary",
        store=store,
        servicers=(Servicer(add_NotaryServiceServicer_to_server, api, "city.notary.v1.NotaryService"),),
        subscriptions=(Subscription(GROUP, LOG_TOPICS, app.integrate, batch_max=BATCH_MAX),),
        jobs=(Job("anchor", app.anchor, ctx.settings.notary.anchor_interval_s),),
        invariants=(
            Invariant("logs-verify", app.logs_verify),
            Invariant("anchors-advance", app.anchors_advance),
        ),
        start=app.recover,
        stop=app.close,
    )
