"""The edge of parking: protobuf in, use case, protobuf out. Access rules stand in the proto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from city.parking.v1 import parking_service_pb2 as pb
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceServicer
from citykit.access import caller
from citykit.errors import InvalidArgument
from citykit.once import Once
from services.parking.app.access import Access, Keys
from services.parking.app.advising import Advising
from services.parking.app.books import Books
from services.parking.app.bundles import Bundles
from services.parking.app.calibration import Calibration
from services.parking.app.city_events import CityEvents
from services.parking.app.holds import Holds, Wanted
from services.parking.app.ingest import Ingest, result
from services.parking.app.listing import Listing
from services.parking.app.lots import Lots
from services.parking.app.publications import Publications
from services.parking.app.reservations import Reservations
from services.parking.app.tariffs import Permits, Tariffs
from services.parking.app.views import Views
from services.parking.app.words import in_city_words
from services.parking.domain.lots import Lot

R = TypeVar("R")
HEADS_MAX = 1_000


@dataclass(frozen=True)
class Parts:
    """The use cases behind the servicer."""

    lots: Lots
    tariffs: Tariffs
    permits: Permits
    holds: Holds
    reservations: Reservations
    views: Views
    keys: Keys
    access: Access
    bundles: Bundles
    books: Books
    ingest: Ingest
    listing: Listing
    advising: Advising
    city_events: CityEvents
    calibration: Calibration
    publications: Publications


class ParkingServer(ParkingServiceServicer):
    """One method per RPC of `city.parking.v1.ParkingService`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Ingest(
        self, request_iterator: AsyncIterator[pb.IngestRequest], context: Any
    ) -> AsyncIterator[pb.IngestResponse]:
        async for request in request_iterator:
            answers = await _whole(self._parts.ingest.handle(request.packages))
            yield pb.IngestResponse(results=map(result, answers))

    async def ListChainHeads(self, request: pb.ListChainHeadsRequest, context: Any) -> pb.ListChainHeadsResponse:
        if len(request.devices) > HEADS_MAX:
            raise InvalidArgument(f"name at most {HEADS_MAX} devices", field="devices")
        heads = await self._parts.ingest.heads(list(request.devices))
        return pb.ListChainHeadsResponse(heads=[pb.ChainHead(device=d, sequence=s, hash=h) for d, s, h in heads])

    async def ListLots(self, request: pb.ListLotsRequest, context: Any) -> pb.ListLotsResponse:
        return self._parts.listing.page(request.page_size, request.page_token)

    async def Advise(self, request: pb.AdviseRequest, context: Any) -> pb.AdviseResponse:
        return self._parts.advising.advise(request)

    async def GetCalibration(self, request: pb.GetCalibrationRequest, context: Any) -> pb.GetCalibrationResponse:
        return await self._parts.calibration.get()

    async def GetPublication(self, request: pb.GetPublicationRequest, context: Any) -> pb.GetPublicationResponse:
        return self._parts.publications.get(request.format)

    async def AddCityEvents(self, request: pb.AddCityEventsRequest, context: Any) -> pb.AddCityEventsResponse:
        once = Once.of(request, pb.AddCityEventsResponse)
        return await self._parts.city_events.add(once, request.events)

    async def RegisterLots(self, request: pb.RegisterLotsRequest, context: Any) -> pb.RegisterLotsResponse:
        return await self._parts.lots.register(
            Once.of(request, pb.RegisterLotsResponse), [lot_of(lot) for lot in request.lots]
        )

    async def PublishTariff(self, request: pb.PublishTariffRequest, context: Any) -> pb.PublishTariffResponse:
        once = Once.of(request, pb.PublishTariffResponse)
        return await self._parts.tariffs.publish(once, request.tariff_json)

    async def GrantPermit(self, request: pb.GrantPermitRequest, context: Any) -> pb.GrantPermitResponse:
        return await self._parts.permits.grant(Once.of(request, pb.GrantPermitResponse), request)

    async def GetBooks(self, request: pb.GetBooksRequest, context: Any) -> pb.GetBooksResponse:
        return await self._parts.books.get()

    async def Hold(self, request: pb.HoldRequest, context: Any) -> pb.HoldResponse:
        wanted = Wanted(request.lot, request.from_time.seconds, request.to_time.seconds, request.plate)
        self._parts.holds.refuse_full(request.request_id, wanted)
        once = Once.of(request, pb.HoldResponse)
        return await _whole(self._parts.holds.hold(once, caller().subject, wanted))

    async def Confirm(self, request: pb.ConfirmRequest, context: Any) -> pb.ConfirmResponse:
        once, who = Once.of(request, pb.ConfirmResponse), caller().subject
        found = await _whole(self._parts.reservations.confirm(once, who, request.reservation, request.mandate))
        return pb.ConfirmResponse(reservation=found)

    async def Extend(self, request: pb.ExtendRequest, context: Any) -> pb.ExtendResponse:
        once, who = Once.of(request, pb.ExtendResponse), caller().subject
        later = request.to_time.seconds
        found = await _whole(self._parts.reservations.extend(once, who, request.reservation, later))
        return pb.ExtendResponse(reservation=found)

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        once = Once.of(request, pb.CancelResponse)
        found = await _whole(self._parts.reservations.cancel(once, caller().subject, request.reservation))
        return pb.CancelResponse(reservation=found)

    async def RefundSession(self, request: pb.RefundSessionRequest, context: Any) -> pb.RefundSessionResponse:
        once = Once.of(request, pb.RefundSessionResponse)
        refund = self._parts.reservations.refund(once, request.reservation, request.amount_minor, request.reason)
        return await _whole(refund)

    async def IssueAccess(self, request: pb.IssueAccessRequest, context: Any) -> pb.IssueAccessResponse:
        once = Once.of(request, pb.IssueAccessResponse)
        return await _whole(self._parts.access.issue(once, caller().subject, request.reservation, request.act))

    async def Unlock(self, request: pb.UnlockRequest, context: Any) -> pb.UnlockResponse:
        once = Once.of(request, pb.UnlockResponse)
        return await _whole(self._parts.access.unlock(once, caller().subject, request.reservation, request.act))

    async def ListAccessKeys(self, request: pb.ListAccessKeysRequest, context: Any) -> pb.ListAccessKeysResponse:
        rows = self._parts.keys.rows
        keys = [pb.AccessKey(kid=row.kid, public_key=row.public_key, transaction=row.transaction) for row in rows]
        return pb.ListAccessKeysResponse(keys=keys)

    async def ListInstructions(self, request: pb.ListInstructionsRequest, context: Any) -> pb.ListInstructionsResponse:
        found = await self._parts.access.instructions(request.lock, request.after_sequence)
        return pb.ListInstructionsResponse(instructions=found)

    async def GetReservation(self, request: pb.GetReservationRequest, context: Any) -> pb.GetReservationResponse:
        found = await self._parts.views.get(request.reservation, caller().subject)
        return pb.GetReservationResponse(reservation=found)

    async def ListReservations(self, request: pb.ListReservationsRequest, context: Any) -> pb.ListReservationsResponse:
        found, token = await self._parts.views.page(caller().subject, request.page_size, request.page_token)
        return pb.ListReservationsResponse(reservations=found, next_page_token=token)

    async def GetSessionBundle(self, request: pb.GetSessionBundleRequest, context: Any) -> pb.GetSessionBundleResponse:
        bundle = await self._parts.bundles.session(request.reservation, caller().subject)
        return pb.GetSessionBundleResponse(bundle_json=bundle)


def lot_of(lot: pb.Lot) -> Lot:
    """The lot as it is asked for."""
    return Lot(
        id=lot.id,
        name=lot.name,
        operator=lot.operator,
        capacity=lot.capacity,
        latitude_e7=lot.latitude_e7,
        longitude_e7=lot.longitude_e7,
        open_minutes=tuple((hours.weekday, hours.from_minute, hours.to_minute) for hours in lot.open_hours),
        tariff=lot.tariff,
        bays=tuple(lot.bays),
        sensors=tuple(lot.sensors),
        lock=lot.lock,
        bay_sensors=tuple((item.device, item.bay) for item in lot.bay_sensors),
    )


async def _whole(use_case: Coroutine[Any, Any, R]) -> R:
    """Runs a use case to its end, also where the caller hangs up: what is stored and what is in memory stay one."""

    async def run() -> R:
        with in_city_words():
            return await use_case

    task = asyncio.ensure_future(run())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting for a refusal
    return await asyncio.shield(task)
