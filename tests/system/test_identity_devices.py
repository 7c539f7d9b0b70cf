"""Devices over real gRPC: vouchers, registration in one transaction, rotation, revocation, and a crash at the worst moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.bus.events import event_type
from citykit.bus.port import Record, Subscription
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound, RequestReused, SettingsError, Unavailable
from citykit.package import commitment
from citykit.testing.polling import until
from services.identity import store as tables
from services.identity.app.decisions import Decisions
from services.testing import START
from tests.system.identity_city import (
    MAKER,
    IdentityCity,
    device_key,
    identity_city,
    refusal,
    rotation,
    settings,
    voucher,
)

TOPIC = "city.identity.events.v1"


async def records_of(city: IdentityCity, count: int) -> list[Record]:
    """The first `count` events of identity."""
    found: list[Record] = []

    async def handle(records: Any) -> None:
        found.extend(records)

    async with city.city.bus.consume(Subscription(f"test-{city.request_id()}", (TOPIC,), handle)):
        await until(lambda: len(found) >= count, f"{count} events of identity")
    return found


async def test_vouched_devices_are_registered_in_one_transaction(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        answer = await city.register("meter-1", "meter-2")
        assert await city.city.ledger.height() == 1
        assert [device.id for device in answer.devices] == ["meter-1", "meter-2"]
        [key] = answer.devices[0].keys
        assert (key.public_key, key.algorithm, key.from_sequence, key.transaction) == (
            bytes(device_key("meter-1").verify_key), "EdDSA", 1, answer.transaction,
        )  # fmt: skip
        assert answer.devices[0].registered_at.seconds == START
        evidence = await city.city.ledger.evidence(answer.transaction)
        [first, _] = evidence["envelope"]["transaction"]["args"]["devices"]
        assert (first["device"], first["key"], first["from_time"]) == (
            "meter-1", key.public_key.hex(), "2016-10-03T23:00:00Z",
        )  # fmt: skip
        found = await city.service("metering").GetDevice(pb.GetDeviceRequest(device="meter-2"))
        assert found.device == answer.devices[1]


async def test_devices_may_bring_a_history(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        for wrong in (START + 1, START - 401 * 86_400):
            request.in_service_from.seconds = wrong
            error = await refusal(city.service().RegisterDevices(request))
            assert (error.reason, error.field) == ("bad-time", "in_service_from")
        request.in_service_from.seconds = START - 400 * 86_400
        answer = await city.service().RegisterDevices(request)
        [device] = answer.devices
        assert (device.in_service_from.seconds, device.registered_at.seconds) == (START - 400 * 86_400, START)
        evidence = await city.city.ledger.evidence(answer.transaction)
        [entry] = evidence["envelope"]["transaction"]["args"]["devices"]
        assert entry["from_time"] == "2015-08-30T23:00:00Z"


async def test_each_registration_is_told_with_a_commitment_that_opens(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        answer = await city.register("meter-1")
        await city.city.settle()
        [record] = await records_of(city, 1)
        event = events_pb2.DeviceRegistered.FromString(record.value)
        assert (event_type(record), record.key) == ("city.identity.v1.DeviceRegistered", "meter-1")
        assert (event.device, event.transaction, event.from_sequence) == ("meter-1", answer.transaction, 1)
        store = city.city.process.stores["identity"]
        [opening] = await store.read(lambda c: c.execute(tables.OPENINGS.select()).all())
        assert record.headers["commitment"] == opening.commitment == commitment(opening.salt, opening.document)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (voucher("meter-1", manufacturer="nobody"), "unknown-manufacturer"),
        (voucher("meter-1", signer=SigningKey(bytes(32))), "bad-signature"),
        (pb.Voucher(document=b"{}", signature=b"short", manufacturer="acme"), "bad-signature"),
        (voucher("Meter 1"), "bad-device"),
        (voucher("meter-1", key="00"), "bad-key"),
        (voucher("meter-1", algorithm="RS256"), "bad-algorithm"),
        (voucher("meter-1", owner="ada"), "bad-voucher"),
    ],
)
async def test_a_bad_voucher_registers_nothing(tmp_path: Path, bad: pb.Voucher, reason: str) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-2"), bad])
        error = await refusal(city.service().RegisterDevices(request))
        assert isinstance(error, InvalidArgument)
        assert error.reason == reason
        assert await city.city.ledger.height() == 0
        assert isinstance(await refusal(city.service().GetDevice(pb.GetDeviceRequest(device="meter-2"))), NotFound)


async def test_a_voucher_that_is_not_canonical_is_refused(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        good = voucher("meter-1")
        loose = good.document.replace(b":", b": ")
        signature = MAKER.sign(b"city.voucher.v1\n" + loose).signature
        sent = pb.Voucher(document=loose, signature=signature, manufacturer="acme")
        error = await refusal(
            city.service().RegisterDevices(pb.RegisterDevicesRequest(request_id="r", vouchers=[sent]))
        )
        assert (error.reason, error.field) == ("bad-voucher", "vouchers")


async def test_counts_and_request_ids_are_held_to(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        service = city.service()
        assert (await refusal(service.RegisterDevices(pb.RegisterDevicesRequest(request_id="r")))).field == "vouchers"
        many = [voucher("meter-1")] * 1_001
        assert (
            await refusal(service.RegisterDevices(pb.RegisterDevicesRequest(request_id="r", vouchers=many)))
        ).field == "vouchers"
        unnamed = pb.RegisterDevicesRequest(vouchers=[voucher("meter-1")])
        assert (await refusal(service.RegisterDevices(unnamed))).field == "request_id"
        twice = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1"), voucher("meter-1")])
        assert (await refusal(service.RegisterDevices(twice))).reason == "named-twice"


async def test_a_device_is_registered_once(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        first = await city.register("meter-1")
        assert await city.register("meter-1") == first
        other = pb.RegisterDevicesRequest(
            request_id="x", vouchers=[voucher("meter-1", serial="another"), voucher("meter-9")]
        )
        assert (await refusal(city.service().RegisterDevices(other))).reason == "already-registered"
        copied = bytes(device_key("meter-1").verify_key).hex()
        clone = pb.RegisterDevicesRequest(request_id="y", vouchers=[voucher("meter-9", key=copied)])
        assert (await refusal(city.service().RegisterDevices(clone))).reason == "key-reused"
        assert await city.city.ledger.height() == 1
        assert await city.city.process.stores["identity"].read(lambda c: tables.intents(c, 10)) == []


async def test_a_request_id_acts_once_and_keeps_its_content(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        first = await city.service().RegisterDevices(request)
        assert await city.service().RegisterDevices(request) == first
        other = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-2")])
        error = await refusal(city.service().RegisterDevices(other))
        assert error.reason == RequestReused.default_reason
        assert await city.city.ledger.height() == 1


async def test_a_key_is_rotated_by_the_key_it_replaces(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        await city.register("meter-1")
        request = rotation("r-1", "meter-1", 50)
        answer = await city.anyone().RotateDeviceKey(request)
        assert [key.from_sequence for key in answer.device.keys] == [1, 50]
        assert await city.anyone().RotateDeviceKey(request) == answer
        again = await city.anyone().RotateDeviceKey(rotation("r-2", "meter-1", 51, generation=2))
        assert [key.from_sequence for key in again.device.keys] == [1, 50, 51]
        kinds = [event_type(record).rpartition(".")[2] for record in await records_of(city, 3)]
        assert kinds == ["DeviceRegistered", "DeviceKeyRotated", "DeviceKeyRotated"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (rotation("r", "meter-1", 50, signer=SigningKey(bytes(32))), "bad-signature"),
        (rotation("r", "meter-1", 50, device="meter-2"), "bad-signature"),
        (rotation("r", "meter-1", 1), "sequence-not-rising"),
        (rotation("r", "meter-1", 0), "bad-sequence"),
        (rotation("r", "meter-1", 50, from_sequence=2**53), "bad-sequence"),
        (rotation("r", "meter-1", 50, algorithm="none"), "bad-algorithm"),
        (rotation("r", "meter-1", 50, generation=0, signer=device_key("meter-1")), "key-reused"),
        (rotation("r", "meter-7", 50), "unknown-device"),
    ],
)
async def test_a_bad_rotation_changes_nothing(tmp_path: Path, request_: Any, reason: str) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        before = (await city.register("meter-1", "meter-2")).devices[0]
        assert (await refusal(city.anyone().RotateDeviceKey(request_))).reason == reason
        found = await city.service().GetDevice(pb.GetDeviceRequest(device="meter-1"))
        assert found.device == before


async def test_a_revoked_device_never_comes_back(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        await city.register("meter-1")
        operator = city.role("operator")
        request = pb.RevokeDeviceRequest(request_id="r-1", device="meter-1", reason="stolen", last_sequence=40)
        answer = await operator.RevokeDevice(request)
        assert (answer.device.revoked_reason, answer.device.last_sequence) == ("stolen", 40)
        assert answer.device.revoked_at.seconds == START
        assert await operator.RevokeDevice(request) == answer
        second = pb.RevokeDeviceRequest(request_id="r-2", device="meter-1", reason="again")
        error = await refusal(operator.RevokeDevice(second))
        assert (type(error), error.reason) == (FailedPrecondition, "revoked")
        assert (await refusal(city.anyone().RotateDeviceKey(rotation("r-3", "meter-1", 50)))).reason == "revoked"
        assert (await city.register("meter-1")).devices[0].HasField("revoked_at")
        state = await city.city.ledger.evaluate("devices", "get", {"device": "meter-1"})
        assert state["revoked"] == {"at": "2016-10-03T23:00:00Z", "last_sequence": 40, "reason": "stolen"}
        nothing = pb.RevokeDeviceRequest(request_id="r-4", device="meter-1")
        assert (await refusal(operator.RevokeDevice(nothing))).field == "reason"
        unknown = pb.RevokeDeviceRequest(request_id="r-5", device="meter-2", reason="lost")
        assert (await refusal(operator.RevokeDevice(unknown))).reason == "unknown-device"


async def test_devices_are_listed_page_by_page(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.register(*(f"meter-{number}" for number in range(5)))
        names, token = [], ""
        while True:
            page = await city.role("auditor").ListDevices(pb.ListDevicesRequest(page_size=2, page_token=token))
            names += [device.id for device in page.devices]
            token = page.next_page_token
            if not token:
                break
        assert names == [f"meter-{number}" for number in range(5)]
        assert (
            await refusal(city.role("auditor").ListDevices(pb.ListDevicesRequest(page_size=-1)))
        ).field == "page_size"


class Died(Exception):
    """Stands for the process that dies."""


async def test_what_died_between_ledger_and_store_is_finished_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise Died

    request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
    async with identity_city(tmp_path, services=("identity",)) as city:
        with monkeypatch.context() as patched:
            patched.setattr(Decisions, "_complete", die)
            await refusal(city.service().RegisterDevices(request))
        assert await city.city.ledger.height() == 1
        assert isinstance(await refusal(city.service().GetDevice(pb.GetDeviceRequest(device="meter-1"))), NotFound)
    async with identity_city(tmp_path, start=START + 86_400) as city:

        async def there() -> bool:
            store = city.city.process.stores["identity"]
            return bool(await store.read(lambda c: tables.devices_named(c, ["meter-1"])))

        await until(there, "the job has finished the registration")
        answer = await city.service().RegisterDevices(request)
        assert answer.devices[0].registered_at.seconds == START
        assert await city.city.ledger.height() == 1
        assert len(await records_of(city, 1)) == 1


async def test_a_retry_finishes_what_waits_and_other_content_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:

        def away(*_: Any, **__: Any) -> None:
            raise Unavailable("the ledger is away", retry_after_s=1.0)

        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        with monkeypatch.context() as patched:
            patched.setattr(city.city.ledger, "submit", away)
            error = await refusal(city.service().RegisterDevices(request))
            assert (type(error), error.retry_after_s) == (Unavailable, 1.0)
        city.city.clock.advance_to(START + 600)
        other = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-2")])
        assert (await refusal(city.service().RegisterDevices(other))).reason == "request-id-reused"
        answer = await city.service().RegisterDevices(request)
        assert answer.devices[0].registered_at.seconds == START


async def test_a_wrong_list_of_manufacturers_stops_the_start(tmp_path: Path) -> None:
    for wrong in ("acme", "acme=zz", "acme=00ff"):
        with pytest.raises(SettingsError, match="CITY_IDENTITY_MANUFACTURERS"):
            async with identity_city(tmp_path, settings(manufacturers=wrong), services=("identity",)):
                raise AssertionError("the city started")
