"""Metering with the real identity and notary: devices from vouchers, a key rotated and a device revoked, erasure, and the offline verifier."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.metering.v1 import metering_service_pb2 as pb
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit import canonical
from citykit.package import Ed25519Signer, Reading
from citykit.settings import CitySettings, IdentitySettings, NotarySettings
from citykit.testing.polling import until
from services.testing import TestCity, embedded_city
from simulation.device import Device
from simulation.neighbourhood import Meter, Neighbourhood
from tests.system.metering_city import NOVEMBER, SLOT_S, START
from tests.unit.metering.homes import tariff

RESIDENT = "subject-of-ada"
HOMES = 3
SLOTS = (NOVEMBER - START) // SLOT_S


@dataclass
class RealCity:
    city: TestCity
    neighbourhood: Neighbourhood
    devices: list[Device]

    @property
    def metering(self) -> Any:
        return MeteringServiceStub(self.city.dial("metering"))

    @property
    def identity(self) -> Any:
        return IdentityServiceStub(self.city.dial("identity"))

    async def send(self, *packages: bytes) -> list[pb.PackageResult]:
        stub: Any = MeteringServiceStub(self.city.process.anonymous())
        call = stub.Ingest()
        await call.write(pb.IngestRequest(packages=packages))
        answer = await call.read()
        await call.done_writing()
        return list(answer.results)

    def meter(self, number: int) -> Meter:
        return self.neighbourhood.meters[number]

    def day(self, number: int, day: int) -> bytes:
        """The package of a home's day; every home misses one slot a week."""
        slots = [
            slot
            for slot in range(day * 48, min(day * 48 + 50, SLOTS) if day == 30 else day * 48 + 48)
            if slot % 336 != 100
        ]
        times = [START + slot * SLOT_S for slot in slots]
        return self.devices[number].sign([Reading(time, self.meter(number).energy(time) or 0) for time in times])


@contextlib.asynccontextmanager
async def real_city(state: Path) -> AsyncIterator[RealCity]:
    """Three homes under contract, the tariff published; city time stands at the start of the contracts."""
    homes = Neighbourhood(7, None, HOMES)
    trusted = ",".join(f"{name}={key.hex()}" for name, key in homes.manufacturers.items())
    settings = replace(
        CitySettings(), identity=IdentitySettings(manufacturers=trusted), notary=NotarySettings(anchor_interval_s=0.05)
    )
    async with embedded_city(state, start=START, settings=settings) as city:
        found = RealCity(city, homes, [homes.device(meter) for meter in homes.meters])
        vouchers = [
            identity.Voucher(document=v.document, signature=v.signature, manufacturer=v.manufacturer)
            for v in homes.vouchers()
        ]
        await found.identity.RegisterDevices(identity.RegisterDevicesRequest(request_id="d", vouchers=vouchers))
        text = canonical.encode(tariff()).decode()
        await found.metering.PublishTariff(pb.PublishTariffRequest(request_id="t", tariff_json=text))
        points = [
            pb.MeterPoint(id=m.meter_point, device=m.device_id, max_slot_wh=11_500, zone="Europe/London")
            for m in homes.meters
        ]
        await found.metering.RegisterMeterPoints(pb.RegisterMeterPointsRequest(request_id="p", meter_points=points))
        for number, meter in enumerate(homes.meters):
            contract = pb.Contract(
                meter_point=meter.meter_point,
                subject=f"{RESIDENT}-{number}",
                tariff="homes-2016",
                from_date="2016-10-04",
            )
            await found.metering.CreateContract(pb.CreateContractRequest(request_id=f"c{number}", contract=contract))
        yield found


async def billed(there: RealCity) -> pb.Bill:
    there.city.clock.advance_to(NOVEMBER)
    for day in range(31):
        results = await there.send(*(there.day(number, day) for number in range(HOMES)))
        assert {result.outcome for result in results} == {pb.PackageResult.OUTCOME_ACCEPTED}, results
    request = pb.RunBillingRequest(request_id="b", from_date="2016-10-04", to_date="2016-11-04")
    answer = await there.metering.RunBilling(request)
    assert (answer.bills, list(answer.left_out)) == (HOMES, [])
    token = there.city.token(role="resident", subject=f"{RESIDENT}-0", audience="metering")
    found: pb.ListBillsResponse = await there.metering.ListBills(pb.ListBillsRequest(), metadata=_bearer(token))
    return found.bills[0]


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_a_bill_s_bundle_convinces_the_offline_verifier(tmp_path: Path) -> None:
    async with real_city(tmp_path / "city") as there:
        bill = await billed(there)
        token = _bearer(there.city.token(role="resident", subject=f"{RESIDENT}-0", audience="metering"))

        async def provable() -> bool:
            answer = await there.metering.GetBill(pb.GetBillRequest(bill=bill.id), metadata=token)
            return bool(answer.bill.provable)

        await until(provable, "the bill is provable")
        bundle = await there.metering.GetBillBundle(pb.GetBillBundleRequest(bill=bill.id), metadata=token)
        trust = await NotaryServiceStub(there.city.dial("notary")).GetTrust(notary.GetTrustRequest())
        range_ = pb.GetReadingsBundleRequest(meter_point=there.meter(0).meter_point)
        range_.from_time.seconds, range_.to_time.seconds = START, START + 60 * SLOT_S
        readings = await there.metering.GetReadingsBundle(range_, metadata=token)
    (tmp_path / "trust.json").write_text(trust.json, encoding="utf-8")
    for name, data in (("bill", bundle.bundle_json), ("readings", readings.bundle_json)):
        path = tmp_path / f"{name}.json"
        path.write_bytes(data)
        code, output = await verify(path, tmp_path / "trust.json")
        assert code == 0, output
    changed = bundle.bundle_json.replace(
        f'"total_minor":{bill.total_minor}'.encode(), f'"total_minor":{bill.total_minor - 1}'.encode()
    )
    (tmp_path / "changed.json").write_bytes(changed)
    code, output = await verify(tmp_path / "changed.json", tmp_path / "trust.json")
    assert (code, "FAIL" in output) == (1, True)


async def verify(bundle: Path, trust: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "verifier", str(bundle), "--trust", str(trust),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_bill_with_faults_and_its_correction_convince_the_verifier(tmp_path: Path) -> None:
    async with real_city(tmp_path / "city") as there:
        there.city.clock.advance_to(NOVEMBER)
        device, point = there.devices[0], there.meter(0).meter_point
        lost = b""
        for day in range(31):
            package = there.day(0, day)
            if day == 9:
                lost = package
            else:
                await there.send(package)
        spike = [Reading(START + 100 * SLOT_S, 11_400), Reading(START + 436 * SLOT_S, 12_000)]
        contradiction = [Reading(START + 99 * SLOT_S, 1), Reading(START + 772 * SLOT_S, 300)]
        held = await there.send(device.sign(spike), device.sign(contradiction))
        assert [result.quarantined_readings for result in held] == [1, 2]
        await there.metering.RunBilling(
            pb.RunBillingRequest(request_id="b", from_date="2016-10-04", to_date="2016-11-04")
        )
        token = _bearer(there.city.token(role="resident", subject=f"{RESIDENT}-0", audience="metering"))
        old = (await there.metering.ListBills(pb.ListBillsRequest(), metadata=token)).bills[0]
        document = canonical.decode(old.document_json.encode())
        reasons = {item["slot"]: item["reason"] for item in document["estimated"]}
        assert reasons[START + 436 * SLOT_S] == "quarantined:out-of-range"
        assert reasons[START + 772 * SLOT_S] == "quarantined:slot-already-measured"
        assert document["gaps"] == [{"after": 9, "before": 11}]
        assert (await there.send(lost))[0].accepted_readings == 47
        billing = _bearer(there.city.token(role="billing", subject="billing-1", audience="metering"))
        correct = pb.CorrectBillRequest(request_id="c", bill=old.id, reason="a lost package was found")
        new = (await there.metering.CorrectBill(correct, metadata=billing)).bill
        await there.city.settle()
        trust = await NotaryServiceStub(there.city.dial("notary")).GetTrust(notary.GetTrustRequest())
        (tmp_path / "trust.json").write_text(trust.json, encoding="utf-8")
        for bill in (old, new):
            request = pb.GetBillBundleRequest(bill=bill.id)
            bundle = await there.metering.GetBillBundle(request, metadata=token)
            (tmp_path / f"{bill.id}.json").write_bytes(bundle.bundle_json)
        assert point == new.meter_point
    corrected = canonical.decode(new.document_json.encode())
    assert (corrected["gaps"], corrected["corrects"]) == ([], old.id)
    for bill in (old, new):
        code, output = await verify(tmp_path / f"{bill.id}.json", tmp_path / "trust.json")
        assert code == 0, output
        assert "12000 Wh was set aside" in output


async def test_rotation_and_revocation_reach_the_on_ramp(tmp_path: Path) -> None:
    async with real_city(tmp_path) as there:
        there.city.clock.advance_to(NOVEMBER)
        device, name = there.devices[0], there.meter(0).device_id
        await there.send(there.day(0, 0))
        new = Ed25519Signer.from_seed(b"n" * 32)
        document = {"algorithm": "EdDSA", "device": name, "from_sequence": 2, "key": new.public_key.hex()}
        signature = device.signer.sign(b"city.device-rotation.v1\n" + canonical.encode(document))
        request = identity.RotateDeviceKeyRequest(
            request_id="r",
            device=name,
            public_key=new.public_key,
            algorithm="EdDSA",
            from_sequence=2,
            signature=signature,
        )
        await there.identity.RotateDeviceKey(request)
        await there.city.settle(anchored=False)
        device.signer = new
        assert (await there.send(there.day(0, 1)))[0].outcome == pb.PackageResult.OUTCOME_ACCEPTED
        revoke = identity.RevokeDeviceRequest(request_id="v", device=name, reason="stolen", last_sequence=2)
        operator = _bearer(there.city.token(role="operator", subject="operator-1", audience="identity"))
        await there.identity.RevokeDevice(revoke, metadata=operator)
        await there.city.settle(anchored=False)
        assert (await there.send(there.day(0, 2)))[0].reason == "device-revoked"
