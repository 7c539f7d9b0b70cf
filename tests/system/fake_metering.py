"""Metering with canned data: a neighbourhood of 100 meters at noon of 2016-11-08, one bill."""

from __future__ import annotations

import json
import math
import random
from typing import Any

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1 import metering_service_pb2_grpc as metering_grpc
from citykit.errors import NotFound
from tests.system.fake_calls import DAY, METERS, NOW, SLOT, TX, Asked, at

QUARANTINED = {17: "stuck", 42: "spike", 71: "drift"}
BILL = "bill-2016-10-04-5f0c2ab19d3e4417"


def curve(time: int) -> float:
    """Share of the evening peak, by time of day: a morning and an evening hump."""
    hour = (time % DAY) / 3_600
    return 0.25 + 0.45 * math.exp(-((hour - 7.5) ** 2) / 4) + 0.75 * math.exp(-((hour - 18.5) ** 2) / 8)


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


class Metering(metering_grpc.MeteringServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def ListMyContracts(self, request: Any, _: Any) -> Any:
        self._asked.note("ListMyContracts", request)
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
        return self._asked.once("CreateContract", request, metering.CreateContractResponse(contract=self._contract()))

    async def EndContract(self, request: Any, _: Any) -> Any:
        return self._asked.once("EndContract", request, metering.EndContractResponse(contract=self._contract()))

    async def PublishTariff(self, request: Any, _: Any) -> Any:
        return self._asked.once("PublishTariff", request, metering.PublishTariffResponse(transaction=TX))

    async def ListTariffs(self, request: Any, _: Any) -> Any:
        self._asked.note("ListTariffs", request)
        return metering.ListTariffsResponse(tariffs_json=['{"currency":"GBP","id":"homes-2016","version":1}'])

    async def GetUsage(self, request: Any, _: Any) -> Any:
        self._asked.note("GetUsage", request)
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
        self._asked.note("GetCityLoad", request)
        last = NOW // SLOT * SLOT
        times = range(last - request.slots * SLOT, last, SLOT)
        points = [
            metering.CityLoadPoint(time=time, energy_wh=round(curve(time) * 52_000), meters=METERS - 3)
            for time in times
        ]
        return metering.GetCityLoadResponse(points=points)

    async def ListMeterStates(self, request: Any, _: Any) -> Any:
        self._asked.note("ListMeterStates", request)
        states = [
            metering.MeterState(
                meter_point=f"mp-{number:04}", device=f"meter-{number:04}", last_slot=NOW - SLOT, last_wh=120 + number * 7 % 400,
                quarantined_reason=QUARANTINED.get(number, ""), gaps=1 if number == 42 else 0,
            )
            for number in range(1, METERS + 1)
        ]  # fmt: skip
        return metering.ListMeterStatesResponse(states=states)

    async def ListQuarantine(self, request: Any, _: Any) -> Any:
        self._asked.note("ListQuarantine", request)
        words = {
            "stuck": "the same 412 Wh in 12 slots one after the other; its own profile varies by 38 % there",
            "spike": "9,820 Wh in one slot; first: 9820 Wh in the slot at 1478588400",
            "drift": "week over week 31 % above its own profile, steadily for 9 days",
        }
        entries = [
            metering.QuarantineEntry(
                device=f"meter-{number:04}", meter_point=f"mp-{number:04}", reason=reason, explanation=words[reason],
                since=at(NOW - number * 600), readings=number, open=reason != "spike",
            )
            for number, reason in QUARANTINED.items()
        ]  # fmt: skip
        return metering.ListQuarantineResponse(entries=entries)

    async def ReleaseDevice(self, request: Any, _: Any) -> Any:
        return self._asked.once("ReleaseDevice", request, metering.ReleaseDeviceResponse(released=1))

    async def ListRefusals(self, request: Any, _: Any) -> Any:
        self._asked.note("ListRefusals", request)
        rows = (("bad-signature", "meter-0023", 18), ("sequence-replayed", "meter-0051", 7), ("unknown-device", "", 2))
        entries = [
            metering.RefusalEntry(
                reason=reason, device=device, count=count, last_at=at(NOW - count), message="in words"
            )
            for reason, device, count in rows
        ]
        return metering.ListRefusalsResponse(entries=entries)

    def _appeal(self, state: str = "open") -> Any:
        return metering.Appeal(
            id="appeal-1",
            meter_point="mp-0001",
            from_time=at(NOW - DAY),
            to_time=at(NOW),
            statement="We charged the car.",
            state=state,
        )

    async def CreateAppeal(self, request: Any, _: Any) -> Any:
        return self._asked.once("CreateAppeal", request, metering.CreateAppealResponse(appeal=self._appeal()))

    async def ListAppeals(self, request: Any, _: Any) -> Any:
        self._asked.note("ListAppeals", request)
        return metering.ListAppealsResponse(appeals=[self._appeal()])

    async def DecideAppeal(self, request: Any, _: Any) -> Any:
        return self._asked.once("DecideAppeal", request, metering.DecideAppealResponse(appeal=self._appeal("granted")))

    async def RunBilling(self, request: Any, _: Any) -> Any:
        answer = metering.RunBillingResponse(
            run="run-2016-10", bills=97, transaction=TX, left_out=["mp-0042: open quarantine"]
        )
        return self._asked.once("RunBilling", request, answer)

    def _bill(self) -> Any:
        text = json.dumps(bill_document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return metering.Bill(
            id=BILL, meter_point="mp-0001", from_date="2016-10-04", to_date="2016-11-04", total_minor=4_711, currency="GBP",
            issued_at=at(NOW - 3 * DAY), document_json=text, run="run-2016-10", provable=True,
        )  # fmt: skip

    async def ListBills(self, request: Any, _: Any) -> Any:
        self._asked.note("ListBills", request)
        return metering.ListBillsResponse(bills=[self._bill()])

    async def GetBill(self, request: Any, _: Any) -> Any:
        self._asked.note("GetBill", request)
        self._known(request.bill)
        return metering.GetBillResponse(bill=self._bill())

    def _known(self, bill: str) -> None:
        if not bill.startswith("bill-"):
            raise NotFound(f"no bill {bill} of yours; GET /api/v1/bills lists them")

    async def CorrectBill(self, request: Any, _: Any) -> Any:
        return self._asked.once("CorrectBill", request, metering.CorrectBillResponse(bill=self._bill()))

    async def GetBillBundle(self, request: Any, _: Any) -> Any:
        self._asked.note("GetBillBundle", request)
        self._known(request.bill)
        fake = (
            request.bill.removeprefix("bill-")
            if request.bill in {"bill-broken", "bill-hang", "bill-garbage"}
            else self._asked.bundle
        )
        bundle = {"format": "city.bundle.v1", "kind": "bill", "fake": fake, "bill": bill_document()}
        return metering.GetBillBundleResponse(bundle_json=json.dumps(bundle).encode())

    async def GetReadingsBundle(self, request: Any, _: Any) -> Any:
        self._asked.note("GetReadingsBundle", request)
        return metering.GetReadingsBundleResponse(bundle_json=b'{"format":"city.bundle.v1","kind":"package"}')

    async def DownloadGreenButton(self, request: Any, _: Any) -> Any:
        self._asked.note("DownloadGreenButton", request)
        for chunk in (b'<?xml version="1.0"?>', b'<feed xmlns="http://www.w3.org/2005/Atom">', b"</feed>"):
            yield metering.DownloadGreenButtonResponse(chunk=chunk)
