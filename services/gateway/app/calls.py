"""Calls to services, as the gateway itself or on behalf of a person. Used by every route.

Errors arrive as the city's own words (`citykit.errors`); `api.problems` turns them into HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from city.simulation.v1.simulation_service_pb2_grpc import SimulationServiceStub
from citykit.edge import city_error
from citykit.errors import CityError, NotFound, SettingsError
from citykit.service import Dial
from services.gateway.app.tokens import ExchangedTokens

DEADLINE_S = 30.0
LONG_DEADLINE_S = 300.0
"""For work over everything there is: a billing run, a check of all logs, an export."""

_STUBS: dict[str, Any] = {
    "forecasting": ForecastingServiceStub,
    "identity": IdentityServiceStub,
    "metering": MeteringServiceStub,
    "notary": NotaryServiceStub,
    "parking": ParkingServiceStub,
    "payments": PaymentsServiceStub,
    "simulation": SimulationServiceStub,
}
_OF_DEMOS = "simulation"
"""Runs in a demo only, so it may have no address."""


class Calls:
    """One stub per service, made at first use."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._stubs: dict[str, Any] = {}
        self._tokens = ExchangedTokens(self._exchange)

    async def ask(
        self, service: str, rpc: str, request: Message, token: str | None = None, *, timeout_s: float = DEADLINE_S
    ) -> Any:
        """One call and its answer. With `token`: in that person's name; without: in the gateway's.

        Raises:
            CityError: what the service said, in the city's words.
        """
        method = getattr(self._stub(service), rpc)
        metadata = await self._metadata(service, token)
        try:
            return await method(request, metadata=metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._translated(error, token) from None

    async def stream(
        self, service: str, rpc: str, request: Message, token: str | None = None, *, timeout_s: float = LONG_DEADLINE_S
    ) -> AsyncIterator[Any]:
        """The answers of a server stream. Raises as `ask` does."""
        method = getattr(self._stub(service), rpc)
        metadata = await self._metadata(service, token)
        try:
            async for answer in method(request, metadata=metadata, timeout=timeout_s):
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._translated(error, token) from None

    def _translated(self, error: grpc.aio.AioRpcError, token: str | None) -> CityError:
        if token and error.code() == grpc.StatusCode.UNAUTHENTICATED:
            self._tokens.forget(token)
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return _absent()
        return city_error(error)

    async def _metadata(self, service: str, token: str | None) -> tuple[tuple[str, str], ...]:
        if token is None:
            return ()
        return (("authorization", f"Bearer {await self._tokens.of_audience(token, service)}"),)

    async def _exchange(self, token: str, audience: str) -> tuple[str, int]:
        request = identity.ExchangeTokenRequest(subject_token=token, audience=audience)
        answer = await self.ask("identity", "ExchangeToken", request)
        return str(answer.access_token), int(answer.expires_in_s)

    def _stub(self, service: str) -> Any:
        if service not in self._stubs:
            self._stubs[service] = _STUBS[service](self._channel(service))
        return self._stubs[service]

    def _channel(self, service: str) -> grpc.aio.Channel:
        try:
            return self._dial(service)
        except SettingsError:
            if service == _OF_DEMOS:
                raise _absent() from None
            raise


def _absent() -> NotFound:
    return NotFound("this city does not run that service", reason="service-absent")
