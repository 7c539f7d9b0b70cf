"""Billing over real gRPC: runs, crash in between, corrections, bundles, erasure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from city.metering.v1 import metering_service_pb2 as pb
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.payments.v1 import events_pb2 as payments
from citykit import canonical, merkle
from citykit.bus.events import cloud_event
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from citykit.package import commitment
from citykit.testing.polling import until
from tests.system.metering_city import NOVEMBER, SLOT_S, START, MeteringCity, device, metering_city, point_of, refusal

ADA, BOB = "subject-ada", "subject-bob"


async def billed(there: MeteringCity) -> pb.Bill:
    """A home with a month of readings, four slots missing, and its bill."""
    home = device(1)
    transaction = await there.publish()
    await there.register(home, transaction=transaction)
    await there.contract(home, ADA)
    await there.month(home, without=[100, 101, 700, 1_400])
    answer = await there.bill()
    assert (answer.bills, list(answer.left_out)) == (1, [])
    return await newest(there, ADA)


async def test_a_month_is_billed_to_the_cent_and_bundled(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        bill = await billed(there)
        document = canonical.decode(bill.document_json.encode())
        assert (document["slots"], document["measured"], len(document["estimated"])) == (1_490, 1_486, 4)
        assert document["total_minor"] == bill.total_minor > 0
        await there.city.settle()
        resident = there.stub("resident", ADA)

        async def provable() -> bool:
            return bool((await resident.GetBill(pb.GetBillRequest(bill=bill.id))).bill.provable)

        await until(provable, "the bill is provable")
        answer = await resident.GetBillBundle(pb.GetBillBundleRequest(bill=bill.id))
        bundle = json.loads(answer.bundle_json)
        assert set(bundle) == {
            "format", "kind", "city", "log", "packages", "devices", "bill", "bill_salt", "run", "tariff", "earlier",
        }  # fmt: skip
        assert bundle["bill"] == document
        assert len(bundle["packages"]) == 31
        leaf = merkle.leaf_hash(commitment(bytes.fromhex(bundle["bill_salt"]), canonical.encode(document)))
        closed = bundle["run"]["evidence"]["envelope"]["transaction"]["args"]
        assert (closed["count"], closed["root"]) == (1, merkle.root_of([leaf]).hex())
        assert bundle["tariff"]["envelope"]["transaction"]["args"]["tariff"]["id"] == "homes-2016"


async def test_a_period_is_billed_once_and_not_before_its_end(tmp_path: Path) -> None:
    async with metering_city(tmp_path, now=NOVEMBER - 1) as there:
        home = device(1)
        await there.register(home, transaction=await there.publish())
        await there.contract(home, ADA)
        await there.month(home, days=30)
        assert (await refusal(there.bill())).reason == "period-open"
        there.city.clock.advance_to(NOVEMBER)
        first, second = await there.bill(), await there.bill()
        assert first.run == second.run
        assert second.bills == 1
        found = await there.city.ledger.evaluate("billing", "get", {"run": first.run})
        assert found["count"] == 1


async def test_what_cannot_be_billed_is_left_out_and_said(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        silent, home = device(1), device(2)
        await there.publish()
        await there.register(silent, home)
        await there.contract(silent, ADA)
        await there.contract(home, BOB, from_date="2016-10-20", to_date="2016-10-25")
        await there.month(home)
        answer = await there.bill()
        assert list(answer.left_out) == ["mp-0001: no reading that counts in the period"]
        bills = await there.stub("resident", BOB).ListBills(pb.ListBillsRequest())
        assert [(item.from_date, item.to_date) for item in bills.bills] == [("2016-10-20", "2016-10-25")]


async def test_a_contract_without_a_valid_tariff_is_left_out(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        home = device(1)
        await there.publish(valid_from="2017-01-01")
        await there.register(home)
        await there.contract(home, ADA)
        await there.month(home, days=2)
        assert "no version of the tariff" in (await there.bill()).left_out[0]


async def test_a_draft_that_a_crash_left_is_closed_with_the_same_run(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        home = device(1)
        await there.register(home, transaction=await there.publish())
        await there.contract(home, ADA)
        await there.month(home, days=30)
        submit = there.city.ledger.submit

        async def away(*args: object, **named: object) -> object:
            raise Unavailable("the ledger is away", retry_after_s=1.0)

        there.city.ledger.submit = away  # type: ignore[assignment,method-assign]
        assert (await refusal(there.bill())).reason == "unavailable"
        resident = there.stub("resident", ADA)
        assert not (await resident.ListBills(pb.ListBillsRequest())).bills
        there.city.ledger.submit = submit  # type: ignore[method-assign]
    async with metering_city(tmp_path) as there:
        there.numbers = 100
        resident = there.stub("resident", ADA)

        async def there_is_one() -> bool:
            return len((await resident.ListBills(pb.ListBillsRequest())).bills) == 1

        await until(there_is_one, "the job closed the draft")
        assert (await there.bill()).bills == 1


async def test_late_readings_lead_to_a_correction_and_the_old_bill_stays(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        bill = await billed(there)
        billing = there.stub("billing")
        correct = pb.CorrectBillRequest(request_id="c1", bill=bill.id, reason="late readings")
        assert (await refusal(billing.CorrectBill(correct))).reason == "no-change"
        home = device(1)
        home.sequence, home.previous = await head(there, home.name)
        await there.send(home.package([100, 101, 700], [4_000, 4_000, 4_000]))
        new = (await billing.CorrectBill(correct)).bill
        again = (await billing.CorrectBill(correct)).bill
        assert new.id == again.id
        assert (new.corrects, new.total_minor > bill.total_minor) == (bill.id, True)
        old = await billing.GetBill(pb.GetBillRequest(bill=bill.id, purpose="check the correction"))
        assert (old.bill.corrected_by, old.bill.document_json) == (new.id, bill.document_json)
        more = pb.CorrectBillRequest(request_id="c2", bill=bill.id, reason="once more")
        assert (await refusal(billing.CorrectBill(more))).reason == "corrected-before"
        await there.city.settle()
        resident = there.stub("resident", ADA)
        bundles = [
            json.loads((await resident.GetBillBundle(pb.GetBillBundleRequest(bill=id_))).bundle_json)
            for id_ in (bill.id, new.id)
        ]
        assert [len(bundle["packages"]) for bundle in bundles] == [31, 32]


async def head(there: MeteringCity, name: str) -> tuple[int, bytes]:
    answer = await there.stub("nobody").ListChainHeads(pb.ListChainHeadsRequest(devices=[name]))
    return answer.heads[0].sequence, answer.heads[0].hash


async def test_bills_are_seen_by_their_resident_and_by_staff_with_a_purpose(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        bill = await billed(there)
        other = there.stub("resident", BOB)
        assert not (await other.ListBills(pb.ListBillsRequest())).bills
        for call in (
            other.GetBill(pb.GetBillRequest(bill=bill.id)),
            other.GetBillBundle(pb.GetBillBundleRequest(bill=bill.id)),
            other.GetBill(pb.GetBillRequest(bill="bill-none")),
        ):
            assert isinstance(await refusal(call), NotFound)
        staff = there.stub("billing")
        assert (await refusal(staff.GetBill(pb.GetBillRequest(bill=bill.id)))).reason == "purpose-missing"
        assert not there.registry.accesses
        await staff.GetBill(pb.GetBillRequest(bill=bill.id, purpose="a call of the resident"))
        access = there.registry.accesses[0]
        assert (access.subject, access.by, access.purpose) == (ADA, "billing at metering", "a call of the resident")
        there.registry.away = True
        assert (
            await refusal(staff.GetBill(pb.GetBillRequest(bill=bill.id, purpose="again")))
        ).reason == "access-not-recorded"
        shown = (await staff.ListBills(pb.ListBillsRequest(page_size=1))).bills
        assert [item.document_json for item in shown] == [""]


async def test_erasure_destroys_the_resident_s_rows_and_the_logs_still_verify(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        neighbour = device(2)
        await there.register(neighbour, transaction=await there.publish())
        await there.contract(neighbour, BOB)
        await there.month(neighbour, days=30)
        bill = await billed_second(there)
        await there.city.settle()
        await there.erase(ADA)
        resident = there.stub("resident", ADA)
        assert not (await resident.ListMyContracts(pb.ListMyContractsRequest())).contracts
        assert isinstance(await refusal(resident.GetBill(pb.GetBillRequest(bill=bill.id))), NotFound)
        home = device(1)
        raw = home.package(range(48), 300)
        assert (await there.send(raw))[0].reason in {"duplicate", "sequence-replayed"}
        files = [path for path in (tmp_path / "metering").iterdir()]
        assert all(
            b"bill-2016-10-04-" + bill.id[-16:].encode() not in path.read_bytes()
            for path in files
            if path.suffix == ".db"
        )
        checked = await NotaryServiceStub(there.city.dial("notary")).CheckLogs(notary.CheckLogsRequest())
        assert (list(checked.findings), checked.entries_checked > 60) == ([], True)
        await there.city.settle()
        other = there.stub("resident", BOB)
        kept = (await other.ListBills(pb.ListBillsRequest())).bills[0]
        bundle = json.loads((await other.GetBillBundle(pb.GetBillBundleRequest(bill=kept.id))).bundle_json)
        assert bundle["run"]["proof"]["size"] == 2


async def billed_second(there: MeteringCity) -> pb.Bill:
    home = device(1)
    await there.register(home, transaction=await there.publish())
    await there.contract(home, ADA)
    await there.month(home)
    assert (await there.bill()).bills == 2
    return await newest(there, ADA)


async def newest(there: MeteringCity, subject: str) -> pb.Bill:
    answer: pb.ListBillsResponse = await there.stub("resident", subject).ListBills(pb.ListBillsRequest())
    return answer.bills[0]


async def test_tariffs_are_refused_with_their_fault_and_never_change(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        transaction = await there.publish()
        assert transaction
        changed = await refusal(there.publish(vat_basis_points=2_000))
        assert (changed.reason, "new version" in changed.message) == ("tariff-published", True)
        invalid = await refusal(there.publish(version=2, currency="pounds"))
        assert (invalid.field, invalid.reason) == ("tariff_json", "tariff-invalid")
        service = there.stub()
        bad = pb.PublishTariffRequest(request_id="x", tariff_json='{"b": 1}')
        assert isinstance(await refusal(service.PublishTariff(bad)), InvalidArgument)
        listed = await there.stub("nobody").ListTariffs(pb.ListTariffsRequest())
        assert [json.loads(text)["version"] for text in listed.tariffs_json] == [1]


@pytest.mark.parametrize(
    ("from_date", "to_date"), [("2016-11-04", "2016-10-04"), ("4 Oct", "2016-11-04"), ("2016-10-04", "")]
)
async def test_periods_out_of_form_are_refused(tmp_path: Path, from_date: str, to_date: str) -> None:
    async with metering_city(tmp_path) as there:
        request = pb.RunBillingRequest(request_id="r", from_date=from_date, to_date=to_date)
        assert (await refusal(there.stub().RunBilling(request))).field in {"from_date", "to_date"}


async def test_a_bundle_of_readings_holds_the_packages_of_the_range(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        home = device(1)
        await there.register(home, transaction=await there.publish())
        await there.contract(home, ADA)
        await there.month(home, days=4)
        resident = there.stub("resident", ADA)
        request = pb.GetReadingsBundleRequest(meter_point=point_of(home))
        request.from_time.seconds, request.to_time.seconds = START + 40 * SLOT_S, START + 60 * SLOT_S
        await there.city.settle()
        bundle = json.loads((await resident.GetReadingsBundle(request)).bundle_json)
        assert (bundle["kind"], len(bundle["packages"])) == ("package", 2)
        request.from_time.seconds, request.to_time.seconds = START + 400 * SLOT_S, START + 460 * SLOT_S
        assert isinstance(await refusal(resident.GetReadingsBundle(request)), FailedPrecondition)


async def test_bills_come_in_pages_newest_first(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        bill = await billed(there)
        home = device(1)
        home.sequence, home.previous = await head(there, home.name)
        await there.send(home.package([100], [4_000]))
        there.city.clock.advance_to(NOVEMBER + 60)
        billing = there.stub("billing")
        new = (await billing.CorrectBill(pb.CorrectBillRequest(request_id="c", bill=bill.id, reason="late"))).bill
        first = await billing.ListBills(pb.ListBillsRequest(page_size=1))
        second = await billing.ListBills(pb.ListBillsRequest(page_size=1, page_token=first.next_page_token))
        assert [first.bills[0].id, second.bills[0].id] == [new.id, bill.id]
        wrong = pb.CorrectBillRequest(request_id="w", bill="bill-none", reason="late")
        assert isinstance(await refusal(billing.CorrectBill(wrong)), NotFound)
        assert (
            await refusal(billing.CorrectBill(pb.CorrectBillRequest(request_id="v", bill=bill.id)))
        ).field == "reason"


async def test_a_correction_asks_only_for_what_is_not_paid_yet(tmp_path: Path) -> None:
    async with metering_city(tmp_path) as there:
        home = device(1)
        await there.register(home, transaction=await there.publish())
        await there.contract(home, ADA)
        await there.month(home, without=range(100, 140))
        await there.bill()
        first = (await there.stub("resident", ADA).ListBills(pb.ListBillsRequest())).bills[0]
        event = payments.PaymentChanged(
            payment="p-1",
            payee="metering",
            reference=f"bill/{first.id}",
            change="captured",
            amount_minor=first.total_minor,
        )
        for payee, change in (
            ("metering", "authorised"),
            ("metering", "captured"),
            ("metering", "captured"),
            ("parking", "captured"),
        ):
            told = payments.PaymentChanged(
                **{name.name: value for name, value in event.ListFields()} | {"payee": payee, "change": change}
            )
            message = cloud_event(
                topic="city.payments.events.v1", key="p-1", event=told, source="payments", id=f"{payee}-{change}", time=NOVEMBER,
                commitment=bytes(32),
            )  # fmt: skip
            await there.city.bus.publish([message])
        await there.city.settle(anchored=False)
        due = await there.stub().GetBillDue(pb.GetBillDueRequest(bill=first.id))
        assert (due.total_minor, due.paid) == (0, True)
        await there.send(home.package(range(100, 140), [2_000] * 40))
        asking = pb.CorrectBillRequest(request_id="correct", bill=first.id, reason="late readings")
        second = (await there.stub("billing").CorrectBill(asking)).bill
        due = await there.stub().GetBillDue(pb.GetBillDueRequest(bill=second.id))
        assert (due.total_minor, due.paid) == (second.total_minor - first.total_minor, False)
        assert due.total_minor > 0
        assert (await refusal(there.stub().GetBillDue(pb.GetBillDueRequest(bill=first.id)))).reason == "bill-corrected"
        assert (await refusal(there.stub().GetBillDue(pb.GetBillDueRequest(bill="none")))).reason == "not-found"
