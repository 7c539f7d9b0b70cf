"""Routes of people about themselves: record, contracts, usage, bills and their proofs, appeals, consents, erasure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse

from city.identity.v1 import identity_service_pb2 as identity
from city.metering.v1 import metering_service_pb2 as metering
from services.gateway.api import bodies, models
from services.gateway.api.checks import checked
from services.gateway.api.documents import described, document
from services.gateway.api.parameters import (
    AppealId,
    BillId,
    ConsentId,
    Here,
    MeterPointId,
    Paging,
    Purpose,
    RequestId,
    TimeRange,
    Token,
    timestamp,
)
from services.gateway.app.calls import LONG_DEADLINE_S

router = APIRouter(prefix="/api/v1", tags=["resident"])
_JSON = described("application/json")
_XML: dict[int | str, dict[str, Any]] = {200: {"content": {"application/xml": {"schema": {"type": "string"}}}}}


def person_view(person: identity.Person) -> models.Person:
    """A person with roles as words."""
    return models.view(models.Person, person, roles=[role_word(role) for role in person.roles])


def role_word(role: int) -> str:
    """`resident` for ROLE_RESIDENT."""
    names = identity.Person.DESCRIPTOR.fields_by_name["roles"].enum_type.values_by_number
    return str(names[role].name).removeprefix("ROLE_").lower() if role in names else str(role)


@router.get("/me", tags=["contractor"])
async def get_me(here: Here, token: Token) -> models.Person:
    """The caller's own record."""
    return person_view((await here.calls.ask("identity", "GetPerson", identity.GetPersonRequest(), token)).person)


@router.get("/me/contracts")
async def list_my_contracts(here: Here, token: Token) -> models.Contracts:
    """The caller's electricity contracts, ended ones included."""
    answer = await here.calls.ask("metering", "ListMyContracts", metering.ListMyContractsRequest(), token)
    return models.view(models.Contracts, answer)


@router.get("/me/consents")
async def list_consents(here: Here, token: Token, page: Paging) -> models.Consents:
    """What the caller agreed to, withdrawn consents included, with receipts."""
    request = identity.ListConsentsRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Consents, await here.calls.ask("identity", "ListConsents", request, token))


@router.post("/me/consents", status_code=201)
async def record_consent(here: Here, token: Token, request_id: RequestId, new: bodies.NewConsent) -> models.Consent:
    """Agrees to one use of the caller's data by one recipient; gives a receipt."""
    request = identity.RecordConsentRequest(request_id=request_id, purpose=new.purpose, recipient=new.recipient)
    return models.view(models.Consent, (await here.calls.ask("identity", "RecordConsent", request, token)).consent)


@router.post("/me/consents/{consent}/withdrawal")
async def withdraw_consent(here: Here, token: Token, request_id: RequestId, consent: ConsentId) -> models.Consent:
    """Withdraws a consent; it stays in the list with the time of its end."""
    request = identity.WithdrawConsentRequest(request_id=request_id, consent=consent)
    return models.view(models.Consent, (await here.calls.ask("identity", "WithdrawConsent", request, token)).consent)


@router.get("/me/accesses")
async def list_accesses(here: Here, token: Token, page: Paging) -> models.Accesses:
    """Who looked at the caller's data, when and why."""
    request = identity.ListAccessesRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Accesses, await here.calls.ask("identity", "ListAccesses", request, token))


@router.get("/me/export", tags=["contractor"], response_class=Response, responses=_JSON)
async def export_my_data(request: Request, here: Here, token: Token) -> Response:
    """Everything identity holds about the caller, one JSON document (GDPR, article 20)."""
    answer = await here.calls.ask(
        "identity", "ExportMyData", identity.ExportMyDataRequest(), token, timeout_s=LONG_DEADLINE_S
    )
    return document(request, answer.json.encode(), "application/json", filename="my-data.json")


@router.post("/me/erasure", tags=["contractor"])
async def erase_me(here: Here, token: Token, request_id: RequestId, erasure: bodies.Erasure) -> models.Erased:
    """Destroys the caller's rows and salts everywhere; every log still verifies (GDPR, article 17). Cannot be undone."""
    request = identity.EraseMeRequest(request_id=request_id, confirm_login=erasure.confirm_login)
    answer = await here.calls.ask("identity", "EraseMe", request, token, timeout_s=LONG_DEADLINE_S)
    return models.Erased(receipt=json.loads(answer.receipt_json))


@router.get("/meter-points/{meter_point}/usage", tags=["staff"])
async def get_usage(
    here: Here,
    token: Token,
    meter_point: MeterPointId,
    span: TimeRange,
    resolution: Annotated[Literal["slot", "hour", "day"], Query(description="`day` is the city's local day.")] = "hour",
    purpose: Purpose = "",
) -> models.Usage:
    """Energy by slot, hour or day. A resident's own; staff name a purpose, which the resident sees."""
    request = metering.GetUsageRequest(
        meter_point=meter_point, from_time=span.from_time, to_time=span.to_time, resolution=resolution, purpose=purpose
    )
    return models.view(models.Usage, await here.calls.ask("metering", "GetUsage", request, token))


@router.get("/meter-points/{meter_point}/readings-bundle", response_class=Response, responses=_JSON)
async def get_readings_bundle(
    request: Request, here: Here, token: Token, meter_point: MeterPointId, span: TimeRange
) -> Response:
    """The signed packages of a time range with their proofs: one file for `python -m verifier`."""
    asked = metering.GetReadingsBundleRequest(meter_point=meter_point, from_time=span.from_time, to_time=span.to_time)
    answer = await here.calls.ask("metering", "GetReadingsBundle", asked, token, timeout_s=LONG_DEADLINE_S)
    return document(request, answer.bundle_json, "application/json", filename=f"readings-{meter_point}.json")


@router.get("/meter-points/{meter_point}/green-button", response_class=StreamingResponse, responses=_XML)
async def download_green_button(
    here: Here, token: Token, meter_point: MeterPointId, span: TimeRange
) -> StreamingResponse:
    """Usage as Green Button (ESPI, NAESB REQ.21) XML."""
    asked = metering.DownloadGreenButtonRequest(meter_point=meter_point, from_time=span.from_time, to_time=span.to_time)
    chunks = here.calls.stream("metering", "DownloadGreenButton", asked, token)
    first = await anext(chunks, None)
    headers = {"Content-Disposition": f'attachment; filename="green-button-{meter_point}.xml"'}
    return StreamingResponse(_contents(first, chunks), media_type="application/xml", headers=headers)


async def _contents(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """The first answer was awaited before the status was sent, so that an error is still a problem."""
    if first is not None:
        yield first.chunk
    async for answer in rest:
        yield answer.chunk


@router.get("/bills", tags=["staff"])
async def list_bills(here: Here, token: Token, page: Paging) -> models.Bills:
    """A resident's own bills, newest first; billing staff see all."""
    request = metering.ListBillsRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Bills, await here.calls.ask("metering", "ListBills", request, token))


@router.get("/bills/{bill}", tags=["staff"])
async def get_bill(here: Here, token: Token, bill: BillId, purpose: Purpose = "") -> models.Bill:
    """One bill in short; `/document` has its lines."""
    return models.view(models.Bill, await _bill(here, token, bill, purpose))


@router.get("/bills/{bill}/document", tags=["staff"], response_class=Response, responses=_JSON)
async def get_bill_document(
    request: Request, here: Here, token: Token, bill: BillId, purpose: Purpose = ""
) -> Response:
    """The bill itself, canonical JSON: the very bytes the proof is about (docs/PROOFS.md, Bill)."""
    found = await _bill(here, token, bill, purpose)
    return document(request, found.document_json.encode(), "application/json")


@router.get("/bills/{bill}/bundle", tags=["staff"], response_class=Response, responses=_JSON)
async def get_bill_bundle(request: Request, here: Here, token: Token, bill: BillId, purpose: Purpose = "") -> Response:
    """The proof of a bill, one file: `python -m verifier bundle.json --trust trust.json` checks it on any machine."""
    content = await _bundle(here, token, bill, purpose)
    return document(request, content, "application/json", filename=f"{bill}.bundle.json")


@router.post("/bills/{bill}/check", tags=["staff"])
async def check_bill(here: Here, token: Token, bill: BillId, purpose: Purpose = "") -> models.Check:
    """Runs the verifier over a bill's bundle at the server: a demonstration, since the server under check runs it."""
    return await checked(here, await _bundle(here, token, bill, purpose))


@router.get("/appeals", tags=["staff"])
async def list_appeals(here: Here, token: Token, page: Paging) -> models.Appeals:
    """A resident's own appeals; an operator sees all."""
    request = metering.ListAppealsRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Appeals, await here.calls.ask("metering", "ListAppeals", request, token))


@router.post("/appeals", status_code=201)
async def create_appeal(
    here: Here, token: Token, request_id: RequestId, new: Annotated[bodies.NewAppeal, Body()]
) -> models.Appeal:
    """Says that readings were set aside wrongly; an operator decides with reasons."""
    request = metering.CreateAppealRequest(
        request_id=request_id,
        meter_point=new.meter_point,
        from_time=timestamp(new.from_time, "body.from_time"),
        to_time=timestamp(new.to_time, "body.to_time"),
        statement=new.statement,
    )
    return models.view(models.Appeal, (await here.calls.ask("metering", "CreateAppeal", request, token)).appeal)


@router.post("/appeals/{appeal}/decision", tags=["staff"])
async def decide_appeal(
    here: Here, token: Token, request_id: RequestId, appeal: AppealId, decision: bodies.Decision
) -> models.Appeal:
    """An operator grants or refuses an appeal."""
    request = metering.DecideAppealRequest(
        request_id=request_id, appeal=appeal, granted=decision.granted, reason=decision.reason
    )
    return models.view(models.Appeal, (await here.calls.ask("metering", "DecideAppeal", request, token)).appeal)


async def _bill(here: Here, token: str, bill: str, purpose: str) -> metering.Bill:
    answer = await here.calls.ask("metering", "GetBill", metering.GetBillRequest(bill=bill, purpose=purpose), token)
    bill_found: metering.Bill = answer.bill
    return bill_found


async def _bundle(here: Here, token: str, bill: str, purpose: str) -> bytes:
    request = metering.GetBillBundleRequest(bill=bill, purpose=purpose)
    answer = await here.calls.ask("metering", "GetBillBundle", request, token, timeout_s=LONG_DEADLINE_S)
    return bytes(answer.bundle_json)
