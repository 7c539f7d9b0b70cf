"""The only door into metering: `build(ctx)`."""

from __future__ import annotations

from pathlib import Path

from city.metering.v1.metering_service_pb2_grpc import add_MeteringServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.onramp.registry import Registry
from citykit.proofs import Proofs
from citykit.service import Context, Job, Service, Servicer
from services.metering import events
from services.metering.api import MeteringServer, Parts
from services.metering.app import erasure, paying
from services.metering.app.agreements import Agreements
from services.metering.app.archiving import Archiving
from services.metering.app.billing import Billing
from services.metering.app.bills import Bills
from services.metering.app.bundles import Bundles
from services.metering.app.erasure import Erasure
from services.metering.app.estimates import Estimates
from services.metering.app.expected import Expected
from services.metering.app.facts import Facts
from services.metering.app.fleet import GROUP, Fleet
from services.metering.app.ingest import Ingest
from services.metering.app.invariants import Invariants
from services.metering.app.meters import Meters
from services.metering.app.paying import Paying
from services.metering.app.people import People
from services.metering.app.quarantine import Quarantine
from services.metering.app.refusals import Refusals
from services.metering.app.usage import Usage
from services.metering.store.tables import DEVICES, METADATA

FULL_NAME = "city.metering.v1.MeteringService"
_ARCHIVE_EVERY_S = 600.0


def build(ctx: Context) -> Service:
    """Assembles the service; nothing runs before `start`."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    registry, fleet = Registry(store, DEVICES, ctx.dial, GROUP), Fleet(store)
    meters, refusals, facts = Meters(store), Refusals(store), Facts(ctx.randomness)
    people = People(store, ctx.dial, ctx.randomness, ctx.settings.general.zone)
    settings = ctx.settings.metering
    expected = Expected(store, ctx.dial, ctx.clock)
    ingest = Ingest(store, registry, fleet, meters, refusals, facts, ctx.clock, ctx.randomness, settings, expected.of)
    billing = Billing(store, ctx.ledger, ctx.clock, ctx.randomness)
    bundles = Bundles(store, people, Proofs(ctx.dial), ctx.settings.general.city)
    estimates = Estimates(store, people, facts, ctx.clock, settings.estimate_after_h)
    parts = Parts(
        ingest=ingest,
        agreements=Agreements(store, fleet, ctx.ledger, ctx.clock, ctx.randomness),
        usage=Usage(store, people, ctx.clock),
        quarantine=Quarantine(store, people, meters, facts, ctx.clock, ctx.randomness),
        refusals=refusals,
        billing=billing,
        bills=Bills(store, people),
        paying=Paying(store),
        bundles=bundles,
    )

    archiving = Archiving(store, ctx.clock, ctx.directory / "archive", settings.archive_after_months)

    async def start() -> None:
        await registry.load()
        await fleet.load()

    async def stop() -> None:
        await refusals.flush()
        ingest.close()

    invariants = Invariants(store)
    return Service(
        name="metering",
        store=store,
        servicers=(Servicer(add_MeteringServiceServicer_to_server, MeteringServer(parts), FULL_NAME),),
        subscriptions=(
            Subscription(registry.group, (events.IDENTITY_TOPIC,), registry.handle),
            Subscription(paying.GROUP, (events.PAYMENTS_TOPIC,), parts.paying.handle),
            Subscription(
                erasure.GROUP, (events.IDENTITY_TOPIC,), Erasure(store, people, meters, ctx.clock, ctx.dial).handle
            ),
        ),
        jobs=(
            Job("refusals", refusals.flush, 1.0),
            Job("expected", expected.refresh, 5.0),
            Job("estimates", estimates.run, 2.0),
            Job("finish-drafts", billing.resume, 5.0),
            Job("provable", bundles.mark_provable, 2.0),
            Job("archive", archiving.run, _ARCHIVE_EVERY_S),
        ),
        invariants=invariants.every(),
        freeze=invariants.freeze,
        start=start,
        stop=stop,
    )
