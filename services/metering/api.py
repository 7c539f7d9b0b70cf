"""The edge of metering: protobuf in, use case, protobuf out. Access rules stand in the proto."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from city.metering.v1 import metering_service_pb2 as pb
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceServicer
from citykit.access import caller
from citykit.errors import InvalidArgument
from citykit.once import Once
from citykit.onramp.chain import Refusal
from services.metering.app.agreements import Agreements, contract_message
from services.metering.app.billing import Billing, bill_message
from services.metering.app.bills import Bills
from services.metering.app.bundles import Bundles
from services.metering.app.ingest import Answer, Ingest
from services.metering.app.paying import Paying
from services.metering.app.people import Span
from services.metering.app.quarantine import Quarantine, appeal_message
from services.metering.app.refusals import ROWS_MAX, Refusals
from services.metering.app.usage import Usage, page_limit
from services.metering.store.contracts import ContractRow
from services.metering.store.devices import MeterPointRow
from services.metering.store.packages import Accepted

R = TypeVar("R", bound=Message)
HEADS_MAX = 1_000
_Result = pb.PackageResult


@dataclass(frozen=True)
class Parts:
    """The use cases behind the servicer."""

    ingest: Ingest
    agreements: Agreements
    usage: Usage
    quarantine: Quarantine
    refusals: Refusals
    billing: Billing
    bills: Bills
    paying: Paying
    bundles: Bundles


class MeteringServer(MeteringServiceServicer):
    """One method per RPC of `city.metering.v1.MeteringService`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Ingest(
        self, request_iterator: AsyncIterator[pb.IngestRequest], context: Any
    ) -> AsyncIterator[pb.IngestResponse]:
        async for request in request_iterator:
            answers = await self._parts.ingest.handle(request.packages)
            yield pb.IngestResponse(results=map(result, answers))

    async def ListChainHeads(self, request: pb.ListChainHeadsRequest, context: Any) -> pb.ListChainHeadsResponse:
        if len(request.devices) > HEADS_MAX:
            raise InvalidArgument(f"name at most {HEADS_MAX} devices", field="devices")
        heads = await self._parts.ingest.heads(list(request.devices))
        return pb.ListChainHeadsResponse(heads=[pb.ChainHead(device=d, sequence=s, hash=h) for d, s, h in heads])

    async def RegisterMeterPoints(
        self, request: pb.RegisterMeterPointsRequest, context: Any
    ) -> pb.RegisterMeterPointsResponse:
        points = [MeterPointRow(p.id, p.device, p.max_slot_wh, p.zone) for p in request.meter_points]
        once = Once.of(request, pb.RegisterMeterPointsResponse)
        return await self._parts.agreements.register_meter_points(once, points)

    async def CreateContract(self, request: pb.CreateContractRequest, context: Any) -> pb.CreateContractResponse:
        c = request.contract
        row = ContractRow(c.id, c.meter_point, c.subject, c.tariff, c.from_date, c.to_date)
        return await self._parts.agreements.create_contract(Once.of(request, pb.CreateContractResponse), row)

    async def EndContract(self, request: pb.EndContractRequest, context: Any) -> pb.EndContractResponse:
        once = Once.of(request, pb.EndContractResponse)
        return await self._parts.agreements.end_contract(once, request.contract, request.to_date)

    async def ListMyContracts(self, request: pb.ListMyContractsRequest, context: Any) -> pb.ListMyContractsResponse:
        rows = await self._parts.agreements.my_contracts(caller().subject)
        return pb.ListMyContractsResponse(contracts=map(contract_message, rows))

    async def PublishTariff(self, request: pb.PublishTariffRequest, context: Any) -> pb.PublishTariffResponse:
        once = Once.of(request, pb.PublishTariffResponse)
        return await self._parts.agreements.publish_tariff(once, request.tariff_json)

    async def ListTariffs(self, request: pb.ListTariffsRequest, context: Any) -> pb.ListTariffsResponse:
        return pb.ListTariffsResponse(
            tariffs_json=[row.document.decode() for row in await self._parts.agreements.tariffs()]
        )

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        rows = await self._parts.usage.usage(
            caller(), request.meter_point, _span(request), request.resolution or "slot", request.purpose
        )
        points = [pb.UsagePoint(time=r.time, energy_wh=r.energy_wh, quality=r.quality, reason=r.reason) for r in rows]
        return pb.GetUsageResponse(points=points, total_wh=sum(row.energy_wh for row in rows))

    async def GetCityLoad(self, request: pb.GetCityLoadRequest, context: Any) -> pb.GetCityLoadResponse:
        rows = await self._parts.usage.city_load(request.slots)
        points = [pb.CityLoadPoint(time=row.time, energy_wh=row.energy_wh, meters=row.meters) for row in rows]
        return pb.GetCityLoadResponse(points=points)

    async def ListMeterStates(self, request: pb.ListMeterStatesRequest, context: Any) -> pb.ListMeterStatesResponse:
        rows, token = await self._parts.usage.meter_states(request.page_size, request.page_token)
        states = [
            pb.MeterState(
                meter_point=row.meter_point,
                device=row.device,
                last_slot=row.last_slot,
                last_wh=row.last_wh,
                quarantined_reason=row.quarantined_reason,
                gaps=row.gaps,
            )
            for row in rows
        ]
        return pb.ListMeterStatesResponse(states=states, next_page_token=token)

    async def ListQuarantine(self, request: pb.ListQuarantineRequest, context: Any) -> pb.ListQuarantineResponse:
        rows, token = await self._parts.quarantine.entries(request.page_size, request.page_token)
        entries = [
            pb.QuarantineEntry(
                device=row.device,
                meter_point=row.meter_point,
                reason=row.reason,
                explanation=row.explanation,
                since=Timestamp(seconds=row.since),
                readings=row.readings,
                open=row.open,
            )
            for row in rows
        ]
        return pb.ListQuarantineResponse(entries=entries, next_page_token=token)

    async def ReleaseDevice(self, request: pb.ReleaseDeviceRequest, context: Any) -> pb.ReleaseDeviceResponse:
        once = Once.of(request, pb.ReleaseDeviceResponse)
        return await self._parts.quarantine.release(once, request.device, request.decision)

    async def ListRefusals(self, request: pb.ListRefusalsRequest, context: Any) -> pb.ListRefusalsResponse:
        rows = await self._parts.refusals.newest(page_limit(request.page_size, ROWS_MAX))
        entries = [
            pb.RefusalEntry(
                reason=row.reason,
                device=row.device,
                count=row.count,
                last_at=Timestamp(seconds=row.last_at),
                message=row.message,
            )
            for row in rows
        ]
        return pb.ListRefusalsResponse(entries=entries)

    async def CreateAppeal(self, request: pb.CreateAppealRequest, context: Any) -> pb.CreateAppealResponse:
        once = Once.of(request, pb.CreateAppealResponse)
        return await self._parts.quarantine.appeal(
            caller(), once, request.meter_point, _span(request), request.statement
        )

    async def ListAppeals(self, request: pb.ListAppealsRequest, context: Any) -> pb.ListAppealsResponse:
        rows, token = await self._parts.quarantine.appeals(caller(), request.page_size, request.page_token)
        return pb.ListAppealsResponse(appeals=map(appeal_message, rows), next_page_token=token)

    async def DecideAppeal(self, request: pb.DecideAppealRequest, context: Any) -> pb.DecideAppealResponse:
        once = Once.of(request, pb.DecideAppealResponse)
        return await self._parts.quarantine.decide(once, request.appeal, granted=request.granted, reason=request.reason)

    async def RunBilling(self, request: pb.RunBillingRequest, context: Any) -> pb.RunBillingResponse:
        once = Once.of(request, pb.RunBillingResponse)
        return await self._parts.billing.run(once, request.from_date, request.to_date)

    async def ListBills(self, request: pb.ListBillsRequest, context: Any) -> pb.ListBillsResponse:
        rows, token = await self._parts.bills.page(caller(), request.page_size, request.page_token)
        return pb.ListBillsResponse(bills=[bill_message(*row) for row in rows], next_page_token=token)

    async def GetBill(self, request: pb.GetBillRequest, context: Any) -> pb.GetBillResponse:
        return pb.GetBillResponse(
            bill=bill_message(*await self._parts.bills.get(caller(), request.bill, request.purpose))
        )

    async def GetBillDue(self, request: pb.GetBillDueRequest, context: Any) -> pb.GetBillDueResponse:
        return await self._parts.paying.due(request.bill)

    async def CorrectBill(self, request: pb.CorrectBillRequest, context: Any) -> pb.CorrectBillResponse:
        once = Once.of(request, pb.CorrectBillResponse)
        return await self._parts.billing.correct(once, request.bill, request.reason)

    async def GetBillBundle(self, request: pb.GetBillBundleRequest, context: Any) -> pb.GetBillBundleResponse:
        bundle = await self._parts.bundles.bill(caller(), request.bill, request.purpose)
        return pb.GetBillBundleResponse(bundle_json=bundle)

    async def GetReadingsBundle(
        self, request: pb.GetReadingsBundleRequest, context: Any
    ) -> pb.GetReadingsBundleResponse:
        bundle = await self._parts.bundles.readings(caller(), request.meter_point, _span(request))
        return pb.GetReadingsBundleResponse(bundle_json=bundle)

    async def DownloadGreenButton(
        self, request: pb.DownloadGreenButtonRequest, context: Any
    ) -> AsyncIterator[pb.DownloadGreenButtonResponse]:
        async for chunk in self._parts.usage.green_button(caller(), request.meter_point, _span(request)):
            yield pb.DownloadGreenButtonResponse(chunk=chunk)


def result(answer: Answer) -> pb.PackageResult:
    """One package's answer on the wire."""
    if isinstance(answer, Accepted):
        held = sum(map(bool, answer.held))
        return _accepted(len(answer.held) - held, held)
    if isinstance(answer, Refusal):
        outcome = _Result.OUTCOME_DEFERRED if answer.retry_after_ms else _Result.OUTCOME_REJECTED
        return _Result(
            outcome=outcome, reason=answer.reason, message=answer.message, retry_after_ms=answer.retry_after_ms
        )
    return _Result(outcome=_Result.OUTCOME_DUPLICATE, reason="duplicate", message="accepted before; nothing changed")


def _accepted(counted: int, held: int) -> pb.PackageResult:
    message = f"{held} readings are set aside; ListQuarantine says why" if held else ""
    return _Result(
        outcome=_Result.OUTCOME_ACCEPTED, accepted_readings=counted, quarantined_readings=held, message=message
    )


def _span(request: Any) -> Span:
    return Span(request.from_time.seconds, request.to_time.seconds)
