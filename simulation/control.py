"""The demo's control over gRPC: the map, the replay's progress, faults to switch on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from city.simulation.v1 import simulation_service_pb2 as pb
from city.simulation.v1.simulation_service_pb2_grpc import SimulationServiceServicer
from citykit.clock import ReplayClock
from citykit.errors import InvalidArgument
from simulation.car_parks import CarParks
from simulation.faults import FAULTS, Faults
from simulation.neighbourhood import Neighbourhood


class Control(SimulationServiceServicer):
    """The servicer."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        car_parks: CarParks,
        clock: ReplayClock,
        faults: Faults,
        phase: Callable[[], str],
    ) -> None:
        self._neighbourhood = neighbourhood
        self._car_parks = car_parks
        self._clock = clock
        self._faults = faults
        self._phase = phase

    async def GetNeighbourhood(self, request: pb.GetNeighbourhoodRequest, context: Any) -> pb.GetNeighbourhoodResponse:
        meters = [
            pb.Meter(device=m.device_id, meter_point=m.meter_point, label=m.label, kind=m.kind, x=m.x, y=m.y)
            for m in self._neighbourhood.meters
        ]
        sources = [
            pb.Attribution(name=s.name, licence=s.licence, text=s.text, shifted_weeks=s.shifted_weeks)
            for s in [*self._neighbourhood.sources, *self._car_parks.sources(self._clock.now())]
        ]
        lots = [pb.CarPark(lot=lot.id, label=lot.label, kind=lot.kind) for lot in self._car_parks.lots]
        return pb.GetNeighbourhoodResponse(
            meters=meters,
            car_parks=lots,
            attributions=sources,
            time_zone=str(self._neighbourhood.zone),
            synthetic=self._neighbourhood.synthetic,
        )

    async def GetReplay(self, request: pb.GetReplayRequest, context: Any) -> pb.GetReplayResponse:
        answer = pb.GetReplayResponse(
            speed=round(self._clock.speed),
            faults=self._faults.active,
            faults_available=FAULTS,
            faulted_devices=self._faults.acting(),
            phase=self._phase(),
        )
        answer.city_time.seconds = int(self._clock.now())
        return answer

    async def SetFaults(self, request: pb.SetFaultsRequest, context: Any) -> pb.SetFaultsResponse:
        unknown = [name for name in request.faults if name not in FAULTS]
        if unknown:
            raise InvalidArgument(f"unknown fault {unknown[0]!r}; the faults are {', '.join(FAULTS)}", field="faults")
        self._faults.switch(list(request.faults))
        return pb.SetFaultsResponse(faults=self._faults.active)
