"""The only door into payments: `build(ctx)`."""

from __future__ import annotations

import time
from pathlib import Path

from city.payments.v1.payments_service_pb2_grpc import add_PaymentsServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.proofs import Proofs
from citykit.service import Context, Invariant, Job, Service, Servicer
from services.payments import events
from services.payments.api import Parts, PaymentsServer
from services.payments.app import erasure
from services.payments.app.bills import BillPayments
from services.payments.app.books import BookKeeping
from services.payments.app.bundles import Bundles
from services.payments.app.callbacks import Callbacks
from services.payments.app.erasure import Erasure
from services.payments.app.overview import Overview
from services.payments.app.payments import Payments
from services.payments.app.posting import Poster
from services.payments.app.provider import Provider
from services.payments.app.reconciliation import Reconciliation
from services.payments.app.settlement import Settlement
from services.payments.store.tables import METADATA

FULL_NAME = "city.payments.v1.PaymentsService"
_EXPIRE_EVERY_S, _CLOSE_EVERY_S, _MEASURE_EVERY_S = 1.0, 5.0, 10.0


def build(ctx: Context) -> Service:
    """Assembles the service; nothing runs before `start`."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    settings, zone = ctx.settings.payments, ctx.settings.general.zone
    poster, provider = Poster(ctx.clock, ctx.randomness), Provider(settings, time.time)
    settlement = Settlement(store, poster, provider, ctx.clock, ctx.randomness)
    payments = Payments(store, settlement, ctx.clock, ctx.randomness, settings.currency)
    parts = Parts(
        books=BookKeeping(store, poster, ctx.clock),
        payments=payments,
        bills=BillPayments(payments, ctx.dial),
        bundles=Bundles(store, payments, Proofs(ctx.dial), ctx.settings.general.city),
        callbacks=Callbacks(settlement, provider, time.time),
        reconciliation=Reconciliation(store, provider, ctx.ledger, ctx.clock, zone),
        overview=Overview(store),
    )
    jobs = [
        Job("expire-holds", parts.books.expire, _EXPIRE_EVERY_S),
        Job("measure", parts.overview.measure, _MEASURE_EVERY_S),
    ]
    if settings.provider_url:
        jobs.append(Job("ask-again", settlement.ask_again, settings.retry_s))
        jobs.append(Job("close-days", parts.reconciliation.close_days, _CLOSE_EVERY_S))
    return Service(
        name="payments",
        store=store,
        servicers=(Servicer(add_PaymentsServiceServicer_to_server, PaymentsServer(parts), FULL_NAME),),
        subscriptions=(Subscription(erasure.GROUP, (events.IDENTITY_TOPIC,), Erasure(store).handle),),
        jobs=tuple(jobs),
        invariants=(Invariant("sum-is-zero", parts.overview.sum_is_zero),),
        stop=provider.close,
    )
