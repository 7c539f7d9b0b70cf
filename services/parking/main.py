"""The only door into parking: `build(ctx)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from city.parking.v1.parking_service_pb2_grpc import add_ParkingServiceServicer_to_server
from citykit.bus.port import Subscription
from citykit.clock import unix
from citykit.onramp.devices import device_keys
from citykit.onramp.registry import Registry
from citykit.proofs import Proofs
from citykit.service import Context, Invariant, Job, Service, Servicer
from citykit.store.port import Store
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
_MEASURE_EVERY_S = 10.0


@dataclass(frozen=True)
class _Reserving:
    """From the hold to the receipt."""

    board: Board
    remembered: Remembered
    views: Views
    payee: Payee
    money: Money
    endings: Endings
    holds: Holds
    reservations: Reservations
    passages: Passages


@dataclass(frozen=True)
class _Sensing:
    """What is counted, expected and said of lots."""

    registry: Registry
    states: States
    ingest: Ingest
    city_events: CityEvents
    expectations: Expectations
    calibration: Calibration


def build(ctx: Context) -> Service:
    """Assembles the service; nothing runs before `start`."""
    store = ctx.open_store(METADATA, Path(__file__).parent / "migrations")
    lots, tariffs, permits = Lots(store), Tariffs(store, ctx.ledger), Permits(store, ctx.randomness)
    reserving = _reserving(ctx, store, lots, tariffs, permits)
    sensing = _sensing(ctx, store, lots, reserving.passages)
    parts = _parts(ctx, store, (lots, tariffs, permits), reserving, sensing)
    look_again = _looking_again(ctx, store, reserving.board)

    async def start() -> None:
        loaded = (lots, tariffs, permits, reserving.remembered, parts.keys, sensing.registry, sensing.states)
        for part in (*loaded, sensing.city_events):
            await part.load()
        await look_again()

    async def stop() -> None:
        sensing.ingest.close()
        await sensing.calibration.work()

    forget = Erasure(store, reserving.board, permits, reserving.reservations)
    return Service(
        name="parking",
        store=store,
        servicers=(Servicer(add_ParkingServiceServicer_to_server, ParkingServer(parts), FULL_NAME),),
        subscriptions=(
            Subscription(events.MONEY_GROUP, (events.PAYMENTS_TOPIC,), reserving.money.handle),
            Subscription(sensing.registry.group, (events.IDENTITY_TOPIC,), sensing.registry.handle),
            Subscription(erasure.GROUP, (events.IDENTITY_TOPIC,), forget.handle),
        ),
        jobs=(
            Job("keys", parts.keys.publish, 5.0),
            Job("expire", reserving.endings.expire, 0.5),
            Job("no-show", reserving.endings.miss, 2.0),
            Job("duties", reserving.money.work, 1.0),
            Job("board", look_again, 30.0),
            Job("provable", parts.bundles.mark_provable, 2.0),
            Job("expectations", sensing.expectations.refresh, 0.5),
            Job("calibration", sensing.calibration.work, 1.0),
            Job("prune", sensing.states.prune, 3_600.0),
            Job("measure", parts.books.measure, _MEASURE_EVERY_S),
        ),
        invariants=(Invariant("no-double-booking", parts.books.no_double_booking),),
        start=start,
        stop=stop,
    )


def _reserving(ctx: Context, store: Store, lots: Lots, tariffs: Tariffs, permits: Permits) -> _Reserving:
    board, remembered, views, changes = Board(), Remembered(store), Views(store), Changes(ctx.randomness)
    payee = Payee(ctx.dial)
    money = Money(store, payee, changes, tariffs, board, ctx.clock, ctx.log)
    endings = Endings(store, board, changes, money, tariffs, ctx.clock)
    holds = Holds(
        store, board, remembered, tariffs, permits, changes, endings, views, lots.find, ctx.clock, ctx.randomness,
        ctx.settings.general.zone, ctx.key("plates"),
    )  # fmt: skip
    return _Reserving(
        board=board,
        remembered=remembered,
        views=views,
        payee=payee,
        money=money,
        endings=endings,
        holds=holds,
        reservations=Reservations(store, board, changes, money, tariffs, holds, views, ctx.clock),
        passages=Passages(changes, money, tariffs, board, ctx.clock),
    )


def _sensing(ctx: Context, store: Store, lots: Lots, passages: Passages) -> _Sensing:
    settings = ctx.settings.parking
    registry = Registry(store, DEVICES, ctx.dial, events.FLEET_GROUP)
    states = States(store, ctx.clock, settings.sensor_silence_s)
    return _Sensing(
        registry=registry,
        states=states,
        ingest=Ingest(store, registry, lots, states, passages, ctx.clock, ctx.randomness, settings),
        city_events=CityEvents(store, lots, ctx.clock),
        expectations=Expectations(lots, ctx.dial, ctx.clock, ctx.log),
        calibration=Calibration(store, ctx.clock, ctx.randomness, ctx.settings.general.zone),
    )


def _parts(
    ctx: Context, store: Store, given: tuple[Lots, Tariffs, Permits], reserving: _Reserving, sensing: _Sensing
) -> Parts:
    (lots, tariffs, permits), general = given, ctx.settings.general
    states, expectations, calibration = sensing.states, sensing.expectations, sensing.calibration
    keys = Keys(store, ctx.ledger, ctx.key("access-signing"))
    return Parts(
        lots=lots,
        tariffs=tariffs,
        permits=permits,
        holds=reserving.holds,
        reservations=reserving.reservations,
        views=reserving.views,
        keys=keys,
        access=Access(store, keys, tariffs, lots.find, ctx.clock, general.city),
        bundles=Bundles(
            store, Proofs(ctx.dial), reserving.payee, keys, lambda c, name: device_keys(c, DEVICES, name), general.city
        ),
        books=Books(store),
        ingest=sensing.ingest,
        listing=Listing(lots, states, expectations, reserving.board, ctx.clock),
        advising=Advising(
            lots,
            states,
            expectations,
            sensing.city_events,
            tariffs,
            reserving.board,
            calibration,
            ctx.clock,
            general.zone,
        ),
        city_events=sensing.city_events,
        calibration=calibration,
        publications=Publications(lots, states, ctx.clock, general),
    )


def _looking_again(ctx: Context, store: Store, board: Board) -> Callable[[], Awaitable[None]]:
    """Fills the board from the promises that are stored: at start, and now and then."""

    async def look_again() -> None:
        changed = board.changes
        slot = unix(ctx.clock) // SLOT_S
        found = await store.read(lambda c: (promises(c, slot), hold_ends(c)))
        board.load(*found, changed)

    return look_again
