"""Plays the neighbourhood and its car parks against the city: registers nothing, only sends. Backfill at full speed, then live on the
city's clock. Also serves the demo's control (faults, map) as the service `simulation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import grpc.aio

from city.simulation.v1.simulation_service_pb2_grpc import add_SimulationServiceServicer_to_server
from citykit.clock import ReplayClock
from citykit.service import Context, Service, Servicer
from simulation.archives import Report
from simulation.calendar import SLOT_S
from simulation.car_parks import CarParks
from simulation.control import Control
from simulation.faults import Faults
from simulation.neighbourhood import Neighbourhood
from simulation.uplink import METERING, PARKING, Counts, Uplink

Channels = Callable[[str], grpc.aio.Channel]
"""The way to a service, without a token: devices have none."""
_DAY_S = 48 * SLOT_S
_LAG_S = 1
"""City seconds after a slot's end at which its packages are sent."""
_RETRY_S = 1.0


class Driver:
    """The devices of a neighbourhood and of its car parks, and what became of their packages."""

    def __init__(
        self, neighbourhood: Neighbourhood, car_parks: CarParks, clock: ReplayClock, faults: Sequence[str] = ()
    ) -> None:
        self._neighbourhood = neighbourhood
        self._car_parks = car_parks
        self._clock = clock
        self._meters = [neighbourhood.device(meter) for meter in neighbourhood.meters]
        self._sensors = car_parks.sensors()
        self.faults = Faults([device.id for device in self._meters], faults, car_parks.targets())
        self.counts = Counts()
        self.parking_counts = Counts()
        self._metering = Uplink(METERING, self.counts)
        self._parking = Uplink(PARKING, self.parking_counts)
        self.phase = "backfill"

    def build(self, ctx: Context) -> Service:
        """The demo's control as a service."""
        control = Control(self._neighbourhood, self._car_parks, self._clock, self.faults, lambda: self.phase)
        name = "city.simulation.v1.SimulationService"
        return Service(name=ctx.name, servicers=(Servicer(add_SimulationServiceServicer_to_server, control, name),))

    async def backfill(self, channels: Channels, start: float, end: float, report: Report) -> None:
        """Sends all that is due up to `end`, day by day; the clock goes along. Resumes from what the city holds."""
        await self._resume(channels)
        days = [*range(int(start) + _DAY_S, int(end), _DAY_S), int(end)]
        for number, until in enumerate(days):
            self._clock.advance_to(until)
            await self._send(channels, until, faulty=False)
            report("days of readings", number + 1, len(days))

    async def live(self, channels: Channels) -> None:
        """Sends what is due when each slot's end has come, until cancelled; lost answers are made good from the city's heads."""
        self.phase, lost = "live", False
        while True:
            until = int(self._clock.now()) // SLOT_S * SLOT_S
            try:
                if lost:
                    await self._resume(channels)
                lost = False
                await self._send(channels, until, faulty=True)
            except grpc.aio.AioRpcError:
                lost = True
                await asyncio.sleep(_RETRY_S)
                continue
            await self._clock.sleep_until(until + SLOT_S + _LAG_S)

    async def _resume(self, channels: Channels) -> None:
        await self._metering.resume(channels("metering"), self._meters)
        await self._parking.resume(channels("parking"), self._sensors)

    async def _send(self, channels: Channels, until: int, *, faulty: bool) -> None:
        await asyncio.gather(
            self._metering.send(channels("metering"), self._meter_packages(until, faulty=faulty)),
            self._parking.send(channels("parking"), self._sensor_packages(until, faulty=faulty)),
        )

    def _meter_packages(self, until: int, *, faulty: bool) -> Iterator[bytes]:
        for device in self._meters:
            for readings in device.due(until):
                if faulty:
                    yield from self.faults.packages(device, readings)
                else:
                    yield device.sign(readings)

    def _sensor_packages(self, until: int, *, faulty: bool) -> Iterator[bytes]:
        for sensor in self._sensors:
            for readings in sensor.due(until):
                if faulty:
                    yield from self.faults.sensor_packages(sensor, readings)
                else:
                    yield sensor.sign(readings)
