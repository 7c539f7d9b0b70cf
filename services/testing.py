"""An embedded city for tests: the same parts and the same start as `city run`, on a temporary directory, with a clock that stands still.

`TEST_POSTGRES=<port>:<folder of passwords>` puts the state of every service into that server instead of SQLite files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio
from sqlalchemy import MetaData

from citykit.access import bearer_interceptors_of, mint, signing_key
from citykit.bus.port import Bus
from citykit.clock import ReplayClock
from citykit.ids import Randomness, seeded_randomness
from citykit.keys import derive_key
from citykit.ledger.port import Ledger
from citykit.run import Build, Process, World, running
from citykit.settings import CitySettings, NotarySettings, PostgresSettings
from citykit.store.places import keep_place, place_of
from citykit.store.port import Store
from citykit.store.postgres import open_postgres
from citykit.testing.polling import until
from infra.postgres import Admin, provision
from services.registry import builders, contracts
from services.world import embedded_world

START = 1_475_535_600
"""2016-10-04T00:00 in London, when the demo's contracts begin."""
SERVER = "TEST_POSTGRES"
_TOKEN_S = 900
_CONNECTIONS = 200
"""Of one role: many cities of many tests share a server."""


@dataclass(frozen=True)
class TestCity:
    """A running city and the ways into it."""

    __test__ = False

    process: Process
    world: World
    clock: ReplayClock

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger

    @property
    def bus(self) -> Bus:
        return self.world.bus

    def token(self, *, role: str, subject: str, audience: str, **claims: object) -> str:
        """An access token as identity would issue it (RFC 9068); `claims` override."""
        seed = derive_key(self.world.root_key, "identity", "token-signing")
        key = signing_key(seed)
        now = int(time.time())
        body = {
            "iss": f"https://{self.world.settings.general.city}",
            "sub": subject,
            "aud": audience,
            "roles": [role],
            "iat": now,
            "exp": now + _TOKEN_S,
            "jti": hashlib.sha256(f"{subject}{now}".encode()).hexdigest()[:16],
            "client_id": "test",
            **claims,
        }
        return mint(key, body)

    def dial(self, service: str, token: str | None = None) -> grpc.aio.Channel:
        """A channel as a service ("test") has it; with `token`, as its bearer."""
        return self.process.dial("test", service) if token is None else self.bearer(token)

    def bearer(self, token: str) -> grpc.aio.Channel:
        """A channel whose every call carries `token`."""
        return self.world.network.channel("test", "", bearer_interceptors_of(token))

    async def settle(self, *, anchored: bool = True) -> None:
        """Waits until outboxes are empty, consumers have caught up and (by default) every log is anchored."""
        await until(self.process.settled, "outboxes empty and consumers caught up")
        if anchored and "notary" in self.process.services:
            await until(self._anchored, "every log anchored")

    async def _anchored(self) -> bool:
        from city.notary.v1 import notary_service_pb2 as notary  # noqa: PLC0415 - cities without a notary
        from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub  # noqa: PLC0415

        heads = await NotaryServiceStub(self.process.anonymous()).ListLogs(notary.ListLogsRequest())
        return all(head.size == head.anchored_size for head in heads.heads)


@contextlib.asynccontextmanager
async def embedded_city(
    state: Path,
    *,
    services: Sequence[str] = ("identity", "metering", "notary"),
    start: float = START,
    settings: CitySettings | None = None,
    randomness: Randomness | None = None,
    more: Mapping[str, Build] | None = None,
    bus: Callable[[Bus], Bus] | None = None,
) -> AsyncIterator[TestCity]:
    """Runs the named services (and `more`) until the block ends. Anchors every 50 ms so that tests need not wait.

    Args:
        bus: gives what stands between the city and its bus.
    """
    chosen = settings or replace(CitySettings(), notary=NotarySettings(anchor_interval_s=0.05))
    clock = ReplayClock(start)
    source = randomness or seeded_randomness(7)
    builds = {**builders(services), **(more or {})}
    async with (
        embedded_world(state, chosen, clock, source, contracts(services)) as embedded,
        running(world := _between(bus, placed(embedded, builds)), builds) as process,
    ):
        yield TestCity(process, world, clock)


def _between(bus: Callable[[Bus], Bus] | None, world: World) -> World:
    return replace(world, bus=bus(world.bus)) if bus else world


def database_of(state: Path) -> str:
    """The database of a state directory, where the tests run on PostgreSQL."""
    return "city_" + hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]


def placed(world: World, services: Iterable[str]) -> World:
    """The world with its stores where the switch says. Also for benches."""
    server = os.environ.get(SERVER)
    if not server:
        return world
    port, _, passwords = server.partition(":")
    database = database_of(world.state)
    names = list(services)
    # A test may have copied the state of another city: its database is copied too.
    copied = next((earlier.settings.database for name in names if (earlier := place_of(world.state, name))), "")
    provision(Admin(int(port), Path(passwords), database=database), names, template=copied, connections=_CONNECTIONS)
    place = PostgresSettings(
        port=int(port), database=database, password_file=f"{passwords}/city_{{service}}", start_s=10.0
    )

    def open_store(name: str, metadata: MetaData, migrations: Path) -> Store:
        keep_place(world.state, name, place)
        return open_postgres(name, metadata, migrations, world.settings.store, place)

    return replace(world, open_store=open_store)
