"""How signed packages reach a service: streamed, a bounded number of requests unanswered; what is deferred is sent again. Used by the driver."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc.aio

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.parking.v1 import parking_service_pb2 as parking
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub

_PACKAGES_PER_REQUEST = 100
_IN_FLIGHT = 4
_TRIES = 20
_HEADS_PER_CALL = 1_000
_ACCEPTED, _DUPLICATE, _DEFERRED = (
    metering.PackageResult.OUTCOME_ACCEPTED,
    metering.PackageResult.OUTCOME_DUPLICATE,
    metering.PackageResult.OUTCOME_DEFERRED,
)
"""The same numbers in parking."""


class Chained(Protocol):
    """A device whose chain of packages can be taken up again."""

    id: str
    sequence: int
    previous: bytes

    def resume(self, sequence: int, previous: bytes) -> None: ...


@dataclass(frozen=True)
class Ramp:
    """A service that takes packages."""

    stub: Any
    messages: Any


METERING = Ramp(MeteringServiceStub, metering)
PARKING = Ramp(ParkingServiceStub, parking)


@dataclass
class Counts:
    """What the city said of this run's packages."""

    packages: int = 0
    readings: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0

    def add(self, result: Any) -> None:
        if result.outcome == _ACCEPTED:
            self.packages += 1
            self.readings += getattr(result, "accepted_readings", 0)
            self.quarantined += getattr(result, "quarantined_readings", 0)
        else:
            self.rejected[result.reason or ("duplicate" if result.outcome == _DUPLICATE else "deferred")] += 1


class Uplink:
    """The way to one service."""

    def __init__(self, ramp: Ramp, counts: Counts) -> None:
        self._ramp = ramp
        self.counts = counts

    async def resume(self, channel: grpc.aio.Channel, devices: Sequence[Chained]) -> None:
        """Takes each device's chain up where the service holds it."""
        service = self._ramp.stub(channel)
        heads: dict[str, Any] = {}
        names = [device.id for device in devices]
        for start in range(0, len(names), _HEADS_PER_CALL):
            request = self._ramp.messages.ListChainHeadsRequest(devices=names[start : start + _HEADS_PER_CALL])
            answer = await service.ListChainHeads(request)
            heads.update((head.device, head) for head in answer.heads)
        for device in devices:
            _resume(device, heads.get(device.id))

    async def send(self, channel: grpc.aio.Channel, packages: Iterator[bytes]) -> None:
        """Streams packages; what is deferred is sent again, a bounded number of times."""
        waiting = packages
        for _ in range(_TRIES):
            deferred, pause_s = await self._stream(channel, waiting)
            if not deferred:
                return
            await asyncio.sleep(pause_s)
            waiting = iter(deferred)
        self.counts.rejected["deferred"] += len(list(waiting))

    async def _stream(self, channel: grpc.aio.Channel, packages: Iterator[bytes]) -> tuple[list[bytes], float]:
        room = asyncio.Semaphore(_IN_FLIGHT)
        sent: list[list[bytes]] = []

        async def requests() -> AsyncIterator[Any]:
            for batch in _batches(packages):
                await room.acquire()
                sent.append(batch)
                yield self._ramp.messages.IngestRequest(packages=batch)

        deferred: list[bytes] = []
        pause_ms = 0
        async for answer in self._ramp.stub(channel).Ingest(requests()):
            room.release()
            for package, result in zip(sent.pop(0), answer.results, strict=True):
                if result.outcome == _DEFERRED and package not in deferred[-1:]:
                    deferred.append(package)
                    pause_ms = max(pause_ms, result.retry_after_ms)
                else:
                    self.counts.add(result)
        return deferred, max(pause_ms, 50) / 1_000


def _resume(device: Chained, head: Any) -> None:
    if head is None:
        device.resume(0, b"")
    elif head.sequence != device.sequence or head.hash != device.previous:
        device.resume(head.sequence, head.hash)


def _batches(packages: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for package in packages:
        batch.append(package)
        if len(batch) == _PACKAGES_PER_REQUEST:
            yield batch
            batch = []
    if batch:
        yield batch
