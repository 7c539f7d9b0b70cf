"""People over real gRPC: who may read whom, consents with receipts, who looked, a copy of all, and erasure that breaks no log."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import Connection, inspect

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.bus.events import event_type
from citykit.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from citykit.package import commitment
from services.testing import START
from tests.system.identity_city import PASSWORD, IdentityCity, claims_of, identity_city, refusal
from tests.system.test_identity_devices import records_of

LOG = "identity.events"


async def test_a_person_is_created_and_reads_the_own_record(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        made = await city.create("ada")
        ada = await city.as_person("ada")
        found = (await ada.GetPerson(pb.GetPersonRequest())).person
        assert found == made
        assert (found.login, found.display_name, found.created_at.seconds) == ("ada", "Name of ada", START)
        assert (await ada.GetPerson(pb.GetPersonRequest(person=made.id))).person == made


async def test_a_login_is_taken_once(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        request = city.person("ada")
        made = (await city.service().CreatePerson(request)).person
        assert (await city.service().CreatePerson(request)).person == made
        assert await city.create("ada") == made
        for other in (
            city.person("ada", password="another password"),
            city.person("ada", password=""),
            city.person("ada", "operator"),
        ):
            assert isinstance(await refusal(city.service().CreatePerson(other)), AlreadyExists)
        assert (await refusal(city.role("registrar").CreatePerson(city.person("ada")))).field == "login"
        request.display_name = "Somebody else"
        assert (await refusal(city.service().CreatePerson(request))).reason == "request-id-reused"
        bad = city.person("Ada L.")
        assert (await refusal(city.service().CreatePerson(bad))).reason == "bad-login"


async def test_a_person_without_a_password_cannot_log_in_here(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        made = await city.create("ada", password="")
        assert await city.create("ada", password="") == made
        for password in ("", PASSWORD):
            assert isinstance(
                await refusal(city.service().Authorize(city.login("ada", password=password))), Unauthenticated
            )


async def test_passwords_and_names_stand_in_no_other_table(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        await city.token("ada")
        store = city.city.process.stores["identity"]

        def dump(connection: Connection) -> dict[str, str]:
            rows = connection.exec_driver_sql
            names = inspect(connection).get_table_names()
            return {name: str(rows(f'SELECT * FROM "{name}"').all()) for name in names}

        tables = await store.read(dump)
        assert [name for name, text in tables.items() if "Name of ada" in text] == ["people"]
        assert not any(PASSWORD in text for text in tables.values())


async def test_a_registrar_reads_others_with_a_purpose_they_can_see(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        made = await city.create("ada")
        registrar = city.role("registrar")
        asked = pb.GetPersonRequest(person=made.id)
        assert (await refusal(registrar.GetPerson(asked))).reason == "bad-purpose"
        asked.purpose = "moved to another flat"
        assert (await registrar.GetPerson(asked)).person == made
        [access] = (await (await city.as_person("ada")).ListAccesses(pb.ListAccessesRequest())).accesses
        assert (access.by, access.what, access.purpose) == (
            "registrar at identity", "the person's record", "moved to another flat",
        )  # fmt: skip
        for role in ("operator", "billing", "auditor", "resident"):
            assert isinstance(await refusal(city.role(role).GetPerson(asked)), PermissionDenied)
        nobody = pb.GetPersonRequest(person="person-0", purpose="a typing error")
        assert isinstance(await refusal(registrar.GetPerson(nobody)), NotFound)
        assert (await refusal(registrar.GetPerson(pb.GetPersonRequest()))).reason == "unknown-person"


async def test_each_service_knows_a_person_under_another_subject(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        gateway = await city.token("ada")
        tokens = {name: await city.exchange(gateway, name) for name in ("identity", "metering", "notary")}
        subjects = {claims_of(token)["sub"] for token in (gateway, *tokens.values())}
        assert len(subjects) == 4
        asked = pb.GetPairwiseSubjectRequest(login="ada", audience="metering")
        told = await city.role("registrar").GetPairwiseSubject(asked)
        assert told.subject == claims_of(tokens["metering"])["sub"]
        asked.login = "bob"
        assert isinstance(await refusal(city.service().GetPairwiseSubject(asked)), NotFound)
        asked.audience = "Not a name"
        assert (await refusal(city.service().GetPairwiseSubject(asked))).field == "audience"


async def record(city: IdentityCity, subject: str, service: str = "metering", number: int = 1) -> None:
    request = pb.RecordAccessRequest(
        request_id=f"access-{number}",
        subject=subject,
        by="operator at metering",
        what=f"usage {number}",
        purpose="a check",
    )
    await city.service(service).RecordAccess(request)


async def test_a_resident_reads_who_looked_newest_first(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        await city.create("bob")
        ada = await city.as_person("ada")
        subject = claims_of(await city.token("ada", "metering"))["sub"]
        for number in (1, 2, 2, 3):
            await record(city, subject, number=number)
        first = await ada.ListAccesses(pb.ListAccessesRequest(page_size=2))
        rest = await ada.ListAccesses(pb.ListAccessesRequest(page_size=2, page_token=first.next_page_token))
        assert [item.what for item in (*first.accesses, *rest.accesses)] == ["usage 3", "usage 2", "usage 1"]
        assert first.accesses[0].at.seconds == START
        assert not (await (await city.as_person("bob")).ListAccesses(pb.ListAccessesRequest())).accesses
        for token in ("x", "-1", "²", "9" * 30):
            assert (await refusal(ada.ListAccesses(pb.ListAccessesRequest(page_token=token)))).field == "page_token"


async def test_a_service_names_people_only_by_its_own_subjects(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        at_metering = claims_of(await city.token("ada", "metering"))["sub"]
        assert isinstance(await refusal(record(city, at_metering, "notary")), NotFound)
        assert isinstance(await refusal(record(city, "household-mp-7")), NotFound)
        for field in ("by", "what", "purpose"):
            parts = {"by": "b", "what": "w", "purpose": "p", field: ""}
            request = pb.RecordAccessRequest(request_id="r", subject=at_metering, **parts)
            assert (await refusal(city.service("metering").RecordAccess(request))).field == field


async def test_a_consent_has_a_receipt_whose_commitment_is_logged(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        await city.create("ada")
        ada = await city.as_person("ada")
        request = pb.RecordConsentRequest(request_id="c-1", purpose="advice on saving energy", recipient="forecasting")
        consent = (await ada.RecordConsent(request)).consent
        assert (await ada.RecordConsent(request)).consent == consent
        receipt = json.loads(consent.receipt_json)
        assert (receipt["purpose"], receipt["recipient"], receipt["event_type"], receipt["pii_controller"]) == (
            "advice on saving energy", "forecasting", "given", "provable.city/demo",
        )  # fmt: skip
        await city.city.settle()
        [told] = await records_of(city, 1)
        event = events_pb2.ConsentRecorded.FromString(told.value)
        assert (event.subject, event.recipient) == (receipt["pii_principal"], "forecasting")
        mine = json.loads((await ada.ExportMyData(pb.ExportMyDataRequest())).json)
        salt = bytes.fromhex(mine["consents"][0]["salt"])
        assert told.headers["commitment"] == commitment(salt, consent.receipt_json.encode())
        assert await logged(city, told.headers["commitment"])


async def logged(city: IdentityCity, entry: bytes) -> bool:
    """True if the commitment is in the log, anchored and provable."""
    service = NotaryServiceStub(city.city.process.dial("gateway", "notary"))
    answer = await service.GetBatchProof(notary.GetBatchProofRequest(log=LOG, commitments=[entry]))
    return len(answer.indexes) == 1


async def test_a_consent_is_withdrawn_once_by_its_owner(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        await city.create("ada")
        await city.create("bob")
        ada, bob = await city.as_person("ada"), await city.as_person("bob")
        asked = pb.RecordConsentRequest(request_id="c-1", purpose="advice", recipient="forecasting")
        consent = (await ada.RecordConsent(asked)).consent
        withdrawal = pb.WithdrawConsentRequest(request_id="w-1", consent=consent.id)
        assert isinstance(await refusal(bob.WithdrawConsent(withdrawal)), NotFound)
        city.city.clock.advance_to(START + 60)
        ended = (await ada.WithdrawConsent(withdrawal)).consent
        assert ended.withdrawn_at.seconds == START + 60
        assert json.loads(ended.receipt_json)["event_type"] == "withdrawn"
        city.city.clock.advance_to(START + 120)
        assert (await ada.WithdrawConsent(withdrawal)).consent == ended
        again = pb.WithdrawConsentRequest(request_id="w-2", consent=consent.id)
        assert (await ada.WithdrawConsent(again)).consent == ended
        await city.city.settle()
        kinds = [event_type(told).rpartition(".")[2] for told in await records_of(city, 2)]
        assert kinds == ["ConsentRecorded", "ConsentWithdrawn"]
        assert (await refusal(bob.RecordConsent(asked))).reason == "request-id-reused"


async def test_consents_are_listed_page_by_page_for_their_owner(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        ada = await city.as_person("ada")
        for number in range(3):
            asked = pb.RecordConsentRequest(
                request_id=f"c-{number}", purpose=f"purpose {number}", recipient="forecasting"
            )
            await ada.RecordConsent(asked)
        first = await ada.ListConsents(pb.ListConsentsRequest(page_size=2))
        rest = await ada.ListConsents(pb.ListConsentsRequest(page_size=2, page_token=first.next_page_token))
        assert {item.purpose for item in (*first.consents, *rest.consents)} == {f"purpose {n}" for n in range(3)}
        assert rest.next_page_token == ""
        for field, value in (("purpose", ""), ("recipient", "Nobody Ltd."), ("request_id", "")):
            parts = {"request_id": "r", "purpose": "p", "recipient": "metering", field: value}
            assert (await refusal(ada.RecordConsent(pb.RecordConsentRequest(**parts)))).field == field


async def test_a_copy_holds_everything_about_the_caller(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        ada = await city.as_person("ada")
        at_metering = claims_of(await city.token("ada", "metering"))["sub"]
        await record(city, at_metering)
        await ada.RecordConsent(pb.RecordConsentRequest(request_id="c", purpose="advice", recipient="forecasting"))
        mine = json.loads((await ada.ExportMyData(pb.ExportMyDataRequest())).json)
        assert mine["person"] == {"login": "ada", "display_name": "Name of ada", "roles": ["resident"]}
        assert set(mine["subjects"]) == {"gateway", "identity", "metering", "forecasting"}
        assert mine["subjects"]["metering"] == at_metering
        assert [item["receipt"]["purpose"] for item in mine["consents"]] == ["advice"]
        assert [item["what"] for item in mine["accesses"]] == ["usage 1"]


async def test_erasure_destroys_the_person_and_every_log_still_verifies(tmp_path: Path) -> None:
    async with identity_city(tmp_path) as city:
        await city.create("ada")
        bob = await city.create("bob")
        await city.register("meter-1")
        gateway = await city.token("ada")
        ada = city.bearer(await city.exchange(gateway, "identity"))
        at_metering = claims_of(await city.exchange(gateway, "metering"))["sub"]
        await record(city, at_metering)
        await ada.RecordConsent(pb.RecordConsentRequest(request_id="c", purpose="advice", recipient="forecasting"))
        slip = pb.EraseMeRequest(request_id="e-0", confirm_login="bob")
        assert isinstance(await refusal(ada.EraseMe(slip)), InvalidArgument)

        request = pb.EraseMeRequest(request_id="e-1", confirm_login="ada")
        answer = await ada.EraseMe(request)
        receipt = json.loads(answer.receipt_json)
        assert receipt["told"] == ["forecasting", "gateway", "identity", "metering"]
        assert "ada" not in answer.receipt_json
        assert await ada.EraseMe(request) == answer

        await city.city.settle()
        told = [record for record in await records_of(city, 6) if event_type(record).endswith("SubjectErased")]
        erased = [events_pb2.SubjectErased.FromString(record.value) for record in told]
        assert {item.audience: item.subject for item in erased}["metering"] == at_metering
        assert len(erased) == 4

        store = city.city.process.stores["identity"]
        counted = (
            "SELECT (SELECT count(*) FROM people), (SELECT count(*) FROM consents), (SELECT count(*) FROM accesses)"
        )
        rows = await store.read(lambda c: c.exec_driver_sql(counted).all())
        assert rows == [(1, 0, 0)]
        assert await store.read(lambda c: c.exec_driver_sql("SELECT DISTINCT person FROM subjects").all()) == [
            (bob.id,)
        ]

        for call in (ada.GetPerson(pb.GetPersonRequest()), ada.ExportMyData(pb.ExportMyDataRequest())):
            assert (await refusal(call)).reason == "unknown-person"
        asked = pb.ExchangeTokenRequest(subject_token=gateway, audience="metering")
        assert (await refusal(city.service().ExchangeToken(asked))).reason == "unknown-person"
        assert isinstance(await refusal(record(city, at_metering, number=9)), NotFound)
        assert isinstance(await refusal(city.service().Authorize(city.login("ada"))), Unauthenticated)

        check = await NotaryServiceStub(city.city.process.dial("gateway", "notary")).CheckLogs(
            notary.CheckLogsRequest()
        )
        assert check.entries_checked == 6
        assert not check.findings
        for item in told:
            assert await logged(city, item.headers["commitment"])


async def test_who_comes_again_after_an_erasure_is_somebody_new(tmp_path: Path) -> None:
    async with identity_city(tmp_path, services=("identity",)) as city:
        await city.create("ada")
        before = await city.token("ada")
        ada = city.bearer(await city.exchange(before, "identity"))
        await ada.EraseMe(pb.EraseMeRequest(request_id="e", confirm_login="ada"))
        assert isinstance(
            await refusal(ada.EraseMe(pb.EraseMeRequest(request_id="e-2", confirm_login="ada"))), NotFound
        )
        await city.create("ada")
        assert claims_of(await city.token("ada"))["sub"] != claims_of(before)["sub"]
