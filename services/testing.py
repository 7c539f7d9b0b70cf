"""An embedded city for tests: the same parts and the same start as `city run`, on a temporary directory, with a clock that stands still."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio

from citykit.access import bearer_interceptors_of, mint, signing_key
from citykit.bus.port import Bus
from citykit.clock import ReplayClock
from citykit.edge import MESSAGE_MAX_BYTES
from citykit.ids import Randomness, seeded_randomness
from citykit.ledger.port import Ledger
from citykit.run import Build, Process, World, derive_key, running
from citykit.settings import CitySettings, NotarySettings
from citykit.testing.polling import until
from services.registry import builders, contracts
from services.world import embedded_world

START = 1_475_535_600
"""2016-10-04T00:00 in London, when the demo's contracts begin."""
_TOKEN_S = 900


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
        return self.process.dial("test", service) if token is None else bearer_channel(self.process.socket, token)

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


def bearer_channel(socket: str, token: str) -> grpc.aio.Channel:
    """A channel whose every call carries `token`."""
    options = (
        ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
        ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    )
    return grpc.aio.insecure_channel(socket, options=options, interceptors=bearer_interceptors_of(token))


@contextlib.asynccontextmanager
async def embedded_city(
    state: Path,
    *,
    services: Sequence[str] = ("identity", "metering", "notary"),
    start: float = START,
    settings: CitySettings | None = None,
    randomness: Randomness | None = None,
    more: Mapping[str, Build] | None = None,
) -> AsyncIterator[TestCity]:
    """Runs the named services (and `more`) until the block ends. Anchors every 50 ms so that tests need not wait."""
    chosen = settings or replace(CitySettings(), notary=NotarySettings(anchor_interval_s=0.05))
    clock = ReplayClock(start)
    source = randomness or seeded_randomness(7)
    async with (
        embedded_world(state, chosen, clock, source, contracts(services)) as world,
        running(world, {**builders(services), **(more or {})}) as process,
    ):
        yield TestCity(process, world, clock)
