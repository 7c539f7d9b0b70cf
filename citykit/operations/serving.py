"""Starts what tells of a process: its pulse, its own port, regular looks. Called by `citykit.run`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from citykit import telemetry
from citykit.bus.port import Bus
from citykit.clock import Clock, unix
from citykit.errors import CityError
from citykit.ledger.port import Ledger
from citykit.operations.calls import GrpcHealth, operations_servicer
from citykit.operations.health import DRAINING, SERVING, Health, Part
from citykit.operations.http import own_port
from citykit.operations.invariants import Board
from citykit.operations.pulse import Pulse
from citykit.service import Service, Servicer
from citykit.settings import ObservabilitySettings
from citykit.store.migrate import require_current
from citykit.store.port import Store


@dataclass(frozen=True)
class Watched:
    """The parts of a process.

    Attributes:
        stores: by service.
        migrations: the folder with each store's revisions.
    """

    services: Mapping[str, Service]
    stores: Mapping[str, Store]
    migrations: Mapping[str, Path]
    bus: Bus
    ledger: Ledger
    clock: Clock


@dataclass(frozen=True)
class Operations:
    """What `serve_operations` gives back."""

    health: Health
    board: Board
    servicer: Servicer
    grpc_health: GrpcHealth

    async def serving(self) -> None:
        """Calls are served from now on."""
        self.health.state = SERVING
        await self.say()

    async def draining(self) -> None:
        """No call is begun any more."""
        self.health.state = DRAINING
        await self.say()

    async def say(self) -> None:
        """Looks whether every part answers, and says so where gRPC asks."""
        await self.grpc_health.say(ready=(await self.health.readiness()).ok)


async def serve_operations(
    stack: AsyncExitStack, settings: ObservabilitySettings, watched: Watched, pulse: Pulse
) -> Operations:
    """From here on the process answers whether it is alive and ready (not yet: `starting`), until the stack ends.

    Raises:
        EnvironmentFault: the port is taken.
    """
    health = Health(parts(watched), pulse, settings.probe_s)
    stack.push_async_callback(health.close)
    board = Board(watched.services)
    operations = Operations(health, board, operations_servicer(board, watched.services), GrpcHealth())
    if settings.port:
        stack.enter_context(own_port(settings.host, settings.port, health))
    tasks = [
        pulse.keep("operations/beat", pulse.beat()),
        pulse.keep("operations/looks", _look_again(operations, watched, settings.look_s)),
    ]
    stack.push_async_callback(_cancel, tasks)
    return operations


def parts(watched: Watched) -> list[Part]:
    """Stores with their migrations, the bus and the ledger."""
    stores = [
        Part(f"store.{name}", partial(_ask_store, store, name, watched.migrations.get(name)))
        for name, store in watched.stores.items()
    ]
    return [*stores, Part("bus", watched.bus.topics), Part("ledger", watched.ledger.height)]


async def _ask_store(store: Store, name: str, migrations: Path | None) -> None:
    await store.read(lambda connection: require_current(connection, migrations, name))


async def _look_again(operations: Operations, watched: Watched, every_s: float) -> None:
    log = telemetry.logger("city")
    while True:
        await asyncio.sleep(every_s)
        for look in (operations.say, partial(_measure, watched), operations.board.states):
            try:
                await look()
            except Exception as error:  # what is away is told by /readyz; looking goes on
                reason = error.reason if isinstance(error, CityError) else type(error).__name__
                log.warning("look-failed", extra={"fields": {"reason": reason}})


async def _measure(watched: Watched) -> None:
    """City time, what waits in outboxes, how far consumers are behind, how high the ledger is."""
    telemetry.CITY_TIME.set(unix(watched.clock))
    for name, store in watched.stores.items():
        telemetry.OUTBOX_MESSAGES.labels(name).set(await store.outbox_size())
    mine = {one.group for service in watched.services.values() for one in service.subscriptions}
    for topic in await watched.bus.topics():
        for group in mine & topic.lag.keys():
            telemetry.BUS_LAG.labels(topic.topic, group).set(topic.lag[group])
    telemetry.LEDGER_BLOCKS.set(await watched.ledger.height())


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
