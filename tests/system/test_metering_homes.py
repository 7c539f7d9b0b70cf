"""Contracts, usage, quarantine, appeals and Green Button over real gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from city.metering.v1 import metering_service_pb2 as pb
from citykit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from citykit.testing.polling import until
from tests.system.metering_city import (
    NOVEMBER,
    SLOT_S,
    START,
    MeteringCity,
    device,
    metering_city,
    point_of,
    refusal,
    usual,
)

ADA, BOB = "subject-ada", "subject-bob"


def usage(
    first: int, last: int, resolution: str = "slot", purpose: str = "", point: str = "mp-0001"
) -> pb.GetUsageRequest:
    request = pb.GetUsageRequest(meter_point=point, resolution=resolution, purpose=purpose)
    request.from_time.seconds, request.to_time.seconds = START + first * SLOT_S, START + last * SLOT_S
    return request


async def home(there: MeteringCity, days: int = 4) -> Any:
    one = device(1)
    await there.publish()
    await there.register(one)
    await there.contract(one, ADA)
    await there.month(one, days=days)
    return one


async def test_usage_by_slot_hour_and_local_day(tmp_path: Path) -> None:
    async with metering_city(tmp_path, now=START + 5 * 86_400) as there:
        await home(there, days=2)
        resident = there.stub("resident", ADA)
        slots = await resident.GetUsage(usage(0, 100))
        assert [point.quality for point in slots.points] == ["measured"] * 96 + ["missing"] * 4
        assert slots.total_wh == sum(map(usual, range(96)))
        hours = await resident.GetUsage(usage(0, 100, "hour"))
        assert [point.energy_wh for point in hours.points] == [usual(n) + usual(n + 1) for n in range(0, 96, 2)]
        days = await resident.GetUsage(usage(0, 100, "day"))
        assert [(point.time, point.energy_wh) for point in days.points] == [
            (START + day * 86_400, sum(map(usual, range(day * 48, day * 48 + 48)))) for day in range(2)
        ]
        assert (await refusal(resident.GetUsage(usage(0, 100, "week")))).field == "resolution"
        assert isinstance(await refusal(resident.GetUsage(usage(5, 5))), InvalidArgument)
        assert isinstance(await refusal(resident.GetUsage(usage(0, 100_001))), InvalidArgument)


async def test_local_days_follow_the_clock_change(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        one = device(1)
        await there.register(one)
        await there.contract(one, ADA)
        await there.send(one.package(range(25 * 48, 28 * 48), [100 + n % 2 for n in range(144)]))
        days = (await there.stub("resident", ADA).GetUsage(usage(25 * 48, 28 * 48, "day"))).points
        assert [point.energy_wh for point in days] == [4_824, 5_025, 4_623]


async def test_usage_is_a_resident_s_own_and_staff_reads_are_recorded(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        await home(there)
        assert isinstance(await refusal(there.stub("resident", BOB).GetUsage(usage(0, 10))), NotFound)
        ended = pb.EndContractRequest(
            request_id="e",
            contract=(await there.stub("resident", ADA).ListMyContracts(pb.ListMyContractsRequest())).contracts[0].id,
            to_date="2016-10-06",
        )
        await there.stub("billing").EndContract(ended)
        mine = await there.stub("resident", ADA).GetUsage(usage(0, 48 * 4))
        assert len(mine.points) == 96
        outside = await refusal(there.stub("resident", ADA).GetUsage(usage(100, 110)))
        assert isinstance(outside, PermissionDenied)
        staff = there.stub("operator")
        assert (await refusal(staff.GetUsage(usage(0, 10)))).reason == "purpose-missing"
        await staff.GetUsage(usage(0, 10, purpose="a complaint"))
        assert [(item.subject, item.by, item.what) for item in there.registry.accesses] == [
            (ADA, "operator at metering", "usage of mp-0001")
        ]
        unknown = usage(0, 10, purpose="a complaint", point="mp-9999")
        assert isinstance(await refusal(staff.GetUsage(unknown)), NotFound)


async def test_who_moves_out_and_in_again_does_not_see_who_lived_there_in_between(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        one = device(1)
        await there.register(one)
        for subject, start, end in (
            (ADA, "2016-10-04", "2016-10-05"),
            (BOB, "2016-10-05", "2016-10-06"),
            (ADA, "2016-10-06", ""),
        ):
            await there.contract(one, subject, start, end)
        await there.month(one, days=3)
        resident = there.stub("resident", ADA)
        seen = [(point.time - START) // SLOT_S for point in (await resident.GetUsage(usage(0, 144))).points]
        assert seen == [*range(48), *range(96, 144)]
        request = pb.DownloadGreenButtonRequest(meter_point="mp-0001")
        request.from_time.seconds, request.to_time.seconds = START, START + 144 * SLOT_S
        chunks = [chunk.chunk async for chunk in resident.DownloadGreenButton(request)]
        assert b"".join(chunks).count(b"<IntervalReading>") == 96


async def test_contracts_follow_each_other_and_never_overlap(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        one = device(1)
        await there.register(one)
        first = await there.contract(one, ADA)
        with pytest.raises(AssertionError):
            await refusal(there.stub("resident", ADA).ListMyContracts(pb.ListMyContractsRequest()))
        assert (await refusal(there.contract(one, BOB, from_date="2016-11-01"))).reason == "contract-overlaps"
        billing = there.stub("billing")
        end = pb.EndContractRequest(request_id="end", contract=first, to_date="2016-11-01")
        assert (await billing.EndContract(end)).contract.to_date == "2016-11-01"
        assert (await billing.EndContract(end)).contract.to_date == "2016-11-01"
        other = pb.EndContractRequest(request_id="end", contract=first, to_date="2016-12-01")
        assert (await refusal(billing.EndContract(other))).reason == "request-id-reused"
        again = pb.EndContractRequest(request_id="end2", contract=first, to_date="2016-12-01")
        assert isinstance(await refusal(billing.EndContract(again)), FailedPrecondition)
        none = pb.EndContractRequest(request_id="end3", contract="contract-none", to_date="2016-12-01")
        assert isinstance(await refusal(billing.EndContract(none)), NotFound)
        await there.contract(one, BOB, from_date="2016-11-01")
        bad = pb.Contract(meter_point="mp-0001", subject=BOB, tariff="t", from_date="2016-11-02", to_date="2016-11-01")
        request = pb.CreateContractRequest(request_id="bad", contract=bad)
        assert (await refusal(billing.CreateContract(request))).field == "contract.to_date"
        request.contract.subject = ""
        assert (await refusal(billing.CreateContract(request))).field == "contract.subject"
        request.contract.CopyFrom(pb.Contract(meter_point="mp-9", subject=BOB, tariff="t", from_date="2016-11-02"))
        assert isinstance(await refusal(billing.CreateContract(request)), NotFound)
        request.contract.CopyFrom(
            pb.Contract(id=first, meter_point="mp-0001", subject=BOB, tariff="t", from_date="2016-11-02")
        )
        assert isinstance(await refusal(billing.CreateContract(request)), AlreadyExists)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"max_slot_wh": 0}, InvalidArgument),
        ({"zone": "Europe/Atlantis"}, InvalidArgument),
        ({"id": ""}, InvalidArgument),
        ({"id": "mp-0002"}, AlreadyExists),
    ],
)
async def test_meter_points_out_of_form_are_refused(
    tmp_path: Path, change: dict[str, Any], kind: type[Exception]
) -> None:
    async with metering_city(tmp_path) as there:
        await there.register(device(1))
        point = {"id": "mp-0001", "device": "meter-0001", "max_slot_wh": 11_500, "zone": "Europe/London", **change}
        request = pb.RegisterMeterPointsRequest(request_id="x", meter_points=[pb.MeterPoint(**point)])
        assert isinstance(await refusal(there.stub().RegisterMeterPoints(request)), kind)
        empty = pb.RegisterMeterPointsRequest(request_id="y")
        assert isinstance(await refusal(there.stub().RegisterMeterPoints(empty)), InvalidArgument)


async def test_an_appeal_makes_held_readings_count(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        one = await home(there, days=10)
        results = await there.send(one.package(range(480, 484), [200, 10_400, 210, 220]))
        assert (results[0].accepted_readings, results[0].quarantined_readings) == (3, 1)
        operator, resident = there.stub("operator"), there.stub("resident", ADA)
        entry = (await operator.ListQuarantine(pb.ListQuarantineRequest())).entries[0]
        assert (entry.device, entry.reason, entry.readings, entry.open) == (one.name, "rate", 1, False)
        before = await resident.GetUsage(usage(480, 484))
        assert [(p.energy_wh, p.quality, p.reason) for p in before.points][1] == (0, "quarantined", "rate")
        request = pb.CreateAppealRequest(request_id="a", meter_point=point_of(one), statement="I fired the kiln")
        request.from_time.seconds, request.to_time.seconds = START + 480 * SLOT_S, START + 484 * SLOT_S
        appeal = (await resident.CreateAppeal(request)).appeal
        assert (await resident.CreateAppeal(request)).appeal.id == appeal.id
        assert not (await there.stub("resident", BOB).ListAppeals(pb.ListAppealsRequest())).appeals
        decide = pb.DecideAppealRequest(request_id="d", appeal=appeal.id, granted=True, reason="the kiln is known")
        decided = (await operator.DecideAppeal(decide)).appeal
        assert (decided.state, decided.decision_reason) == ("granted", "the kiln is known")
        again = pb.DecideAppealRequest(request_id="d2", appeal=appeal.id, granted=False, reason="no")
        assert isinstance(await refusal(operator.DecideAppeal(again)), FailedPrecondition)
        none = pb.DecideAppealRequest(request_id="d3", appeal="appeal-none", granted=False, reason="no")
        assert isinstance(await refusal(operator.DecideAppeal(none)), NotFound)
        after = await resident.GetUsage(usage(480, 484))
        assert [(p.energy_wh, p.quality) for p in after.points][1] == (10_400, "measured")
        request.request_id = "b"
        assert isinstance(await refusal(resident.CreateAppeal(request)), FailedPrecondition)
        shown = (await operator.ListAppeals(pb.ListAppealsRequest(page_size=1))).appeals
        assert [item.id for item in shown] == [appeal.id]


async def test_a_drifting_meter_stays_in_quarantine_until_it_is_released(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        one = device(1)
        await there.register(one)
        for day in range(26):
            factor = 2 if day >= 20 else 1
            slots = range(day * 48, day * 48 + 48)
            await there.send(one.package(slots, [usual(n) * factor for n in slots]))
        operator = there.stub("operator")
        entry = (await operator.ListQuarantine(pb.ListQuarantineRequest())).entries[0]
        assert (entry.reason, entry.open) == ("drift", True)
        states = (await operator.ListMeterStates(pb.ListMeterStatesRequest())).states
        assert [(state.meter_point, state.quarantined_reason) for state in states] == [("mp-0001", "drift")]
        held = (await there.send(one.package([26 * 48], [usual(0)])))[0]
        assert held.quarantined_readings == 1
        release = pb.ReleaseDeviceRequest(request_id="r", device=one.name, decision="calibrated on site")
        assert (await operator.ReleaseDevice(release)).released == 1
        assert (await there.send(one.package([26 * 48 + 1], [usual(1)])))[0].accepted_readings == 1
        release.request_id = "r2"
        assert isinstance(await refusal(operator.ReleaseDevice(release)), FailedPrecondition)


async def test_refusals_are_counted_for_the_control_room(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        await there.register(device(1))
        forged = bytearray(device(1).package([0]))
        forged[-1] ^= 1
        await there.send(bytes(forged), device(7).package([0]), bytes(forged))
        operator = there.stub("operator")

        async def both() -> bool:
            entries = (await operator.ListRefusals(pb.ListRefusalsRequest())).entries
            return {entry.reason: entry.count for entry in entries} == {"bad-signature": 2, "unknown-device": 1}

        await until(both, "the refusals are written")


async def test_the_city_s_load_hides_small_sums(tmp_path: Path) -> None:
    async with metering_city(tmp_path, now=START + 86_400) as there:
        homes = [device(n) for n in range(1, 12)]
        await there.register(*homes)
        for one in homes[:9]:
            await there.send(one.package(range(4), 100))
        nobody = there.stub("nobody")
        assert not (await nobody.GetCityLoad(pb.GetCityLoadRequest(slots=48))).points
        for one in homes[9:]:
            await there.send(one.package(range(2), 100))
        points = (await nobody.GetCityLoad(pb.GetCityLoadRequest())).points
        assert [(point.time, point.energy_wh, point.meters) for point in points] == [
            (START, 1_100, 11), (START + SLOT_S, 1_100, 11),
        ]  # fmt: skip
        assert isinstance(await refusal(nobody.GetCityLoad(pb.GetCityLoadRequest(slots=1_001))), InvalidArgument)
        pages = []
        token = ""
        while True:
            page = await there.stub("auditor").ListMeterStates(pb.ListMeterStatesRequest(page_size=5, page_token=token))
            pages.append(len(page.states))
            token = page.next_page_token
            if not token:
                break
        assert pages == [5, 5, 1]


async def test_green_button_streams_own_usage(tmp_path: Path) -> None:
    async with metering_city(tmp_path, now=NOVEMBER) as there:
        await home(there, days=20)
        request = pb.DownloadGreenButtonRequest(meter_point="mp-0001")
        request.from_time.seconds, request.to_time.seconds = START, NOVEMBER
        chunks = [chunk.chunk async for chunk in there.stub("resident", ADA).DownloadGreenButton(request)]
        assert len(chunks) > 1
        root = ElementTree.fromstring(b"".join(chunks))
        values = [int(found.text or "") for found in root.iter("{http://naesb.org/espi}value")]
        assert values == [usual(n) for n in range(20 * 48)]


async def test_missing_slots_are_estimated_after_a_while_and_late_readings_replace_them(tmp_path: Path) -> None:
    async with metering_city(tmp_path, now=START + 86_400) as there:
        one = device(1)
        await there.register(one)
        await there.contract(one, ADA)
        await there.send(one.package(range(10), 100), one.package(range(12, 24), 100))
        resident = there.stub("resident", ADA)
        there.city.clock.advance_to(START + 4 * 86_400)

        async def estimated() -> bool:
            points = (await resident.GetUsage(usage(0, 24))).points
            return [point.quality for point in points[9:13]] == ["measured", "estimated", "estimated", "measured"]

        await until(estimated, "two slots are estimated")
        points = (await resident.GetUsage(usage(0, 24))).points
        assert (points[10].energy_wh, points[10].reason) == (100, "missing")
        await there.send(one.package([10], 400))
        points = (await resident.GetUsage(usage(0, 24))).points
        assert (points[10].energy_wh, points[10].quality) == (400, "measured")
        day = (await resident.GetUsage(usage(0, 24, "day"))).points[0]
        assert (day.energy_wh, day.quality) == (100 * 23 + 400, "mixed")


async def test_a_request_id_is_needed_and_page_tokens_are_checked(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        assert (await refusal(there.stub().RunBilling(pb.RunBillingRequest()))).field == "request_id"
        operator = there.stub("operator")
        assert (await refusal(operator.ListQuarantine(pb.ListQuarantineRequest(page_token="x")))).field == "page_token"
        assert (await refusal(operator.ListQuarantine(pb.ListQuarantineRequest(page_size=-1)))).field == "page_size"
        billing = there.stub("billing")
        assert (await refusal(billing.ListBills(pb.ListBillsRequest(page_token="x")))).field == "page_token"
        many = pb.ListChainHeadsRequest(devices=["d"] * 1_001)
        assert (await refusal(there.stub("nobody").ListChainHeads(many))).field == "devices"
