"""The same act asked many times at once has one effect and one answer."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from city.identity.v1 import identity_service_pb2 as pb
from citykit.edge import city_error
from citykit.errors import Unavailable
from citykit.testing.polling import until
from services.identity import store as tables
from tests.system.identity_city import IdentityCity, claims_of, identity_city, refusal, rotation, voucher
from tests.system.test_identity_devices import records_of

TIMES = 6
ONLY = ("identity",)


async def all_of(calls: list[Any]) -> list[Any]:
    """The answers; an error's reason where a call was refused."""

    async def one(call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            return city_error(error).reason

    return list(await asyncio.gather(*map(one, calls)))


async def acts(city: IdentityCity) -> int:
    """Transactions that counted; one that met a conflict with its twin may stand beside them in the chain."""
    return len({event.transaction async for event in city.city.ledger.events(follow=False)})


async def rows(city: IdentityCity, table: str) -> int:
    store = city.city.process.stores["identity"]
    return int(await store.read(lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()))


async def test_one_registration_asked_many_times(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        answers = await all_of([city.service().RegisterDevices(request) for _ in range(TIMES)])
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].devices[0].id == "meter-1"
        assert len(await records_of(city, 1)) == await acts(city) == 1
        assert await rows(city, "intents") == 0


async def test_many_registrations_of_one_device(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        requests = [
            pb.RegisterDevicesRequest(request_id=f"r-{n}", vouchers=[voucher("meter-1", serial=f"s-{n}")])
            for n in range(TIMES)
        ]
        answers = await all_of([city.service().RegisterDevices(request) for request in requests])
        assert sorted(map(str, answers)).count("already-registered") == TIMES - 1
        assert (await rows(city, "devices"), await rows(city, "intents")) == (1, 0)


async def test_many_rotations_of_one_key(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.register("meter-1")
        old = rotation("r-0", "meter-1", 9)
        answers = await all_of([city.anyone().RotateDeviceKey(old) for _ in range(TIMES)])
        others = [rotation(f"r-{n}", "meter-1", 9 + n, generation=2) for n in range(1, TIMES)]
        answers += await all_of([city.anyone().RotateDeviceKey(request) for request in others])
        done = [answer for answer in answers if isinstance(answer, pb.RotateDeviceKeyResponse)]
        assert len(done) == TIMES + 1
        assert await rows(city, "device_keys") == 3


async def test_one_person_created_many_times(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        same = city.person("ada")
        answers = await all_of([city.service().CreatePerson(same) for _ in range(TIMES)])
        assert len({answer.person.id for answer in answers}) == await rows(city, "people") == 1
        others = [city.person("bob") for _ in range(TIMES)]
        registrar = city.role("registrar")
        answers = await all_of([registrar.CreatePerson(request) for request in others])
        assert answers.count("login-taken") == TIMES - 1
        assert await rows(city, "people") == 2


async def test_one_code_exchanged_many_times_gives_one_token(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        request = city.code_request(await city.code("ada"))
        answers = await all_of([city.service().ExchangeCode(request) for _ in range(TIMES)])
        assert answers.count("invalid-grant") == TIMES - 1


async def test_one_consent_and_one_erasure_asked_many_times(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        ada = await city.as_person("ada")
        given = pb.RecordConsentRequest(request_id="c", purpose="advice", recipient="metering")
        answers = await all_of([ada.RecordConsent(given) for _ in range(TIMES)])
        assert len({answer.consent.id for answer in answers}) == await rows(city, "consents") == 1
        ends = [pb.WithdrawConsentRequest(request_id=f"w-{n}", consent=answers[0].consent.id) for n in range(TIMES)]
        await all_of([ada.WithdrawConsent(request) for request in ends])
        assert len(await records_of(city, 2)) == 2
        erasure = pb.EraseMeRequest(request_id="e", confirm_login="ada")
        again = pb.EraseMeRequest(request_id="f", confirm_login="ada")
        answers = await all_of([ada.EraseMe(erasure) for _ in range(TIMES)])
        assert len({answer.receipt_json for answer in answers}) == 1
        assert (await refusal(ada.EraseMe(again))).reason == "unknown-person"
        await city.city.settle(anchored=False)
        assert len(await records_of(city, 5)) == 5


async def test_the_job_waits_for_a_ledger_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the ledger is away", reason="ledger-unavailable")

    async with identity_city(tmp_path, services=ONLY) as city:
        monkeypatch.setattr(city.city.ledger, "submit", away)
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        await refusal(city.service().RegisterDevices(request))
        finish = city.city.process.services["identity"].jobs[0]
        assert finish.name == "finish-decisions"
        with caplog.at_level(logging.WARNING, "city.identity"):
            await finish.run()
        [record] = [record for record in caplog.records if record.message == "decision-waits"]
        assert record.__dict__["fields"] == {"rpc": "RegisterDevices", "reason": "ledger-unavailable"}
        monkeypatch.undo()
        await finish.run()
        store = city.city.process.stores["identity"]
        assert await store.read(lambda c: list(tables.devices_named(c, ["meter-1"]))) == ["meter-1"]
        await until(city.city.process.settled, "its event is told")


async def test_retries_beside_the_job_finish_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        request = pb.RegisterDevicesRequest(request_id="r", vouchers=[voucher("meter-1")])
        finish = city.city.process.services["identity"].jobs[0].run
        calls = [city.service().RegisterDevices(request) for _ in range(TIMES)]
        answers, *_ = await asyncio.gather(all_of(calls), *(finish() for _ in range(TIMES)))
        assert all(answer == answers[0] for answer in answers)
        assert len(await records_of(city, 1)) == await acts(city) == 1


async def test_nothing_is_written_about_a_person_who_was_erased_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with identity_city(tmp_path, services=ONLY) as city:
        await city.create("ada")
        gateway = await city.token("ada")
        at_metering = claims_of(await city.exchange(gateway, "metering"))["sub"]
        ada = city.bearer(await city.exchange(gateway, "identity"))
        found = await ada.GetPerson(pb.GetPersonRequest())
        store = city.city.process.stores["identity"]
        row = await store.read(lambda c: tables.person_by_id(c, found.person.id))
        await ada.EraseMe(pb.EraseMeRequest(request_id="e", confirm_login="ada"))
        monkeypatch.setattr(tables, "person_by_subject", lambda *_: row)
        access = pb.RecordAccessRequest(request_id="a", subject=at_metering, by="b", what="w", purpose="p")
        consent = pb.RecordConsentRequest(request_id="c", purpose="advice", recipient="forecasting")
        for call in (
            city.service("metering").RecordAccess(access),
            ada.RecordConsent(consent),
            city.service().ExchangeToken(pb.ExchangeTokenRequest(subject_token=gateway, audience="notary")),
        ):
            assert (await refusal(call)).reason == "unknown-person"
        assert [await rows(city, table) for table in ("subjects", "accesses", "consents")] == [0, 0, 0]
