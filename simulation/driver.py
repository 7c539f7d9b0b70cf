"""Plays the neighbourhood against the city: registers nothing, only sends. Backfill at full speed, then live on the city's clock.

Also serves the demo's control (faults, map) as the service `simulation`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.simulation.v1.simulation_service_pb2_grpc import add_SimulationServiceServicer_to_server
from citykit.clock import ReplayClock
from citykit.service import Context, Service, Servicer
from simulation.archives import Report
from simulation.calendar import SLOT_S
from simulation.control import Control
from simulation.device import Device
from simulation.faults import Faults
from simulation.neighbourhood import Neighbourhood

_PACKAGES_PER_REQUEST = 100
_IN_FLIGHT = 4
_TRIES = 20
_HEADS_PER_CALL = 1_000
_DAY_S = 48 * SLOT_S
_LAG_S = 1
"""City seconds after a slot's end at which its package is sent."""

_ACCEPTED = metering.PackageResult.OUTCOME_ACCEPTED
_DUPLICATE = metering.PackageResult.OUTCOME_DUPLICATE
_DEFERRED = metering.PackageResult.OUTCOME_DEFERRED


@dataclass
class Counts:
    """What the city said of this run's packages."""

    packages: int = 0
    readings: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0

    def add(self, result: metering.PackageResult) -> None:
        if result.outcome == _ACCEPTED:
            self.packages += 1
            self.readings += result.accepted_readings
            self.quarantined += result.quarantined_readings
        else:
            self.rejected[result.reason or ("duplicate" if result.outcome == _DUPLICATE else "deferred")] += 1


class Driver:
    """The devices of a neighbourhood, and what became of their packages."""

    def __init__(self, neighbourhood: Neighbourhood, clock: ReplayClock, faults: Sequence[str] = ()) -> None:
        self._neighbourhood = neighbourhood
        self._clock = clock
        self._devices = [neighbourhood.device(meter) for meter in neighbourhood.meters]
        self.faults = Faults([device.id for device in self._devices], faults)
        self.counts = Counts()
        self.phase = "backfill"

    def build(self, ctx: Context) -> Service:
        """The demo's control as a service."""
        control = Control(self._neighbourhood, self._clock, self.faults, lambda: self.phase)
        name = "city.simulation.v1.SimulationService"
        return Service(name=ctx.name, servicers=(Servicer(add_SimulationServiceServicer_to_server, control, name),))

    async def backfill(self, channel: grpc.aio.Channel, start: float, end: float, report: Report) -> None:
        """Sends all that is due up to `end`, day by day; the clock goes along. Resumes from what the city holds."""
        await self._resume(channel)
        days = [*range(int(start) + _DAY_S, int(end), _DAY_S), int(end)]
        for number, until in enumerate(days):
            self._clock.advance_to(until)
            await self._send(channel, self._due(until, faulty=False))
            report("days of readings", number + 1, len(days))

    async def live(self, channel: grpc.aio.Channel) -> None:
        """Sends each slot's packages when its end has come, until cancelled; lost answers are made good from the city's heads."""
        self.phase = "live"
        while True:
            until = int(self._clock.now()) // SLOT_S * SLOT_S
            try:
                await self._send(channel, self._due(until, faulty=True))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(1.0)
                await self._resume(channel)
            await self._clock.sleep_until(until + SLOT_S + _LAG_S)

    def _due(self, until: int, *, faulty: bool) -> Iterator[bytes]:
        for device in self._devices:
            for readings in device.due(until):
                if faulty:
                    yield from self.faults.packages(device, readings)
                else:
                    yield device.sign(readings)

    async def _resume(self, channel: grpc.aio.Channel) -> None:
        service = MeteringServiceStub(channel)
        heads: dict[str, Any] = {}
        names = [device.id for device in self._devices]
        for start in range(0, len(names), _HEADS_PER_CALL):
            request = metering.ListChainHeadsRequest(devices=names[start : start + _HEADS_PER_CALL])
            answer = await service.ListChainHeads(request)
            heads.update((head.device, head) for head in answer.heads)
        for device in self._devices:
            _resume_device(device, heads.get(device.id))

    async def _send(self, channel: grpc.aio.Channel, packages: Iterator[bytes]) -> None:
        """Streams packages, a bounded number of requests unanswered; what is deferred is sent again, a bounded number of times."""
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

        async def requests() -> AsyncIterator[metering.IngestRequest]:
            for batch in _batches(packages):
                await room.acquire()
                sent.append(batch)
                yield metering.IngestRequest(packages=batch)

        deferred: list[bytes] = []
        pause_ms = 0
        async for answer in MeteringServiceStub(channel).Ingest(requests()):
            room.release()
            for package, result in zip(sent.pop(0), answer.results, strict=True):
                if result.outcome == _DEFERRED and package not in deferred[-1:]:
                    deferred.append(package)
                    pause_ms = max(pause_ms, result.retry_after_ms)
                else:
                    self.counts.add(result)
        return deferred, max(pause_ms, 50) / 1_000


def _resume_device(device: Device, head: Any) -> None:
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
