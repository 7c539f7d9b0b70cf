"""The offline verifier on what the real services give a resident who parked: sessions, the statement, receipts. Whatever is changed is found."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1 import parking_service_pb2 as pb
from city.payments.v1 import payments_service_pb2 as payments
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit.testing.polling import until
from tests.system.parking_city import HOUR, MINUTE, NINE, ParkingCity
from tests.system.test_parking_paid import mandate, paid_city
from tests.unit.verifier.checking import changed, failed, flip, put
from verifier.bundle import Report, check_bundle
from verifier.canonical import encode
from verifier.trust import read_trust

STEPS = ["reservation", "access", "passages", "price", "receipts"]


@dataclass(frozen=True)
class Proven:
    """Bundles of one resident, and the trust file of the city they are of."""

    session: dict[str, Any]
    cancelled: dict[str, Any]
    statement: dict[str, Any]
    receipt: dict[str, Any]
    trust: dict[str, Any]

    def check(self, bundle: dict[str, Any]) -> Report:
        return check_bundle(encode(bundle), read_trust(self.trust))


async def lived(town: ParkingCity) -> Proven:
    """Ada parks, extends, overstays and is given something back; a later reservation she cancels too late."""
    await town.open_lot(bays=2)
    barrier, allowed = await town.lock(), await mandate(town, "ada")
    one = await town.hold("ada", NINE, NINE + HOUR)
    other = await town.hold("ada", NINE + 4 * HOUR, NINE + 5 * HOUR)
    for held in (one, other):
        await town.confirm("ada", held.id, allowed)
    await town.pass_(barrier, "ada", one.id)
    await town.extend("ada", one.id, NINE + 2 * HOUR)
    town.advance(2 * HOUR + 55 * MINUTE)
    await town.pass_(barrier, "ada", one.id)
    town.advance(20 * MINUTE)
    await town.cancel("ada", other.id)
    await proof(town, one.id, 6)
    refund = pb.RefundSessionRequest(request_id="back", reservation=one.id, amount_minor=30, reason="barrier-stuck")
    await town.stub("billing-1").RefundSession(refund)
    session, cancelled = await proof(town, one.id, 7), await proof(town, other.id, 4)
    await town.city.settle()
    purse: Any = PaymentsServiceStub(town.channels["payments/ada"])
    span = payments.GetStatementBundleRequest(from_time=Timestamp(seconds=NINE), to_time=Timestamp(seconds=NINE + HOUR))
    paid = payments.GetReceiptBundleRequest(payment=session["receipts"][0]["document"]["payment"])
    return Proven(
        session,
        cancelled,
        json.loads((await purse.GetStatementBundle(span)).bundle_json),
        json.loads((await purse.GetReceiptBundle(paid)).bundle_json),
        json.loads((await NotaryServiceStub(town.city.process.anonymous()).GetTrust(notary.GetTrustRequest())).json),
    )


async def proof(town: ParkingCity, reservation: str, versions: int) -> dict[str, Any]:
    """The bundle of a reservation, once so many versions of it can be proven."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            found.update(await town.bundle("ada", reservation))
        return len(found.get("reservation", ())) == versions

    await until(there, f"{versions} versions of {reservation} can be proven")
    return found


async def test_what_a_resident_is_given_holds_and_every_change_of_it_is_found(tmp_path: Path) -> None:
    async with paid_city(tmp_path) as town:
        proven = await lived(town)
    whole = proven.check(proven.session)
    assert failed(whole) == ("", "")
    assert [step.name for step in whole.steps][-5:] == STEPS
    changes = [item["document"]["change"] for item in proven.session["reservation"]]
    assert changes == ["held", "confirming", "confirmed", "started", "extended", "ended", "refunded"]
    for bundle, last in ((proven.cancelled, "receipts"), (proven.statement, "statement"), (proven.receipt, "receipt")):
        report = proven.check(bundle)
        assert (failed(report), report.steps[-1].name) == (("", ""), last)
    every = [proven.session, proven.cancelled, proven.statement, proven.receipt]
    source = random.Random(11)
    for bundle in every:
        good, trust = encode(bundle), read_trust(proven.trust)
        for at in source.sample(range(len(good)), 100):
            bad = good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]
            assert not check_bundle(bad, trust).ok, at
    for change, step in (
        (put("reservation", 5, "document", "exit_time", value=lambda n: n + 1), "inclusion"),
        (put("packages", 0, "salt", value=flip), "inclusion"),
        (put("receipts", 0, "document", "refunded_minor", value=0), "inclusion"),
        (put("access", value=lambda items: items[:1]), "access"),
        (put("keys", value=[]), "access"),
        (put("tariff", value=proven.session["keys"][0]["registered"]), "price"),
    ):
        assert failed(proven.check(changed(proven.session, change)))[0] == step
