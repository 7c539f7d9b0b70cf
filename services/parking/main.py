"""The only door into parking: `build(ctx)`."""

from __future__ import annotations

from pathlib import Path

from city.parking.v1.parking_service_pb2_grpc import add_ParkingServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.clock import unix
from citykit.onramp.devices import device_keys
from citykit.onramp.registry import Registry
from citykit.proofs import Proofs
from citykit.service import Context, Job, Service, Servicer
from services.parking import events
from services.parking.api import ParkingServer, Parts
from services.parking.app import erasure
from services.parking.app.access import Access, Keys
from services.parking.app.advising import Advising
from services.parking.app.board import Board
from services.parking.app.books import Books
from services.parking.app.bundles import Bundles
from services.parking.app.calibration import Calibration
from services.parking.app.changes import Changes
from services.parking.app.city_events import CityEvents
from services.parking.app.endings import Endings
from services.parking.app.erasure import Erasure
from services.parking.app.expectations import Expectations
from services.parking.app.holds import Holds
from services.parking.app.ingest import Ingest
from services.parking.app.listing import Listing
from services.parking.app.lots import Lots
from services.parking.app.money import Money
from services.parking.app.passages import Passages
from services.parking.app.payee import Payee
from services.parking.app.publications import Publications
from services.parking.app.remembered import Remembered
from services.parking.app.reservations import Reservations
from services.parking.app.states import States
from services.parking.app.tariffs import Permits, Tariffs
from services.parking.app.views import Views
from services.parking.domain.reservation import SLOT_S
from services.parking.store.reservations import hold_ends, promises
from services.parking.store.tables import DEVICES, METADATA

FULL_NAME = "city.parking.v1.ParkingService"


def build(ctx: Context) -> Service:
    """Assembles the service; nothing runs before `start`."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    general = ctx.settings.general
    lots, tariffs, permits = Lots(store), Tariffs(store, ctx.ledger), Permits(store, ctx.randomness)
    board, remembered, views, changes = Board(), Remembered(store), Views(store), Changes(ctx.randomness)
    payee = Payee(ctx.dial)
    money = Money(store, payee, changes, tariffs, board, ctx.clock, ctx.log)
    endings = Endings(store, board, changes, money, tariffs, ctx.clock)
    holds = Holds(
        store, board, remembered, tariffs, permits, changes, endings, views, lots.find, ctx.clock, ctx.randomness,
        general.zone, ctx.key("plates"),
    )  # fmt: skip
    reservations = Reservations(store, board, changes, money, tariffs, holds, views, ctx.clock)
    keys = Keys(store, ctx.ledger, ctx.key("access-signing"))
    passages = Passages(changes, money, tariffs, board, ctx.clock)
    bundles = Bundles(
        store, Proofs(ctx.dial), payee, keys, lambda c, device: device_keys(c, DEVICES, device), general.city
    )
    registry = Registry(store, DEVICES, ctx.dial, events.FLEET_GROUP)
    states = States(store, ctx.clock, ctx.settings.parking.sensor_silence_s)
    ingest = Ingest(store, registry, lots, states, passages, ctx.clock, ctx.randomness, ctx.settings.parking)
    city_events = CityEvents(store, lots, ctx.clock)
    expectations = Expectations(lots, ctx.dial, ctx.clock, ctx.log)
    calibration = Calibration(store, ctx.clock, ctx.randomness, general.zone)
    parts = Parts(
        lots=lots,
        tariffs=tariffs,
        permits=permits,
        holds=holds,
        reservations=reservations,
        views=views,
        keys=keys,
        access=Access(store, keys, tariffs, lots.find, ctx.clock, general.city),
        bundles=bundles,
        books=Books(store),
        ingest=ingest,
        listing=Listing(lots, states, expectations, board, ctx.clock),
        advising=Advising(
            lots, states, expectations, city_events, tariffs, board, calibration, ctx.clock, general.zone
        ),
        city_events=city_events,
        calibration=calibration,
        publications=Publications(lots, states, ctx.clock, general),
    )

    async def look_again() -> None:
        changed = board.changes
        slot = unix(ctx.clock) // SLOT_S
        found = await store.read(lambda c: (promises(c, slot), hold_ends(c)))
        board.load(*found, changed)

    async def start() -> None:
        for part in (lots, tariffs, permits, remembered, keys, registry, states, city_events):
            await part.load()
        await look_again()

    async def stop() -> None:
        ingest.close()
        await calibration.work()

    return Service(
        name="parking",
        store=store,
        servicers=(Servicer(add_ParkingServiceServicer_to_server, ParkingServer(parts), FULL_NAME),),
        subscriptions=(
            Subscription(events.MONEY_GROUP, (events.PAYMENTS_TOPIC,), money.handle),
            Subscription(registry.group, (events.IDENTITY_TOPIC,), registry.handle),
            Subscription(erasure.GROUP, (events.IDENTITY_TOPIC,), Erasure(store, board, permits, reservations).handle),
        ),
        jobs=(
            Job("keys", keys.publish, 5.0),
            Job("expire", endings.expire, 0.5),
            Job("no-show", endings.miss, 2.0),
            Job("duties", money.work, 1.0),
            Job("board", look_again, 30.0),
            Job("provable", bundles.mark_provable, 2.0),
            Job("expectations", expectations.refresh, 0.5),
            Job("calibration", calibration.work, 1.0),
            Job("prune", states.prune, 3_600.0),
        ),
        start=start,
        stop=stop,
    )
