"""`city.operations.v1` and `grpc.health.v1` of a process. Added to its server by `citykit.run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from city.operations.v1 import operations_service_pb2 as pb
from city.operations.v1.operations_service_pb2_grpc import (
    OperationsServiceServicer,
    add_OperationsServiceServicer_to_server,
)
from citykit.errors import NotFound
from citykit.operations.invariants import Board, State
from citykit.service import Service, Servicer

FULL_NAME = "city.operations.v1.OperationsService"


class OperationsServer(OperationsServiceServicer):
    """Of the services of one process."""

    def __init__(self, board: Board, services: Mapping[str, Service]) -> None:
        self._board = board
        self._services = services

    async def ListInvariants(self, request: pb.ListInvariantsRequest, context: Any) -> pb.ListInvariantsResponse:
        if request.service:
            self._known(request.service)
        since = request.not_before.seconds + request.not_before.nanos / 1e9
        states = [state for state in await self._board.states(since) if request.service in ("", state.service)]
        return pb.ListInvariantsResponse(invariants=map(_message, states))

    async def GetFreeze(self, request: pb.GetFreezeRequest, context: Any) -> pb.GetFreezeResponse:
        service = self._known(request.service)
        found = await service.freeze() if service.freeze is not None else None
        if found is None:
            return pb.GetFreezeResponse()
        until = None if found.until is None else _timestamp(found.until)
        return pb.GetFreezeResponse(reason=found.reason, until=until)

    def _known(self, name: str) -> Service:
        if name not in self._services:
            raise NotFound(f"no service {name!r} in this process; it runs {', '.join(self._services)}", field="service")
        return self._services[name]


def operations_servicer(board: Board, services: Mapping[str, Service]) -> Servicer:
    server: Any = OperationsServer(board, services)
    return Servicer(add_OperationsServiceServicer_to_server, server, FULL_NAME)


class GrpcHealth:
    """The health protocol of gRPC: one answer for the process, under the empty name and under each service's.

    https://github.com/grpc/grpc/blob/master/doc/health-checking.md
    """

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # set at its import
        self._names: list[str] = [""]

    def add_to(self, server: grpc.aio.Server, names: list[str]) -> None:
        """Anybody may ask; it tells nothing but whether calls are served."""
        self._names = ["", *names]
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def say(self, *, ready: bool) -> None:
        """What is answered from now on, also to those who watch."""
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)


def _message(state: State) -> pb.Invariant:
    return pb.Invariant(
        service=state.service,
        name=state.name,
        holds=state.holds,
        since=_timestamp(state.since),
        checked_at=_timestamp(state.checked_at),
        evidence=state.evidence,
    )


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
