"""Erasure: destroys a resident's rows and salts when identity says so, and what forecasting learnt from; every log still verifies.

Consumes identity's topic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
import grpc.aio

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceStub
from citykit.bus.port import Record
from citykit.clock import Clock, unix
from citykit.erasure import erased_subject
from citykit.errors import Unavailable
from citykit.store.port import Store, Unit
from services.metering.app.meters import Meters
from services.metering.app.people import People
from services.metering.domain.slots import DAY_S, SLOT_S
from services.metering.store.contracts import contracts_of_subject
from services.metering.store.erasure import erase_appeals, erase_contract, erase_span

GROUP = "metering-erasure"
AUDIENCE = "metering"
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Erasure:
    """Consumer of `SubjectErased`."""

    store: Store
    people: People
    meters: Meters
    clock: Clock
    dial: Callable[[str], grpc.aio.Channel]

    async def handle(self, records: Sequence[Record]) -> None:
        """Each record once; the effect and its mark are one transaction."""
        for record in records:
            if subject := erased_subject(record, AUDIENCE):
                await self._forget(subject)
                for device in await self.store.write(partial(self._erase, record, subject)):
                    self.meters.forget(device)

    async def _forget(self, subject: str) -> None:
        """First, for nothing says afterwards whose series they were; forecasting forgets twice as well as once.

        Raises:
            Unavailable: forecasting is away; the bus brings the record again.
        """
        stub = ForecastingServiceStub(self.dial("forecasting"))
        for row in await self.store.read(lambda c: contracts_of_subject(c, subject)):
            span = self.people.span_of(row)
            end = min(span.to_time, unix(self.clock) // DAY_S * DAY_S + DAY_S)
            request = forecasting.ForgetRequest(
                request_id=f"erase-{row.id}-{end}", series=f"metering/{row.meter_point}"
            )
            request.from_time.seconds = span.from_time
            request.to_time.seconds = end
            try:
                await stub.Forget(request, timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                # a city without forecasting has nothing to forget
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise Unavailable("forecasting is away; the erasure waits for it", retry_after_s=2.0) from error

    def _erase(self, record: Record, subject: str, unit: Unit) -> list[str]:
        if not unit.first_time(record, GROUP):
            return []
        devices: list[str] = []
        for row in contracts_of_subject(unit.connection, subject):
            span = self.people.span_of(row)
            end = min(span.to_time, unix(self.clock) + SLOT_S)
            devices += erase_span(unit, row.meter_point, span.from_time, end)
            erase_contract(unit, row.id)
        erase_appeals(unit, subject)
        return devices
