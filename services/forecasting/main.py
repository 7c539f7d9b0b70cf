"""The only door into forecasting: `build(ctx)`."""

from __future__ import annotations

from pathlib import Path

from city.forecasting.v1.forecasting_service_pb2_grpc import add_ForecastingServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.service import Context, Job, Service, Servicer
from services.forecasting import events
from services.forecasting.api import ForecastingServer
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.forecasts import Forecaster
from services.forecasting.app.observing import Observing
from services.forecasting.app.training import Training
from services.forecasting.store.tables import METADATA

FULL_NAME = "city.forecasting.v1.ForecastingService"
_SLOTS_A_DAY = 48


def build(ctx: Context) -> Service:
    """Assembles the service; nothing runs before `start`, and nothing heavy is imported in this process."""
    settings = ctx.settings.forecasting
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    folder = ctx.directory / "models"
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(settings.workers)
    book = Book(ctx.settings.general.zone, settings.history_days * _SLOTS_A_DAY)
    observing = Observing(store, book, ctx.clock, settings.history_days)
    training = Training(store, ctx.ledger, book, ctx.dial, ctx.clock, ctx.randomness, folder, settings.retrain_days)
    forecaster = Forecaster(book, engine, training, ctx.clock, folder)

    async def start() -> None:
        await observing.load()
        await training.load()

    async def stop() -> None:
        await training.engine.close()
        await engine.close()

    server = ForecastingServer(book, observing, forecaster, training)
    topics = (events.PARKING_TOPIC, events.METERING_TOPIC)
    return Service(
        name="forecasting",
        store=store,
        servicers=(Servicer(add_ForecastingServiceServicer_to_server, server, FULL_NAME),),
        subscriptions=(Subscription(events.GROUP, topics, observing.handle),),
        jobs=(Job("train", training.when_due, settings.look_s), Job("prune", observing.prune, 3_600.0)),
        start=start,
        stop=stop,
    )
