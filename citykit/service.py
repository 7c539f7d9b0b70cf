"""The shape of a service: what it is given (Context) and what it gives back (Service). `citykit.run` starts and drains it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
from sqlalchemy import MetaData

from citykit.bus.port import Bus, Subscription
from citykit.clock import Clock
from citykit.ids import Randomness
from citykit.ledger.port import Ledger
from citykit.settings import CitySettings
from citykit.store.port import Store


class Dial(Protocol):
    """Reaches another service: one shared channel each, with this service's identity on every call."""

    def __call__(self, service: str) -> grpc.aio.Channel: ...


class OpenStore(Protocol):
    """Opens the service's own database, migrated to this version."""

    def __call__(self, metadata: MetaData, migrations: Path) -> Store: ...


@dataclass(frozen=True)
class Context:
    """All a service may use of the world. Handed to `build(ctx)`; nothing else is reached for.

    Attributes:
        name: the service's name.
        directory: its own folder under the state directory, for files that are not rows (tiles).
        key: derives a secret key of the service by purpose: 32 bytes, the same at every start.
    """

    name: str
    settings: CitySettings
    clock: Clock
    randomness: Randomness
    ledger: Ledger
    bus: Bus
    open_store: OpenStore
    dial: Dial
    log: logging.LoggerAdapter[logging.Logger]
    directory: Path
    key: Callable[[str], bytes]


@dataclass(frozen=True)
class Job:
    """Work without a caller. Called again `every_s` seconds (machine time) after it returned; a failure is logged and counted.

    Attributes:
        stuck_s: a run that takes longer is stuck: the process says that it is not alive.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    every_s: float
    stuck_s: float = 600.0


@dataclass(frozen=True)
class Finding:
    """Whether an invariant holds, and what was counted to know; no personal data in it."""

    holds: bool
    evidence: str


@dataclass(frozen=True)
class Invariant:
    """What must always hold of a service's own state. Looked at every `every_s` seconds (machine time).

    Attributes:
        name: kebab-case, stable; says what holds.
        look: cheap beside the service's work.
    """

    name: str
    look: Callable[[], Awaitable[Finding]]
    every_s: float = 30.0


@dataclass(frozen=True)
class Freeze:
    """Why a service must not be changed or moved now, and until when (unix seconds; None: until it says otherwise)."""

    reason: str
    until: float | None = None


@dataclass(frozen=True)
class Servicer:
    """A gRPC servicer and the generated function that adds it to a server."""

    add: Callable[[Any, Any], None]
    servicer: Any
    full_name: str
    """E.g. `city.metering.v1.MeteringService`; access rules are read from its descriptor."""


@dataclass(frozen=True)
class Service:
    """What `build(ctx)` returns.

    Attributes:
        start: called once before the service is served (recovery, warm-up).
        stop: called once after the last call has ended.
        http: an ASGI application (the gateway's).
        invariants, freeze: what `city.operations.v1` tells of the service.
    """

    name: str
    store: Store | None = None
    servicers: Sequence[Servicer] = ()
    subscriptions: Sequence[Subscription] = ()
    jobs: Sequence[Job] = ()
    start: Callable[[], Awaitable[None]] | None = None
    stop: Callable[[], Awaitable[None]] | None = None
    http: Any = None
    invariants: Sequence[Invariant] = ()
    freeze: Callable[[], Awaitable[Freeze | None]] | None = None
