"""Starts, serves and drains services in one process. Called by the `city` command and by the tests, with the same parts."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
from sqlalchemy import MetaData

from citykit import telemetry
from citykit.access import (
    AccessInterceptor,
    KeySource,
    ServiceTokens,
    TokenVerifier,
    bearer_client_interceptors,
    rules_of,
)
from citykit.bus.local import LocalBus
from citykit.bus.port import Message
from citykit.clock import Clock
from citykit.edge import MESSAGE_MAX_BYTES, EdgeInterceptor
from citykit.errors import CityError, EnvironmentFault
from citykit.ids import Randomness
from citykit.ledger.port import Ledger
from citykit.service import Context, Job, Service
from citykit.settings import CitySettings
from citykit.store.port import Store
from citykit.store.sqlite import SqliteStore, open_sqlite

DRAIN_S = 10.0
_DRAIN_POLL_S = 0.02
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
)
_PRUNE_EVERY_S = 3_600.0
_SOCKET_PATH_MAX = 100
Build = Callable[[Context], Service]


@dataclass(frozen=True)
class World:
    """The parts a process runs on.

    Attributes:
        state: the state directory; each service has its folder in it.
        root_key: 32 bytes from which every service's secret keys are derived.
    """

    settings: CitySettings
    clock: Clock
    randomness: Randomness
    ledger: Ledger
    bus: LocalBus
    state: Path
    root_key: bytes


class Process:
    """The running services. Made by `running`."""

    def __init__(
        self, world: World, services: Sequence[Service], stores: Mapping[str, SqliteStore], socket: str
    ) -> None:
        self.world = world
        self.services = {service.name: service for service in services}
        self.stores = stores
        self.socket = socket
        self._channels: dict[str, grpc.aio.Channel] = {}

    def dial(self, caller: str, service: str) -> grpc.aio.Channel:
        """The channel from `caller` to `service`, with the caller's identity on every call."""
        key = f"{caller}>{service}"
        if key not in self._channels:
            tokens = ServiceTokens(service_token_seed(self.world.root_key), caller)
            self._channels[key] = grpc.aio.insecure_channel(
                self.socket, options=_CHANNEL_OPTIONS, interceptors=bearer_client_interceptors(tokens, service)
            )
        return self._channels[key]

    def anonymous(self) -> grpc.aio.Channel:
        """A channel without any identity, as a device or a stranger has it."""
        return self._channels.setdefault(">", grpc.aio.insecure_channel(self.socket, options=_CHANNEL_OPTIONS))

    async def settled(self) -> bool:
        """True when every outbox is empty and every consumer has caught up."""
        waiting = [await store.outbox_size() for store in self.stores.values()]
        subscriptions = [item for service in self.services.values() for item in service.subscriptions]
        return not any(waiting) and all(self.world.bus.caught_up(item) for item in subscriptions)

    async def close_channels(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


@contextlib.asynccontextmanager
async def running(world: World, builds: Mapping[str, Build]) -> AsyncIterator[Process]:
    """Builds the services, serves them on a Unix socket, runs their consumers and jobs.

    At the end calls and jobs stop first, then what was stored goes through outboxes and consumers, then those stop.

    Start-up order never matters: a service that needs another dials it when it needs it.
    """
    socket = f"unix:{socket_path(world.state)}"
    stores: dict[str, SqliteStore] = {}
    process = Process(world, (), stores, socket)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.close_channels)
        for name, build in builds.items():
            process.services[name] = build(_context(world, name, process))
            if name in stores:
                stack.push_async_callback(stores[name].close)
        await _serve(stack, world, process)
        yield process


def keep_out_of_collections() -> None:
    """What the start made stays for as long as the process: the garbage collector need not walk it in every full round.

    A full round over a started city was measured to hold every call up for more than 100 ms.
    """
    gc.collect()
    gc.freeze()


def service_token_seed(root_key: bytes) -> bytes:
    """Ed25519 seed of the tokens services show each other."""
    return derive_key(root_key, "city", "service-tokens")


def derive_key(root_key: bytes, service: str, purpose: str) -> bytes:
    """32 bytes: HMAC-SHA256 of the service and the purpose under the root key."""
    return hmac.new(root_key, f"city.key.v1\n{service}\n{purpose}".encode(), hashlib.sha256).digest()


def root_key(state: Path, randomness: Randomness) -> bytes:
    """The root key in the state directory; made at the first start, readable by the owner only."""
    path = state / "keys" / "root"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(randomness(32))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)
    return path.read_bytes()


@contextlib.contextmanager
def locked(state: Path) -> Any:
    """Holds the state directory for this process.

    Raises:
        EnvironmentFault: another process holds it, or it cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(
            f"the state directory {state} cannot be written ({error.strerror}); name another with --state"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise EnvironmentFault(
                f"a city already runs on {state} (process {file.read().strip() or 'unknown'});"
                " stop it first, or name another directory with --state"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def socket_path(state: Path) -> Path:
    """Unix socket paths are limited to 107 bytes, so a deep state directory is named by a hash under /tmp."""
    path = (state / "city.sock").resolve()
    if len(str(path)) > _SOCKET_PATH_MAX:
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(os.environ.get("TMPDIR", "/tmp")) / f"city-{digest}.sock"  # noqa: S108 - name is a hash of our state
    return path


def _context(world: World, name: str, process: Process) -> Context:
    def open_store(metadata: MetaData, migrations: Path) -> Store:
        store = open_sqlite(world.state / name / f"{name}.db", metadata, migrations, world.settings.store)
        process.stores[name] = store  # type: ignore[index]  # the one place that fills it
        return store

    directory = world.state / name
    directory.mkdir(parents=True, exist_ok=True)
    return Context(
        name=name,
        settings=world.settings,
        clock=world.clock,
        randomness=world.randomness,
        ledger=world.ledger,
        bus=world.bus,
        open_store=open_store,
        dial=partial(process.dial, name),
        log=telemetry.logger(name),
        directory=directory,
        key=partial(derive_key, world.root_key, name),
    )


async def _serve(stack: AsyncExitStack, world: World, process: Process) -> None:
    services = list(process.services.values())
    for service in services:
        if service.start is not None:
            await service.start()
        if service.stop is not None:
            stack.push_async_callback(service.stop)
    tasks = [asyncio.create_task(_relay(world, name, store)) for name, store in process.stores.items()]
    stack.push_async_callback(_cancel, tasks)
    for service in services:
        for subscription in service.subscriptions:
            await stack.enter_async_context(world.bus.consume(subscription))
    stack.push_async_callback(_drain, process)
    jobs = [asyncio.create_task(_repeat(service.name, job)) for service in services for job in service.jobs]
    jobs.append(asyncio.create_task(_repeat("city", Job("prune", partial(_prune, process), _PRUNE_EVERY_S))))
    stack.push_async_callback(_cancel, jobs)
    server = _server(world, process)
    await server.start()
    stack.push_async_callback(server.stop, DRAIN_S)


def _server(world: World, process: Process) -> grpc.aio.Server:
    servicers = [item for service in process.services.values() for item in service.servicers]
    rules = rules_of([item.full_name for item in servicers])
    keys = KeySource(partial(process.dial, "city"))
    services_key = ServiceTokens(service_token_seed(world.root_key), "city").public_key
    verifier = TokenVerifier(world.settings, keys, services_key)
    server = grpc.aio.server(
        interceptors=[EdgeInterceptor(), AccessInterceptor(verifier, rules)],
        options=(*_CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)),
        maximum_concurrent_rpcs=1_000,
    )
    for item in servicers:
        item.add(item.servicer, server)
    Path(process.socket.removeprefix("unix:")).unlink(missing_ok=True)
    server.add_insecure_port(process.socket)
    return server


async def _relay(world: World, name: str, store: SqliteStore) -> None:
    """Outbox to bus, in order, for as long as the process runs."""
    log = telemetry.logger(name)
    while True:
        await store.outbox_grew.wait()
        try:
            await relay_once(store, world.bus, world.settings.bus.relay_batch)
        except CityError as error:
            log.warning("relay-failed", extra={"fields": {"reason": error.reason}})
            await asyncio.sleep(error.retry_after_s or 1.0)
        telemetry.OUTBOX_MESSAGES.labels(name).set(await store.outbox_size())


async def relay_once(store: SqliteStore, bus: LocalBus, limit: int) -> int:
    """Publishes the oldest messages and takes them out of the outbox. Dying between the two publishes them twice."""
    waiting = await store.outbox(limit)
    if not waiting:
        store.outbox_grew.clear()
        if await store.outbox_size():
            store.outbox_grew.set()
        return 0
    messages: list[Message] = [message for _, message in waiting]
    await bus.publish(messages)
    await store.published([number for number, _ in waiting])
    return len(messages)


async def _repeat(service: str, job: Job) -> None:
    log = telemetry.logger(service)
    while True:
        try:
            await job.run()
        except Exception as error:
            telemetry.JOB_FAILURES.labels(service, job.name).inc()
            reason = error.reason if isinstance(error, CityError) else type(error).__name__
            log.warning("job-failed", extra={"fields": {"job": job.name, "reason": reason}})
        await asyncio.sleep(job.every_s)


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
