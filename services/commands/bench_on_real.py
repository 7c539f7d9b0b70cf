"""Figures of metering on the real parts (`city bench metering-real`): the same load as `bench`, into PostgreSQL and onto Kafka.

The parts are those of `make up`, in a folder of their own: one server and one broker, both over TLS, as durable as a city has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from citykit.bus.kafka import open_kafka_bus
from citykit.bus.topics import TOPICS
from citykit.loop import run_to_end
from citykit.run import Process, World
from citykit.settings import for_service, read_settings
from citykit.store.postgres import open_postgres
from infra.native import cache_folder
from infra.parts import Wanted, install
from infra.supervisor import Supervisor
from infra.up import start
from services.metering.bench import BATCHED, SINGLE, Figure, Load, how, ingest, measured

_DRAIN_S, _POLL_S = 60.0, 0.05


def readings_batched_real() -> Figure:
    """Readings a second with 100 readings under each signature."""
    return _figure("readings-100-real", BATCHED, 15_000, 40_000)


def readings_single_real() -> Figure:
    """Readings a second with one reading under each signature."""
    return _figure("readings-1-real", SINGLE, 3_500, 8_000)


BENCHES = (readings_batched_real, readings_single_real)


def _figure(name: str, load: Load, floor: int, aim: int) -> Figure:
    with tempfile.TemporaryDirectory(prefix="bench-real-") as folder:
        state = Path(folder)
        wanted = Wanted(state / "real", cache_folder(), ("kafka", "postgres"))
        install(wanted, lambda line: None)
        supervisor = Supervisor(wanted.state / "logs", lambda line: None)
        settings = {**start(wanted, supervisor, lambda line: None), "CITY_KAFKA_CLIENT": "confluent-kafka"}
        drained: list[float] = []
        try:
            rate = run_to_end(ingest(load, partial(_placed, settings), partial(_drain, drained)))
        finally:
            supervisor.stop()
    where = (
        "stored in PostgreSQL 18 over TLS (synchronous_commit) with the outbox before each answer, and relayed to one Kafka broker"
        f" over TLS (confluent-kafka, acks=all) meanwhile: the outbox was empty {drained[0]:.2f} s after the last answer"
    )
    return measured(name, rate, "readings/s", floor, aim, how(load, where))


@contextlib.asynccontextmanager
async def _placed(settings: Mapping[str, str], world: World) -> AsyncIterator[World]:
    """The world with metering's store and bus on the real parts."""
    own = for_service(read_settings(settings), "metering")
    bus = await open_kafka_bus(TOPICS, own.kafka)
    try:
        yield replace(
            world,
            bus=bus,
            open_store=lambda name, metadata, migrations: open_postgres(
                name, metadata, migrations, own.store, own.postgres
            ),
        )
    finally:
        await bus.close()


async def _drain(drained: list[float], process: Process) -> None:
    """Waits until the bus has all that was acknowledged."""
    begun = time.perf_counter()
    while not await process.settled():
        if time.perf_counter() - begun > _DRAIN_S:
            raise RuntimeError(f"the outbox was not empty {_DRAIN_S:.0f} s after the last answer")
        await asyncio.sleep(_POLL_S)
    drained.append(time.perf_counter() - begun)
