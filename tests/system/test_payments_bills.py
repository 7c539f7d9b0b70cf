"""A bill of metering, paid through payments by its resident, and shown as paid."""

from __future__ import annotations

from pathlib import Path

from city.metering.v1 import metering_service_pb2 as metering
from city.payments.v1 import payments_service_pb2 as pb
from citykit.testing.polling import until
from tests.system.metering_city import NOVEMBER, MeteringCity, device
from tests.system.payments_city import ADA, BOB, STATE, payments_city, refusal

HOME = "ada-at-metering"


async def test_a_bill_is_paid_in_full_once_and_shown_as_paid(tmp_path: Path) -> None:
    async with payments_city(tmp_path, services=("payments", "metering", "notary"), now=NOVEMBER) as there:
        homes = MeteringCity(there.city, there.registry)
        home = device(1)
        await homes.register(home, transaction=await homes.publish())
        await homes.contract(home, HOME)
        await homes.month(home)
        await homes.bill()
        owner = homes.stub("resident", HOME)
        bill = (await owner.ListBills(metering.ListBillsRequest())).bills[0]
        assert not bill.paid
        due = await homes.stub().GetBillDue(metering.GetBillDueRequest(bill=bill.id))
        assert (due.total_minor, due.currency, due.paid) == (bill.total_minor, "GBP", False)
        resident = there.stub("resident", ADA)
        declined = pb.PayBillRequest(request_id="p-0", bill=bill.id, payment_method="pm_declined")
        assert (await resident.PayBill(declined)).payment.state == STATE.PAYMENT_STATE_DECLINED
        paying = pb.PayBillRequest(request_id="p-1", bill=bill.id, payment_method="pm_1")
        paid = await there.certain_of(ADA, (await resident.PayBill(paying)).payment.id)
        assert (paid.state, paid.captured_minor) == (STATE.PAYMENT_STATE_CAPTURED, bill.total_minor)
        assert (paid.payee, paid.reference) == ("metering", f"bill/{bill.id}")
        assert (await resident.PayBill(paying)).payment.id == paid.id

        async def shown() -> bool:
            found = (await owner.GetBill(metering.GetBillRequest(bill=bill.id))).bill
            return bool(found.paid) and found.payment == paid.id

        await until(shown, "the bill is shown as paid")
        again = pb.PayBillRequest(request_id="p-2", bill=bill.id, payment_method="pm_1")
        assert (await refusal(there.stub("resident", BOB).PayBill(again))).reason == "reference-paid"
        none = pb.PayBillRequest(request_id="p-3", bill="bill-none", payment_method="pm_1")
        assert (await refusal(resident.PayBill(none))).reason == "not-found"
        back = pb.RefundRequest(request_id="p-4", payment=paid.id, amount_minor=bill.total_minor, reason="dispute")
        await there.stub("billing").Refund(back)
        await there.certain_of(ADA, paid.id)

        async def unpaid() -> bool:
            return not (await owner.GetBill(metering.GetBillRequest(bill=bill.id))).bill.paid

        await until(unpaid, "the bill is shown as not paid")
        assert (await there.account("payee/metering")).debits_posted_minor == bill.total_minor
        for channel in homes.channels:
            await channel.close(None)
