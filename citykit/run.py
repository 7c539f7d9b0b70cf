"""Starts, serves and drains services in one process: all of them, or one. It knows ports only; `services.world` chooses the parts.

Called by the `city` command and by the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio
from sqlalchemy import MetaData

from citykit import telemetry
from citykit.access import (
    AccessCheck,
    KeySource,
    ServiceTokens,
    TokenVerifier,
    bearer_client_interceptors,
    rules_of,
)
from citykit.bus.port import Bus
from citykit.clock import Clock
from citykit.edge import Edge
from citykit.errors import CityError
from citykit.ids import Randomness
from citykit.keys import derive_key, service_token_seed
from citykit.ledger.port import Ledger
from citykit.network import Network, server_options
from citykit.operations.observed import ObservedLedger, observed_subscription
from citykit.operations.pulse import Pulse
from citykit.operations.serving import Operations, Watched, serve_operations
from citykit.relay import relay
from citykit.service import Context, Job, Service
from citykit.settings import CitySettings
from citykit.store.port import Store

DRAIN_S = 10.0
_DRAIN_POLL_S = 0.02
_PRUNE_EVERY_S = 3_600.0
_RELAY_STUCK_S = 120.0
_BATCH_STUCK_S = 120.0
_YOUNG = 10_000
"""New objects between two rounds over the young."""
Build = Callable[[Context], Service]
OpenStoreOf = Callable[[str, MetaData, Path], Store]
"""Opens the database of the named service, migrated."""


@dataclass(frozen=True)
class World:
    """The parts a process runs on.

    Attributes:
        state: the state directory; each service has its folder in it.
        root_key: 32 bytes from which every service's secret keys are derived.
        whole: every service runs in this process, so nobody else fills what its consumers wait for, and a clean stop waits for them.
    """

    settings: CitySettings
    clock: Clock
    randomness: Randomness
    ledger: Ledger
    bus: Bus
    open_store: OpenStoreOf
    network: Network
    state: Path
    root_key: bytes
    whole: bool = True


class Process:
    """The running services. Made by `running`."""

    def __init__(self, world: World, services: Sequence[Service], stores: Mapping[str, Store]) -> None:
        self.world = world
        self.services = {service.name: service for service in services}
        self.stores = stores
        self.migrations: dict[str, Path] = {}
        self.pulse = Pulse(world.settings.observability.stalled_s)
        self.operations: Operations | None = None
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    def dial(self, caller: str, service: str) -> grpc.aio.Channel:
        """The channel from `caller` to `service`, with the caller's identity on every call."""
        if (caller, service) not in self._channels:
            tokens = ServiceTokens(service_token_seed(self.world.root_key), caller)
            interceptors = bearer_client_interceptors(tokens, service)
            self._channels[caller, service] = self.world.network.channel(caller, service, interceptors)
        return self._channels[caller, service]

    def anonymous(self, service: str = "", through: str = "") -> grpc.aio.Channel:
        """A channel without a token, as a device or a stranger has it.

        Args:
            service: may be left out where all are at one place.
            through: whose certificate the connection shows, where connections show any.
        """
        place = (f"{through}>", service)
        if place not in self._channels:
            self._channels[place] = self.world.network.channel(through, service)
        return self._channels[place]

    async def settled(self) -> bool:
        """True when every outbox is empty and, where the whole city is here, every consumer has caught up."""
        waiting = [await store.outbox_size() for store in self.stores.values()]
        subscriptions = [item for service in self.services.values() for item in service.subscriptions]
        if any(waiting):
            return False
        return not self.world.whole or all([await self.world.bus.caught_up(item) for item in subscriptions])

    async def close_channels(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


@contextlib.asynccontextmanager
async def running(world: World, builds: Mapping[str, Build]) -> AsyncIterator[Process]:
    """Builds the services, serves them on the world's network, runs their consumers and jobs.

    At the end calls and jobs stop first, then what was stored goes through outboxes and consumers, then those stop.

    Start-up order never matters: a service that needs another dials it when it needs it.
    """
    stores: dict[str, Store] = {}
    process = Process(world, (), stores)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.close_channels)
        for name, build in builds.items():
            process.services[name] = build(_context(world, name, process, stores, stack))
        watched = Watched(process.services, stores, process.migrations, world.bus, world.ledger, world.clock)
        operations = await serve_operations(stack, world.settings.observability, watched, process.pulse)
        process.operations = operations
        await _serve(stack, world, process, operations)
        await operations.serving()
        stack.push_async_callback(operations.draining)
        yield process


def keep_out_of_collections() -> None:
    """What the start made stays for as long as the process: the garbage collector need not walk it in every full round.

    A full round over a started city was measured to hold every call up for more than 100 ms. What comes later is looked at in larger steps: a
    service under load makes thousands of objects that live for one batch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


def _context(world: World, name: str, process: Process, stores: dict[str, Store], stack: AsyncExitStack) -> Context:
    def open_store(metadata: MetaData, migrations: Path) -> Store:
        process.migrations[name] = migrations
        stores[name] = world.open_store(name, metadata, migrations)
        stack.push_async_callback(stores[name].close)  # also where the rest of its service cannot be built
        return stores[name]

    directory = world.state / name
    directory.mkdir(parents=True, exist_ok=True)
    return Context(
        name=name,
        settings=world.settings,
        clock=world.clock,
        randomness=world.randomness,
        ledger=ObservedLedger(world.ledger),
        bus=world.bus,
        open_store=open_store,
        dial=partial(process.dial, name),
        log=telemetry.logger(name),
        directory=directory,
        key=partial(derive_key, world.root_key, name),
    )


async def _serve(stack: AsyncExitStack, world: World, process: Process, operations: Operations) -> None:
    services = list(process.services.values())
    for service in services:
        if service.start is not None:
            await service.start()
        if service.stop is not None:
            stack.push_async_callback(service.stop)
    keep = process.pulse.keep
    tasks = [keep(f"{name}/relay", _relay(process, name, store)) for name, store in process.stores.items()]
    stack.push_async_callback(_cancel, tasks)
    for service in services:
        for subscription in service.subscriptions:
            observed = observed_subscription(subscription, partial(process.pulse.doing, limit_s=_BATCH_STUCK_S))
            await stack.enter_async_context(world.bus.consume(observed))
    stack.push_async_callback(_drain, process)
    work = [(service.name, job) for service in services for job in service.jobs]
    work.append(("city", Job("prune", partial(_prune, process), _PRUNE_EVERY_S)))
    jobs = [keep(f"{name}/{job.name}", _repeat(process.pulse, name, job)) for name, job in work]
    stack.push_async_callback(_cancel, jobs)
    server = _server(world, process, operations)
    await server.start()
    stack.push_async_callback(server.stop, DRAIN_S)


def _server(world: World, process: Process, operations: Operations) -> grpc.aio.Server:
    servicers = [item for service in process.services.values() for item in service.servicers]
    servicers.append(operations.servicer)
    rules = rules_of([item.full_name for item in servicers])
    caller = "city" if world.whole else next(iter(process.services))
    keys = KeySource(partial(process.dial, caller))
    services_key = ServiceTokens(service_token_seed(world.root_key), caller).public_key
    verifier = TokenVerifier(world.settings, keys, services_key)
    server = grpc.aio.server(options=server_options(world.settings.services), maximum_concurrent_rpcs=1_000)
    edge = Edge(server, (*world.network.checks(), AccessCheck(verifier, rules)))
    for item in servicers:
        item.add(item.servicer, edge)
    operations.grpc_health.add_to(server, [item.full_name for item in servicers])
    world.network.listen(server, [name for name, service in process.services.items() if service.servicers])
    return server


async def _relay(process: Process, name: str, store: Store) -> None:
    doing = partial(process.pulse.doing, f"{name}/relay", _RELAY_STUCK_S)
    await relay(name, store, process.world.bus, process.world.settings.bus.relay_batch, doing)


async def _repeat(pulse: Pulse, service: str, job: Job) -> None:
    log = telemetry.logger(service)
    succeeded = telemetry.JOB_SUCCEEDED.labels(service, job.name)
    while True:
        try:
            with pulse.doing(f"{service}/{job.name}", job.stuck_s):
                await job.run()
            succeeded.set_to_current_time()
        except Exception as error:
            telemetry.JOB_FAILURES.labels(service, job.name).inc()
            log.warning("job-failed", extra={"fields": {"job": job.name, "reason": _reason(error)}})
        await asyncio.sleep(job.every_s)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, CityError) else type(error).__name__


async def _prune(process: Process) -> None:
    for store in process.stores.values():
        await store.prune()
    await process.world.bus.prune()


async def _drain(process: Process) -> None:
    """With no call and no job left: outboxes empty into the bus and consumers catch up. What takes too long waits for the next start."""
    end = asyncio.get_running_loop().time() + DRAIN_S
    while not await process.settled():
        if asyncio.get_running_loop().time() > end:
            waiting = {name: size for name, store in process.stores.items() if (size := await store.outbox_size())}
            telemetry.logger("city").warning("drain-unfinished", extra={"fields": {"outboxes": waiting}})
            return
        await asyncio.sleep(_DRAIN_POLL_S)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
