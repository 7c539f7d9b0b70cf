"""The servicers of `tests.system.fakes`: a neighbourhood of 100 meters at noon of 2016-11-08."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1 import identity_service_pb2_grpc as identity_grpc
from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1 import metering_service_pb2_grpc as metering_grpc
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1 import notary_service_pb2_grpc as notary_grpc
from city.simulation.v1 import simulation_service_pb2 as simulation
from city.simulation.v1 import simulation_service_pb2_grpc as simulation_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from citykit.errors import NotFound, RequestReused, Unauthenticated

NOW = 1_478_606_400
SLOT = 1_800
DAY = 86_400
METERS = 100
QUARANTINED = {17: "stuck", 42: "spike", 71: "drift"}
FAULTS = ("forged", "replayed", "reordered", "missing", "stuck", "drifting", "spiking", "clock-skew", "flood")
BILL = "bill-2016-10-04-5f0c2ab19d3e4417"
TX = "9f" * 32
LOGS = {"metering.readings": 14_904, "metering.events": 212, "identity.events": 131}


def _at(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def curve(time: int) -> float:
    """Share of the evening peak, by time of day: a morning and an evening hump."""
    hour = (time % DAY) / 3_600
    return 0.25 + 0.45 * math.exp(-((hour - 7.5) ** 2) / 4) + 0.75 * math.exp(-((hour - 18.5) ** 2) / 8)


class _Fake:
    def __init__(self, calls: Any) -> None:
        self._calls = calls

    def _note(self, rpc: str, request: Any) -> None:
        self._calls.requests.append((rpc, request))
        if rpc in self._calls.errors:
            raise self._calls.errors[rpc]

    def _once(self, rpc: str, request: Any, answer: Any) -> Any:
        """The answer given before to this request id; another content is refused, as in the city."""
        self._note(rpc, request)
        content = request.SerializeToString(deterministic=True)
        known = self._calls.answers.setdefault((rpc, request.request_id), (content, answer))
        if known[0] != content:
            raise RequestReused("this request id came before with other content; use a new one", field="request_id")
        return known[1]


class Identity(_Fake, identity_grpc.IdentityServiceServicer):
    async def GetProviderMetadata(self, request: Any, _: Any) -> Any:
        self._note("GetProviderMetadata", request)
        issuer = "https://provable.city/demo"
        document = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oidc/authorize",
            "token_endpoint": f"{issuer}/oidc/token",
        }
        return identity.GetProviderMetadataResponse(json=json.dumps(document))

    async def GetJwks(self, request: Any, _: Any) -> Any:
        self._note("GetJwks", request)
        return identity.GetJwksResponse(json='{"keys":[]}')

    async def Authorize(self, request: Any, _: Any) -> Any:
        self._note("Authorize", request)
        if not request.password.startswith("a password for"):
            raise Unauthenticated("login or password is wrong")
        return identity.AuthorizeResponse(code=f"code-{request.password.removeprefix('a password for ')}")

    async def ExchangeCode(self, request: Any, _: Any) -> Any:
        from tests.system.fakes import fake_token

        self._note("ExchangeCode", request)
        if not request.code.startswith("code-"):
            raise Unauthenticated("the code is not known")
        kind, _, name = request.code.removeprefix("code-").partition(":")
        token = fake_token("resident", name) if kind == "resident" else fake_token(name, f"staff-{name}")
        return identity.ExchangeCodeResponse(
            access_token=token, id_token="e30.e30.fake", expires_in_s=900, scope="openid"
        )

    async def ExchangeToken(self, request: Any, _: Any) -> Any:
        from tests.system.fakes import claims_of, fake_token

        self._note("ExchangeToken", request)
        claims = claims_of(request.subject_token)
        token = fake_token(claims["roles"][0], f"{claims['sub']}-at-{request.audience}", request.audience)
        return identity.ExchangeTokenResponse(access_token=token, expires_in_s=900)

    async def GetPerson(self, request: Any, _: Any) -> Any:
        self._note("GetPerson", request)
        person = identity.Person(
            id="person-5f0c2ab19d3e4417",
            login="ada",
            display_name="Ada",
            roles=[access_pb2.ROLE_RESIDENT],
            created_at=_at(NOW - 40 * DAY),
        )
        return identity.GetPersonResponse(person=person)

    async def CreatePerson(self, request: Any, _: Any) -> Any:
        person = identity.Person(
            id="person-1", login=request.login, display_name=request.display_name, roles=request.roles
        )
        return self._once("CreatePerson", request, identity.CreatePersonResponse(person=person))

    async def GetPairwiseSubject(self, request: Any, _: Any) -> Any:
        self._note("GetPairwiseSubject", request)
        return identity.GetPairwiseSubjectResponse(subject="5f0c2ab19d3e4417")

    async def RecordConsent(self, request: Any, _: Any) -> Any:
        return self._once(
            "RecordConsent",
            request,
            identity.RecordConsentResponse(consent=self._consent(request.purpose, request.recipient)),
        )

    async def WithdrawConsent(self, request: Any, _: Any) -> Any:
        return self._once("WithdrawConsent", request, identity.WithdrawConsentResponse(consent=self._consent("p", "r")))

    def _consent(self, purpose: str, recipient: str) -> Any:
        return identity.Consent(
            id="consent-1", purpose=purpose, recipient=recipient, given_at=_at(NOW), receipt_json="{}"
        )

    async def ListConsents(self, request: Any, _: Any) -> Any:
        self._note("ListConsents", request)
        return identity.ListConsentsResponse(consents=[self._consent("energy advice", "forecasting")])

    async def ListAccesses(self, request: Any, _: Any) -> Any:
        self._note("ListAccesses", request)
        rows = (
            ("operator at metering", "usage of mp-0001", "meter check asked for by phone", 3),
            ("billing at metering", "bill", "question about the bill", 20),
        )
        accesses = [
            identity.Access(at=_at(NOW - hours * 3_600), by=by, what=what, purpose=why) for by, what, why, hours in rows
        ]
        return identity.ListAccessesResponse(accesses=accesses)

    async def ExportMyData(self, request: Any, _: Any) -> Any:
        self._note("ExportMyData", request)
        return identity.ExportMyDataResponse(json='{"login":"ada"}')

    async def EraseMe(self, request: Any, _: Any) -> Any:
        return self._once("EraseMe", request, identity.EraseMeResponse(receipt_json='{"destroyed":["identity"]}'))

    def _device(self, number: int = 1) -> Any:
        key = identity.DeviceKey(public_key=bytes(32), algorithm="EdDSA", from_sequence=1, transaction=TX)
        return identity.Device(id=f"meter-{number:04}", model="sim-1", keys=[key], registered_at=_at(NOW - 36 * DAY))

    async def ListDevices(self, request: Any, _: Any) -> Any:
        self._note("ListDevices", request)
        start = int(request.page_token or "0") if request.page_token.isdigit() or not request.page_token else 0
        end = min(start + request.page_size, METERS)
        return identity.ListDevicesResponse(
            devices=[self._device(number) for number in range(start, end)],
            next_page_token=str(end) if end < METERS else "",
        )

    async def GetDevice(self, request: Any, _: Any) -> Any:
        self._note("GetDevice", request)
        return identity.GetDeviceResponse(device=self._device())

    async def RegisterDevices(self, request: Any, _: Any) -> Any:
        return self._once(
            "RegisterDevices", request, identity.RegisterDevicesResponse(devices=[self._device()], transaction=TX)
        )

    async def RevokeDevice(self, request: Any, _: Any) -> Any:
        return self._once("RevokeDevice", request, identity.RevokeDeviceResponse(device=self._device()))


def bill_document() -> dict[str, Any]:
    """A bill in the form of docs/PROOFS.md."""
    lines = [
        {
            "kind": "energy",
            "band": "night",
            "step": 0,
            "energy_wh": 61_220,
            "price_micro_per_wh": 8_120,
            "amount_minor": 497,
            "slots": 434,
        },
        {
            "kind": "energy",
            "band": "day",
            "step": 0,
            "energy_wh": 201_460,
            "price_micro_per_wh": 14_370,
            "amount_minor": 2_895,
            "slots": 868,
        },
        {
            "kind": "energy",
            "band": "peak",
            "step": 0,
            "energy_wh": 33_010,
            "price_micro_per_wh": 21_900,
            "amount_minor": 723,
            "slots": 188,
        },
        {"kind": "standing", "days": 31, "price_micro_per_day": 12_000_000, "amount_minor": 372},
        {"kind": "vat", "basis_points": 500, "amount_minor": 224},
    ]
    period = {
        "from": "2016-10-04",
        "to": "2016-11-04",
        "from_time": NOW - 35 * DAY,
        "to_time": NOW - 4 * DAY,
        "zone": "Europe/London",
        "offsets": [[0, 3_600]],
    }
    return {
        "format": "city.bill.v1", "id": BILL, "meter_point": "mp-0001", "device": ["meter-0001"], "period": period,
        "tariff": {"id": "homes-2016", "version": 1, "transaction": TX}, "slot_seconds": SLOT, "slots": 1_490, "measured": 1_488,
        "estimated": [{"slot": NOW - 20 * DAY, "energy_wh": 210, "reason": "missing", "method": "profile-v1"}] * 2, "gaps": [],
        "lines": lines, "subtotal_minor": 4_487, "vat_minor": 224, "total_minor": 4_711, "currency": "GBP", "corrects": None,
        "issued": "2016-11-05T02:00:00Z", "due": "2016-11-19", "dispute_until": "2016-12-03",
    }  # fmt: skip


class Metering(_Fake, metering_grpc.MeteringServiceServicer):
    async def ListMyContracts(self, request: Any, _: Any) -> Any:
        self._note("ListMyContracts", request)
        return metering.ListMyContractsResponse(contracts=[self._contract()])

    def _contract(self) -> Any:
        return metering.Contract(
            id="contract-1",
            meter_point="mp-0001",
            subject="ada-at-metering",
            tariff="homes-2016",
            from_date="2016-10-04",
        )

    async def CreateContract(self, request: Any, _: Any) -> Any:
        return self._once("CreateContract", request, metering.CreateContractResponse(contract=self._contract()))

    async def EndContract(self, request: Any, _: Any) -> Any:
        return self._once("EndContract", request, metering.EndContractResponse(contract=self._contract()))

    async def PublishTariff(self, request: Any, _: Any) -> Any:
        return self._once("PublishTariff", request, metering.PublishTariffResponse(transaction=TX))

    async def ListTariffs(self, request: Any, _: Any) -> Any:
        self._note("ListTariffs", request)
        return metering.ListTariffsResponse(tariffs_json=['{"currency":"GBP","id":"homes-2016","version":1}'])

    async def GetUsage(self, request: Any, _: Any) -> Any:
        self._note("GetUsage", request)
        step = {"slot": SLOT, "hour": 3_600, "day": DAY}[request.resolution]
        first = request.from_time.seconds // step * step
        last = min(request.to_time.seconds, NOW, first + step * 1_000)
        points = [self._usage(time, step) for time in range(first, last, step)]
        return metering.GetUsageResponse(points=points, total_wh=sum(point.energy_wh for point in points))

    def _usage(self, time: int, step: int) -> Any:
        noise = random.Random(time).uniform(0.6, 1.4)
        energy = round(sum(curve(time + offset) for offset in range(0, step, SLOT)) * 380 * noise)
        hour = time // 3_600 % 97
        quality = (
            {11: "estimated", 12: "estimated", 40: "quarantined", 63: "missing"}.get(hour, "measured")
            if step < DAY
            else "mixed"
        )
        reason = {"quarantined": "spike", "estimated": "missing"}.get(quality, "")
        return metering.UsagePoint(
            time=time, energy_wh=0 if quality == "missing" else energy, quality=quality, reason=reason
        )

    async def GetCityLoad(self, request: Any, _: Any) -> Any:
        self._note("GetCityLoad", request)
        last = NOW // SLOT * SLOT
        times = range(last - request.slots * SLOT, last, SLOT)
        points = [
            metering.CityLoadPoint(time=time, energy_wh=round(curve(time) * 52_000), meters=METERS - 3)
            for time in times
        ]
        return metering.GetCityLoadResponse(points=points)

    async def ListMeterStates(self, request: Any, _: Any) -> Any:
        self._note("ListMeterStates", request)
        states = [
            metering.MeterState(
                meter_point=f"mp-{number:04}", device=f"meter-{number:04}", last_slot=NOW - SLOT, last_wh=120 + number * 7 % 400,
                quarantined_reason=QUARANTINED.get(number, ""), gaps=1 if number == 42 else 0,
            )
            for number in range(1, METERS + 1)
        ]  # fmt: skip
        return metering.ListMeterStatesResponse(states=states)

    async def ListQuarantine(self, request: Any, _: Any) -> Any:
        self._note("ListQuarantine", request)
        words = {
            "stuck": "the same 412 Wh in 12 slots one after the other; its own profile varies by 38 % there",
            "spike": "9,820 Wh in one slot; the most this meter has used in a slot is 1,140 Wh",
            "drift": "week over week 31 % above its own profile, steadily for 9 days",
        }
        entries = [
            metering.QuarantineEntry(
                device=f"meter-{number:04}", meter_point=f"mp-{number:04}", reason=reason, explanation=words[reason],
                since=_at(NOW - number * 600), readings=number, open=reason != "spike",
            )
            for number, reason in QUARANTINED.items()
        ]  # fmt: skip
        return metering.ListQuarantineResponse(entries=entries)

    def _appeal(self, state: str = "open") -> Any:
        return metering.Appeal(
            id="appeal-1",
            meter_point="mp-0001",
            from_time=_at(NOW - DAY),
            to_time=_at(NOW),
            statement="We charged the car.",
            state=state,
        )

    async def CreateAppeal(self, request: Any, _: Any) -> Any:
        return self._once("CreateAppeal", request, metering.CreateAppealResponse(appeal=self._appeal()))

    async def ListAppeals(self, request: Any, _: Any) -> Any:
        self._note("ListAppeals", request)
        return metering.ListAppealsResponse(appeals=[self._appeal()])

    async def DecideAppeal(self, request: Any, _: Any) -> Any:
        return self._once("DecideAppeal", request, metering.DecideAppealResponse(appeal=self._appeal("granted")))

    async def RunBilling(self, request: Any, _: Any) -> Any:
        answer = metering.RunBillingResponse(
            run="run-2016-10", bills=97, transaction=TX, left_out=["mp-0042: open quarantine"]
        )
        return self._once("RunBilling", request, answer)

    def _bill(self) -> Any:
        text = json.dumps(bill_document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return metering.Bill(
            id=BILL, meter_point="mp-0001", from_date="2016-10-04", to_date="2016-11-04", total_minor=4_711, currency="GBP",
            issued_at=_at(NOW - 3 * DAY), document_json=text, run="run-2016-10", provable=True,
        )  # fmt: skip

    async def ListBills(self, request: Any, _: Any) -> Any:
        self._note("ListBills", request)
        return metering.ListBillsResponse(bills=[self._bill()])

    async def GetBill(self, request: Any, _: Any) -> Any:
        self._note("GetBill", request)
        self._known(request.bill)
        return metering.GetBillResponse(bill=self._bill())

    def _known(self, bill: str) -> None:
        if not bill.startswith("bill-"):
            raise NotFound(f"no bill {bill} of yours; GET /api/v1/bills lists them")

    async def CorrectBill(self, request: Any, _: Any) -> Any:
        return self._once("CorrectBill", request, metering.CorrectBillResponse(bill=self._bill()))

    async def GetBillBundle(self, request: Any, _: Any) -> Any:
        self._note("GetBillBundle", request)
        self._known(request.bill)
        fake = (
            request.bill.removeprefix("bill-")
            if request.bill in {"bill-broken", "bill-hang", "bill-garbage"}
            else "fine"
        )
        bundle = {"format": "city.bundle.v1", "kind": "bill", "fake": fake, "bill": bill_document()}
        return metering.GetBillBundleResponse(bundle_json=json.dumps(bundle).encode())

    async def GetReadingsBundle(self, request: Any, _: Any) -> Any:
        self._note("GetReadingsBundle", request)
        return metering.GetReadingsBundleResponse(bundle_json=b'{"format":"city.bundle.v1","kind":"package"}')

    async def DownloadGreenButton(self, request: Any, _: Any) -> Any:
        self._note("DownloadGreenButton", request)
        for chunk in (b'<?xml version="1.0"?>', b'<feed xmlns="http://www.w3.org/2005/Atom">', b"</feed>"):
            yield metering.DownloadGreenButtonResponse(chunk=chunk)


class Notary(_Fake, notary_grpc.NotaryServiceServicer):
    def _head(self, log: str) -> Any:
        if log not in LOGS:
            raise NotFound(f"no log {log}; there are {', '.join(LOGS)}")
        grown = len(self._calls.of("ListLogs"))
        size = LOGS[log] + grown * 3
        return notary.Head(
            log=log, origin=f"provable.city/demo/{log}", size=size, anchored_size=size - size % 10, anchored_root=bytes(range(32)),
            checkpoint=f"provable.city/demo/{log}\n{size}\nAAAA\n", anchor_transaction=TX, anchored_at=_at(NOW - 2),
        )  # fmt: skip

    async def ListLogs(self, request: Any, _: Any) -> Any:
        self._note("ListLogs", request)
        return notary.ListLogsResponse(heads=[self._head(log) for log in LOGS])

    async def GetHead(self, request: Any, _: Any) -> Any:
        self._note("GetHead", request)
        return notary.GetHeadResponse(head=self._head(request.log))

    async def GetInclusionProof(self, request: Any, _: Any) -> Any:
        self._note("GetInclusionProof", request)
        return notary.GetInclusionProofResponse(index=request.index, size=14_900, hashes=[bytes(32)], checkpoint="note")

    async def GetConsistencyProof(self, request: Any, _: Any) -> Any:
        self._note("GetConsistencyProof", request)
        return notary.GetConsistencyProofResponse(
            from_size=request.from_size, to_size=request.to_size, hashes=[bytes(32)], checkpoint="note"
        )

    async def GetTile(self, request: Any, _: Any) -> Any:
        self._note("GetTile", request)
        self._head(request.log)
        return notary.GetTileResponse(
            content=f"{request.log}/{request.path}".encode(), immutable=request.path != "checkpoint"
        )

    async def GetEvidence(self, request: Any, _: Any) -> Any:
        self._note("GetEvidence", request)
        return notary.GetEvidenceResponse(json='{"type":"embedded.v1"}')

    async def CheckLogs(self, request: Any, _: Any) -> Any:
        self._note("CheckLogs", request)
        return notary.CheckLogsResponse(findings=[], entries_checked=15_247)

    async def GetTrust(self, request: Any, _: Any) -> Any:
        self._note("GetTrust", request)
        return notary.GetTrustResponse(json='{"city":"provable.city/demo","format":"city.trust.v1"}')


class Simulation(_Fake, simulation_grpc.SimulationServiceServicer):
    def __init__(self, calls: Any) -> None:
        super().__init__(calls)
        self.faults: list[str] = []
        self.phase = "live"

    async def GetNeighbourhood(self, request: Any, _: Any) -> Any:
        self._note("GetNeighbourhood", request)
        places = random.Random(7)
        meters = [
            simulation.Meter(
                device=f"meter-{number:04}", meter_point=f"mp-{number:04}", kind="measured" if number <= 4 else "simulated",
                label="real home, UCI 2006 to 2010" if number <= 4 else f"simulated home {number}",
                x=40 + (number - 1) % 12 * 84 + places.randint(-18, 18), y=60 + (number - 1) // 12 * 108 + places.randint(-26, 26),
            )
            for number in range(1, METERS + 1)
        ]  # fmt: skip
        attribution = simulation.Attribution(
            name="Individual household electric power consumption", licence="CC BY 4.0", text="Hebrail, G. and Berard, A., UCI Machine Learning Repository",
            shifted_weeks=515,
        )  # fmt: skip
        return simulation.GetNeighbourhoodResponse(meters=meters, attributions=[attribution], time_zone="Europe/London")

    async def GetReplay(self, request: Any, _: Any) -> Any:
        self._note("GetReplay", request)
        return simulation.GetReplayResponse(
            city_time=_at(NOW), speed=900, faults=self.faults, faults_available=FAULTS,
            faulted_devices=[f"{fault}:meter-0017" for fault in self.faults], phase=self.phase,
        )  # fmt: skip

    async def SetFaults(self, request: Any, _: Any) -> Any:
        self._note("SetFaults", request)
        self.faults = [fault for fault in request.faults if fault in FAULTS]
        return simulation.SetFaultsResponse(faults=self.faults)


def all_of(calls: Any) -> dict[str, Any]:
    """One of each, sharing the list of calls."""
    return {
        "identity": Identity(calls),
        "metering": Metering(calls),
        "notary": Notary(calls),
        "simulation": Simulation(calls),
    }
