"""What one message costs each adapter of the bus, for `city bench bus`: processor time of our process, side by side; reported, without a floor."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.bus.kafka import open_kafka_bus
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.topics import apply, plans
from citykit.bus.local import open_local_bus
from citykit.bus.port import Bus, Message, Record, Subscription
from citykit.bus.topics import Topic
from citykit.errors import EnvironmentFault
from citykit.settings import BusSettings, KafkaSettings
from infra.kafka import addresses, install, programs
from infra.native import Native, cache_folder

Figure = dict[str, Any]
_TOPICS = (Topic("bench.facts", "bench"),)
_COUNT, _BATCH, _BYTES = 50_000, 1_000, 200
_PATIENCE_S = 600.0
_POLL_S = 0.02


@dataclass(frozen=True)
class _Cost:
    """Processor and wall time of both directions, seconds."""

    out_cpu_s: float
    out_s: float
    in_cpu_s: float
    in_s: float


def bus_local() -> Figure:
    """The embedded bus, on a file."""
    with tempfile.TemporaryDirectory() as folder:
        return _figure("bus-cpu-local", asyncio.run(_local(Path(folder))), "the embedded bus, SQLite synchronous=FULL")


def bus_kafka_python() -> Figure:
    """One broker, acks=all, idempotent."""
    return _on_broker("kafka-python")


def bus_confluent_kafka() -> Figure:
    """The same with librdkafka."""
    return _on_broker("confluent-kafka")


BENCHES = (bus_local, bus_kafka_python, bus_confluent_kafka)


def _on_broker(client: str) -> Figure:
    name = f"bus-cpu-{client}"
    try:
        install(cache_folder())
    except EnvironmentFault as error:
        return {
            "name": name,
            "value": None,
            "unit": "µs/message",
            "floor": None,
            "aim": None,
            "how": f"not run: {error}",
        }
    with tempfile.TemporaryDirectory() as folder:
        broker = Native(programs(cache_folder(), Path(folder), fast_start=False)[0], Path(folder))
        broker.start()
        try:
            broker.wait()
            cost = asyncio.run(_kafka(client, addresses(Path(folder))))
        finally:
            broker.stop()
    return _figure(name, cost, f"{client} and one Kafka broker without TLS on this machine, acks=all, idempotent")


async def _local(folder: Path) -> _Cost:
    bus = open_local_bus(folder / "bus.db", _TOPICS, BusSettings())
    try:
        return await _cost(bus)
    finally:
        await bus.close()


async def _kafka(client: str, bootstrap: str) -> _Cost:
    settings = KafkaSettings(bootstrap=bootstrap, client=client, security="PLAINTEXT")
    inspector = preflight(settings)
    apply(plans(_TOPICS, settings), settings, inspector)
    inspector.close()
    bus = await open_kafka_bus(_TOPICS, settings)
    try:
        return await _cost(bus)
    finally:
        await bus.close()


async def _cost(bus: Bus) -> _Cost:
    facts = [Message("bench.facts", f"key-{n % 100}", bytes(_BYTES), {"ce_id": str(n).encode()}) for n in range(_COUNT)]

    async def publish() -> None:
        for start in range(0, _COUNT, _BATCH):
            await bus.publish(facts[start : start + _BATCH])

    out_cpu_s, out_s = await _timed(publish)
    in_cpu_s, in_s = await _timed(lambda: _consume(bus))
    return _Cost(out_cpu_s, out_s, in_cpu_s, in_s)


async def _consume(bus: Bus) -> None:
    handled = 0

    async def count(batch: Sequence[Record]) -> None:
        nonlocal handled
        handled += len(batch)

    end = time.monotonic() + _PATIENCE_S
    async with bus.consume(Subscription("bench", ("bench.facts",), count, batch_max=_BATCH)):
        while handled < _COUNT and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)


async def _timed(act: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    await act()
    return time.process_time() - cpu, time.perf_counter() - wall


def _figure(name: str, cost: _Cost, what: str) -> Figure:
    out_us, in_us = (seconds / _COUNT * 1e6 for seconds in (cost.out_cpu_s, cost.in_cpu_s))
    return {
        "name": name,
        "value": round(out_us + in_us, 1),
        "unit": "µs/message",
        "floor": None,
        "aim": None,
        "how": f"{out_us:.1f} out, {in_us:.1f} in, of this process's processors; {_COUNT:,} messages of {_BYTES} B, {_BATCH:,} at once;"
        f" {_COUNT / cost.out_s:,.0f}/s out, {_COUNT / cost.in_s:,.0f}/s in; {what}",
    }
