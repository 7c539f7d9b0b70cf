"""The locks at the reservable bays of the demo: they open for documents offline, fetch instructions, and send what they did. Run by the demo."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from city.parking.v1 import parking_service_pb2 as parking
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from citykit.clock import Clock, unix
from simulation.car_parks import CarParks
from simulation.device import device_signer
from simulation.faults import LOCK_OFFLINE, Faults
from simulation.lock import Lock, Opened, Refused

Side = Callable[[str], Awaitable[str]]
"""On which side of a lot's lock the car stands that an instruction is for: `entry` or `exit`."""
_EVERY_S = 0.3
_LEARN_EVERY = 200
"""Rounds between two looks at the key list."""
_DEFERRED = parking.PackageResult.OUTCOME_DEFERRED
_TAKEN = (parking.PackageResult.OUTCOME_ACCEPTED, parking.PackageResult.OUTCOME_DUPLICATE)


class Barriers:
    """All of them.

    Args:
        folder: where each lock keeps its memory.
        side: asked for an instruction; a document says it by itself.
        lifetime_s: how long an instruction is good, as the city says it.
    """

    def __init__(
        self, car_parks: CarParks, clock: Clock, faults: Faults, folder: Path, side: Side, lifetime_s: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._faults = faults
        self._side = side
        self._lots = {lot.lock: lot.id for lot in car_parks.reservable}
        self._locks = {
            name: Lock(
                name, device_signer(car_parks.seed, name, "ES256"), {}, folder / f"{name}.json", lifetime_s=lifetime_s
            )
            for name in self._lots
        }
        self._rounds = 0
        self.did: Counter[str] = Counter()

    async def show(self, lock: str, document: str) -> bool:
        """Holds an access document to a lock, which needs nobody to decide; True if it opened."""
        return self._noted(self._locks[lock].decide(document, unix(self._clock)))

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Rounds over the locks that are online, until cancelled."""
        service = ParkingServiceStub(channel)
        while True:
            try:
                await self.round(service)
            except grpc.aio.AioRpcError as error:
                self.did[f"city away: {error.code().name.lower()}"] += 1
            await asyncio.sleep(_EVERY_S)

    async def round(self, service: Any) -> None:
        """Once over all of them."""
        if self._rounds % _LEARN_EVERY == 0:
            answer = await service.ListAccessKeys(parking.ListAccessKeysRequest())
            for lock in self._locks.values():
                lock.learn({key.kid: key.public_key for key in answer.keys})
            if not answer.keys:
                return
        self._rounds += 1
        online = [lock for lock in self._locks.values() if not self._faults.on(LOCK_OFFLINE, lock.id)]
        for lock in online:
            await self._fetch(service, lock)
        await self._send(service, [lock for lock in online if lock.waiting()])

    async def _fetch(self, service: Any, lock: Lock) -> None:
        request = parking.ListInstructionsRequest(lock=lock.id, after_sequence=lock.last_instruction)
        for instruction in (await service.ListInstructions(request)).instructions:
            act = await self._side(self._lots[lock.id])
            self._noted(lock.obey(instruction, unix(self._clock), act))

    async def _send(self, service: Any, locks: Sequence[Lock]) -> None:
        for lock in locks:
            packages = lock.waiting()

            async def requests(found: Sequence[bytes] = packages) -> AsyncIterator[parking.IngestRequest]:
                yield parking.IngestRequest(packages=found)

            async for answer in service.Ingest(requests()):
                lock.sent(self._acknowledged(answer.results))

    def _acknowledged(self, results: Sequence[parking.PackageResult]) -> int:
        """How many of the first are dealt with; the rest is sent again."""
        for number, result in enumerate(results):
            if result.outcome == _DEFERRED:
                return number
            if result.outcome not in _TAKEN:
                self.did[f"package refused: {result.reason}"] += 1
        return len(results)

    def _noted(self, decision: Opened | Refused) -> bool:
        self.did[decision.act if isinstance(decision, Opened) else f"refused: {decision.reason}"] += 1
        return decision.opens
