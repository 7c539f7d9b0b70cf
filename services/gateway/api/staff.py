"""Routes of staff: the control room, billing and the registry. Which role may do what stands in the protos."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.simulation.v1 import simulation_service_pb2 as simulation
from services.gateway.api import bodies, models
from services.gateway.api.parameters import (
    BillId,
    ContractId,
    DeviceId,
    Here,
    Paging,
    PersonId,
    Purpose,
    RequestId,
    Token,
    timestamp,
)
from services.gateway.api.resident import person_view
from services.gateway.app.calls import LONG_DEADLINE_S

router = APIRouter(prefix="/api/v1", tags=["staff"])


@router.get("/quarantine")
async def list_quarantine(here: Here, token: Token, page: Paging) -> models.Quarantine:
    """Devices whose readings are set aside, each with the reason and the numbers that led to it."""
    request = metering.ListQuarantineRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Quarantine, await here.calls.ask("metering", "ListQuarantine", request, token))


@router.post("/quarantine/{device}/release")
async def release_device(
    here: Here, token: Token, request_id: RequestId, device: DeviceId, release: bodies.Release
) -> models.Released:
    """Lets a device's readings count again; the held ones stay set aside."""
    request = metering.ReleaseDeviceRequest(request_id=request_id, device=device, decision=release.decision)
    return models.view(models.Released, await here.calls.ask("metering", "ReleaseDevice", request, token))


@router.get("/refusals")
async def list_refusals(
    here: Here, token: Token, page_size: Annotated[int, Query(ge=1, le=1_000, description="Rows at most.")] = 100
) -> models.Refusals:
    """Packages that were refused, by reason and device, newest first."""
    request = metering.ListRefusalsRequest(page_size=page_size)
    return models.view(models.Refusals, await here.calls.ask("metering", "ListRefusals", request, token))


@router.get("/meters")
async def list_meter_states(here: Here, token: Token, page: Paging) -> models.MeterStates:
    """The newest state of each meter."""
    request = metering.ListMeterStatesRequest(page_size=page.size, page_token=page.token)
    return models.view(models.MeterStates, await here.calls.ask("metering", "ListMeterStates", request, token))


@router.put("/faults")
async def set_faults(here: Here, token: Token, wanted: bodies.SetFaults) -> models.Faults:
    """Switches the demo's faults: the whole set, so that repeating it changes nothing. Absent outside a demo (404)."""
    request = simulation.SetFaultsRequest(faults=wanted.faults)
    return models.view(models.Faults, await here.calls.ask("simulation", "SetFaults", request, token))


@router.post("/log-check")
async def check_logs(here: Here, token: Token) -> models.LogCheck:
    """Verifies everything stored again and names the first damaged record of each log. Changes nothing."""
    answer = await here.calls.ask("notary", "CheckLogs", notary.CheckLogsRequest(), token, timeout_s=LONG_DEADLINE_S)
    return models.view(models.LogCheck, answer)


@router.post("/tariffs", status_code=201)
async def publish_tariff(here: Here, token: Token, request_id: RequestId, new: bodies.NewTariff) -> models.Published:
    """Publishes a tariff on the ledger; a published one never changes."""
    request = metering.PublishTariffRequest(request_id=request_id, tariff_json=new.text())
    return models.view(models.Published, await here.calls.ask("metering", "PublishTariff", request, token))


@router.post("/contracts", status_code=201)
async def create_contract(here: Here, token: Token, request_id: RequestId, new: bodies.NewContract) -> models.Contract:
    """Somebody moves in. A registrar finds the subject: GET /api/v1/pairwise-subjects."""
    contract = metering.Contract(
        meter_point=new.meter_point, subject=new.subject, tariff=new.tariff, from_date=new.from_date.isoformat()
    )
    request = metering.CreateContractRequest(request_id=request_id, contract=contract)
    return models.view(models.Contract, (await here.calls.ask("metering", "CreateContract", request, token)).contract)


@router.post("/contracts/{contract}/end")
async def end_contract(
    here: Here, token: Token, request_id: RequestId, contract: ContractId, end: bodies.ContractEnd
) -> models.Contract:
    """Somebody moves out; the last bill runs to that day."""
    request = metering.EndContractRequest(request_id=request_id, contract=contract, to_date=end.to_date.isoformat())
    return models.view(models.Contract, (await here.calls.ask("metering", "EndContract", request, token)).contract)


@router.post("/billing-runs", status_code=201)
async def run_billing(
    here: Here, token: Token, request_id: RequestId, period: bodies.BillingRun
) -> models.BillingRunDone:
    """Closes a period: a bill for every complete contract, one decision on the ledger."""
    request = metering.RunBillingRequest(
        request_id=request_id, from_date=period.from_date.isoformat(), to_date=period.to_date.isoformat()
    )
    answer = await here.calls.ask("metering", "RunBilling", request, token, timeout_s=LONG_DEADLINE_S)
    return models.view(models.BillingRunDone, answer)


@router.post("/bills/{bill}/correction", status_code=201)
async def correct_bill(
    here: Here, token: Token, request_id: RequestId, bill: BillId, correction: bodies.Correction
) -> models.Bill:
    """Issues a new document that replaces a bill after late or released readings."""
    request = metering.CorrectBillRequest(request_id=request_id, bill=bill, reason=correction.reason)
    return models.view(models.Bill, (await here.calls.ask("metering", "CorrectBill", request, token)).bill)


@router.get("/devices")
async def list_devices(here: Here, token: Token, page: Paging) -> models.Devices:
    """Registered devices with their keys."""
    request = identity.ListDevicesRequest(page_size=page.size, page_token=page.token)
    return models.view(models.Devices, await here.calls.ask("identity", "ListDevices", request, token))


@router.post("/devices", status_code=201)
async def register_devices(
    here: Here, token: Token, request_id: RequestId, new: bodies.NewDevices
) -> models.RegisteredDevices:
    """Registers devices from manufacturer vouchers, all or none, in one ledger transaction."""
    vouchers = [
        identity.Voucher(
            document=item.document.encode(), signature=bytes.fromhex(item.signature), manufacturer=item.manufacturer
        )
        for item in new.vouchers
    ]
    begins = timestamp(new.in_service_from, "body.in_service_from") if new.in_service_from else None
    request = identity.RegisterDevicesRequest(request_id=request_id, vouchers=vouchers, in_service_from=begins)
    return models.view(models.RegisteredDevices, await here.calls.ask("identity", "RegisterDevices", request, token))


@router.get("/devices/{device}")
async def get_device(here: Here, token: Token, device: DeviceId) -> models.Device:
    """One device with its keys."""
    answer = await here.calls.ask("identity", "GetDevice", identity.GetDeviceRequest(device=device), token)
    return models.view(models.Device, answer.device)


@router.post("/devices/{device}/revocation")
async def revoke_device(
    here: Here, token: Token, request_id: RequestId, device: DeviceId, revocation: bodies.Revocation
) -> models.Device:
    """Takes a device out of service; what it signed up to `last_sequence` still counts."""
    request = identity.RevokeDeviceRequest(
        request_id=request_id, device=device, reason=revocation.reason, last_sequence=revocation.last_sequence
    )
    return models.view(models.Device, (await here.calls.ask("identity", "RevokeDevice", request, token)).device)


@router.post("/people", status_code=201)
async def create_person(here: Here, token: Token, request_id: RequestId, new: bodies.NewPerson) -> models.Person:
    """Registers a person with roles."""
    request = identity.CreatePersonRequest(
        request_id=request_id,
        login=new.login,
        display_name=new.display_name,
        roles=[access_pb2.Role.Value(f"ROLE_{role.upper()}") for role in new.roles],
        password=new.password,
    )
    return person_view((await here.calls.ask("identity", "CreatePerson", request, token)).person)


@router.get("/people/{person}")
async def get_person(here: Here, token: Token, person: PersonId, purpose: Purpose = "") -> models.Person:
    """A registrar reads somebody's record; the purpose is required and that person sees it."""
    request = identity.GetPersonRequest(person=person, purpose=purpose)
    return person_view((await here.calls.ask("identity", "GetPerson", request, token)).person)


@router.get("/pairwise-subjects")
async def get_pairwise_subject(
    here: Here,
    token: Token,
    login: Annotated[str, Query(pattern="^[a-z0-9-]{2,40}$", examples=["ada"])],
    audience: Annotated[
        Literal["metering", "parking"], Query(description="The service that knows the person by that pseudonym.")
    ] = "metering",
) -> models.PairwiseSubject:
    """A registrar asks for a person's pseudonym at one service, to set up a contract or a permit (OpenID Connect Core, 8.1)."""
    request = identity.GetPairwiseSubjectRequest(login=login, audience=audience)
    answer = await here.calls.ask("identity", "GetPairwiseSubject", request, token)
    return models.PairwiseSubject(subject=answer.subject)
