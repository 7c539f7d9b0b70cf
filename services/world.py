"""Assembles the world (ledger, bus, store, network, keys) that services run on. Called by `city run`, `city serve` and the tests.

`embedded_world`: one process, everything in its state directory. `real_world`: one service's process, on Kafka, PostgreSQL and a Fabric channel.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from sqlalchemy import MetaData

from citykit.absent import AbsentBus, AbsentLedger
from citykit.bus.local import open_local_bus
from citykit.bus.port import Bus
from citykit.bus.topics import TOPICS
from citykit.clock import Clock, unix
from citykit.errors import SettingsError
from citykit.ids import Randomness
from citykit.keys import read_root_key, root_key
from citykit.ledger.local import LocalLedger
from citykit.ledger.port import Ledger
from citykit.network import SocketNetwork, tls_network
from citykit.run import World
from citykit.settings import CitySettings, for_service
from citykit.state import socket_path
from citykit.store.port import Store
from citykit.store.sqlite import open_sqlite
from services.registry import SERVICES, WITHOUT_PARTS, contracts

CLOCK = "clock"
"""A demo's clock for several processes, in its state directory."""


@contextlib.asynccontextmanager
async def embedded_world(
    state: Path,
    settings: CitySettings,
    clock: Clock,
    randomness: Randomness,
    contract_objects: Sequence[object] | None = None,
) -> AsyncIterator[World]:
    """The world of one process.

    Raises:
        SettingsError: the settings say `cluster`, where the embedded parts are refused.
    """
    if settings.general.mode == "cluster":
        raise SettingsError(
            "the embedded ledger, bus and store serve one process and are refused in mode `cluster`;"
            " set CITY_GENERAL_MODE=embedded or demo, or use the cluster parts",
            field="CITY_GENERAL_MODE",
        )
    state.mkdir(parents=True, exist_ok=True)
    chosen = contracts() if contract_objects is None else contract_objects
    ledger = await LocalLedger.open(
        state / "ledger", contracts=chosen, clock=lambda: unix(clock), randomness=randomness, settings=settings.ledger
    )
    bus = open_local_bus(state / "bus" / "bus.db", TOPICS, settings.bus)
    try:
        yield World(
            settings=settings,
            clock=clock,
            randomness=randomness,
            ledger=ledger,
            bus=bus,
            open_store=partial(_open_sqlite, state, settings),
            network=SocketNetwork(socket_path(state)),
            state=state,
            root_key=root_key(state, randomness),
        )
    finally:
        await bus.close()
        await ledger.close()


def _open_sqlite(state: Path, settings: CitySettings, name: str, metadata: MetaData, migrations: Path) -> Store:
    return open_sqlite(state / name / f"{name}.db", metadata, migrations, settings.store)


@contextlib.asynccontextmanager
async def real_world(
    state: Path, settings: CitySettings, clock: Clock, randomness: Randomness, service: str
) -> AsyncIterator[World]:
    """The world of one service's process; `{service}` in the settings stands for its name.

    Raises:
        SettingsError, EnvironmentFault: a part is not there, or not as it must be; says what to do.
    """
    own = for_service(settings, service)
    network = tls_network(own.services)
    key = _shared_root_key(own)
    state.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        ledger, bus = await _shared_parts(stack, own, clock, service)
        yield World(
            settings=own,
            clock=clock,
            randomness=randomness,
            ledger=ledger,
            bus=bus,
            open_store=partial(_open_postgres, state, own),
            network=network,
            state=state,
            root_key=key,
            whole=False,
        )


async def _shared_parts(
    stack: AsyncExitStack, settings: CitySettings, clock: Clock, service: str
) -> tuple[Ledger, Bus]:
    """Ledger and bus, closed with the stack. Imported here: `city run` without them needs none of their libraries."""
    if service not in SERVICES or service in WITHOUT_PARTS:
        return AbsentLedger(), AbsentBus()
    from citykit.bus.kafka import open_kafka_bus  # noqa: PLC0415
    from citykit.ledger.channel import open_channel_ledger  # noqa: PLC0415

    retries = settings.ledger.conflict_retries
    ledger = await open_channel_ledger(settings.fabric, clock=clock.now, conflict_retries=retries)
    stack.push_async_callback(ledger.close)
    bus = await open_kafka_bus(TOPICS, settings.kafka)
    stack.push_async_callback(bus.close)
    return ledger, bus


def _open_postgres(state: Path, settings: CitySettings, name: str, metadata: MetaData, migrations: Path) -> Store:
    from citykit.store.places import keep_place  # noqa: PLC0415 - see above
    from citykit.store.postgres import open_postgres  # noqa: PLC0415

    keep_place(state, name, settings.postgres)
    return open_postgres(name, metadata, migrations, settings.store, settings.postgres)


def _shared_root_key(settings: CitySettings) -> bytes:
    if not settings.services.root_key_file:
        raise SettingsError(
            "services in processes of their own share a root key: set CITY_SERVICES_ROOT_KEY_FILE; `make up` makes one",
            field="CITY_SERVICES_ROOT_KEY_FILE",
        )
    return read_root_key(Path(settings.services.root_key_file))
