"""People: created, read, their consents, who looked at their data, export, erasure. Personal data leaves no other trace."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from sqlalchemy import insert, update

from city.access.v1 import access_pb2
from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import Principal, role_name
from citykit.canonical import encode
from citykit.clock import iso, unix
from citykit.edge import fingerprint
from citykit.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied
from citykit.ids import new_id, require_request_id
from citykit.package import commitment
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.domain import (
    NAME_MAX,
    consent_receipt,
    erasure_receipt,
    pairwise_subject,
    password_hash,
    require_person,
    require_purpose,
    withdrawal_receipt,
)
from services.identity.events import SALT_BYTES, publish

PAGE_MAX = 500
EXPORT_MAX = 10_000
_NEWEST = 2**62


class People:
    """The use cases."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx = ctx
        self._store = store
        self._pairwise_key = ctx.key("pairwise")
        self._request_key = ctx.key("request-fingerprint")

    async def create(self, request: pb.CreatePersonRequest) -> pb.CreatePersonResponse:
        """Raises AlreadyExists where the login is taken."""
        require_request_id(request.request_id)
        roles = frozenset(role_name(role) for role in request.roles)
        require_person(request.login, request.display_name, roles, request.password)
        known = await self._store.write(
            lambda unit: unit.answered(request.request_id, "CreatePerson", self._fingerprint(request))
        )
        if known is not None:
            return pb.CreatePersonResponse(person=await self._by_id(known.decode()))
        salt = self._ctx.randomness(16)
        hashed = await asyncio.to_thread(password_hash, request.password, salt) if request.password else b""
        person = new_id("person", self._ctx.randomness)
        row = {
            "id": person, "login": request.login, "display_name": request.display_name, "roles": ",".join(sorted(roles)),
            "password_salt": salt, "password_hash": hashed, "created_at": unix(self._ctx.clock),
        }  # fmt: skip

        def unit(work: Unit) -> None:
            if tables.person_by_login(work.connection, request.login) is not None:
                raise AlreadyExists("this login is taken; choose another", field="login")
            work.execute(insert(tables.PEOPLE).values(row))
            work.answer(request.request_id, "CreatePerson", self._fingerprint(request), person.encode())

        await self._store.write(unit)
        return pb.CreatePersonResponse(person=await self._by_id(person))

    def _fingerprint(self, request: pb.CreatePersonRequest) -> bytes:
        """Keyed, so that the stored fingerprint tells nothing of the password."""
        return hmac.new(self._request_key, fingerprint(request), "sha256").digest()

    async def get(self, request: pb.GetPersonRequest, who: Principal) -> pb.Person:
        """The caller; or anybody, for a registrar who says why, which that person can read."""
        own = await self.of_subject(who.subject)
        if not request.person or request.person == own.id:
            return _person(own)
        if "registrar" not in who.roles:
            raise PermissionDenied("only a registrar may read somebody else's record")
        require_purpose(request.purpose)
        found = await self._by_id(request.person)

        def unit(work: Unit) -> None:
            self._save_access(work, found.id, "registrar at identity", "the person's record", request.purpose)

        await self._store.write(unit)
        return found

    async def subject_for(self, login: str, audience: str) -> str:
        """The pairwise subject of a login at a service."""
        row = await self._store.read(lambda c: tables.person_by_login(c, login))
        if row is None:
            raise NotFound("nobody has this login", field="login")
        return await self.subject(row.id, audience)

    async def subject(self, person: str, audience: str) -> str:
        """The pairwise subject, remembered so that erasure can tell each service."""
        found = pairwise_subject(self._pairwise_key, person, audience)
        await self._store.write(lambda unit: tables.remember_subject(unit, found, audience, person))
        return found

    async def of_subject(self, subject: str) -> Any:
        """The row of the person with a pairwise subject."""
        row = await self._store.read(lambda c: tables.person_by_subject(c, subject))
        if row is None:
            raise NotFound("this person is not known here any more", reason="unknown-person")
        return row

    # --- consents ----------------------------------------------------------------------------------

    async def consent(self, request: pb.RecordConsentRequest, who: Principal) -> pb.Consent:
        require_request_id(request.request_id)
        require_purpose(request.purpose)
        require_purpose(request.recipient, "recipient")
        person = await self.of_subject(who.subject)
        at = unix(self._ctx.clock)
        consent = new_id("consent", self._ctx.randomness)
        subject = await self.subject(person.id, request.recipient)
        receipt = consent_receipt(
            consent, subject, request.purpose, request.recipient, self._ctx.settings.general.city, iso(at)
        )
        salt = self._ctx.randomness(SALT_BYTES)
        rpc, mark = f"RecordConsent/{person.id}", fingerprint(request)

        def unit(work: Unit) -> bytes:
            known = work.answered(request.request_id, rpc, mark)
            if known is not None:
                return known
            work.execute(
                insert(tables.CONSENTS).values(
                    id=consent, person=person.id, purpose=request.purpose, recipient=request.recipient, given_at=at,
                    receipt_json=encode(receipt).decode(), salt=salt,
                )
            )  # fmt: skip
            event = events_pb2.ConsentRecorded(subject=subject, recipient=request.recipient, purpose=request.purpose)
            publish(work, self._ctx.randomness, consent, event, at, commitment(salt, encode(receipt)))
            work.answer(request.request_id, rpc, mark, consent.encode())
            return consent.encode()

        kept = (await self._store.write(unit)).decode()
        return await self._consent(person.id, kept)

    async def withdraw(self, request: pb.WithdrawConsentRequest, who: Principal) -> pb.Consent:
        require_request_id(request.request_id)
        person = await self.of_subject(who.subject)
        found = await self._consent(person.id, request.consent)
        if found.HasField("withdrawn_at"):
            return found
        at = unix(self._ctx.clock)
        receipt = encode(withdrawal_receipt(json.loads(found.receipt_json), iso(at)))
        salt = self._ctx.randomness(SALT_BYTES)
        subject = await self.subject(person.id, found.recipient)

        def unit(work: Unit) -> None:
            row = {"withdrawn_at": at, "receipt_json": receipt.decode(), "salt": salt}
            work.execute(update(tables.CONSENTS).where(tables.CONSENTS.c.id == found.id).values(row))
            event = events_pb2.ConsentWithdrawn(subject=subject, recipient=found.recipient, purpose=found.purpose)
            publish(work, self._ctx.randomness, found.id, event, at, commitment(salt, receipt))

        await self._store.write(unit)
        return await self._consent(person.id, found.id)

    async def consents(self, page_size: int, page_token: str, who: Principal) -> pb.ListConsentsResponse:
        person = await self.of_subject(who.subject)
        size = min(max(page_size or 100, 1), PAGE_MAX)
        rows = await self._store.read(lambda c: tables.consents(c, person.id, page_token, size))
        token = rows[-1].id if len(rows) == size else ""
        return pb.ListConsentsResponse(consents=map(_consent, rows), next_page_token=token)

    async def _consent(self, person: str, consent: str) -> pb.Consent:
        rows = await self._store.read(lambda c: tables.consents(c, person, "", EXPORT_MAX))
        for row in rows:
            if row.id == consent:
                return _consent(row)
        raise NotFound("no such consent of yours; ListConsents names yours", field="consent")

    # --- who looked --------------------------------------------------------------------------------

    async def record_access(self, request: pb.RecordAccessRequest) -> None:
        """Raises NotFound for a subject nobody has (a household without a login, or an erased person)."""
        require_request_id(request.request_id)
        require_purpose(request.purpose)
        if not 1 <= len(request.what) <= NAME_MAX or not 1 <= len(request.by) <= NAME_MAX:
            raise InvalidArgument(f"`by` and `what` have 1 to {NAME_MAX} characters", field="what")
        person = await self.of_subject(request.subject)

        def unit(work: Unit) -> None:
            if work.answered(request.request_id, "RecordAccess", fingerprint(request)) is None:
                self._save_access(work, person.id, request.by, request.what, request.purpose)
                work.answer(request.request_id, "RecordAccess", fingerprint(request), b"")

        await self._store.write(unit)

    def _save_access(self, work: Unit, person: str, by: str, what: str, purpose: str) -> None:
        row = {"person": person, "at": unix(self._ctx.clock), "by": by, "what": what, "purpose": purpose}
        work.execute(insert(tables.ACCESSES).values(row))

    async def accesses(self, page_size: int, page_token: str, who: Principal) -> pb.ListAccessesResponse:
        person = await self.of_subject(who.subject)
        size = min(max(page_size or 100, 1), PAGE_MAX)
        if page_token and not page_token.isdigit():
            raise InvalidArgument("use the page token of the answer before", field="page_token")
        before = int(page_token) if page_token else _NEWEST
        rows = await self._store.read(lambda c: tables.accesses(c, person.id, before, size))
        found = pb.ListAccessesResponse(next_page_token=str(rows[-1].number) if len(rows) == size else "")
        for row in rows:
            found.accesses.add(by=row.by, what=row.what, purpose=row.purpose).at.seconds = row.at
        return found

    # --- export and erasure ------------------------------------------------------------------------

    async def export(self, who: Principal) -> str:
        """Everything identity holds of the caller, JSON."""
        person = await self.of_subject(who.subject)

        def query(connection: Any) -> dict[str, Any]:
            consents = tables.consents(connection, person.id, "", EXPORT_MAX)
            accesses = tables.accesses(connection, person.id, _NEWEST, EXPORT_MAX)
            return {
                "person": {
                    "login": person.login,
                    "display_name": person.display_name,
                    "roles": person.roles.split(","),
                },
                "created_at": iso(person.created_at),
                "subjects": {row.audience: row.subject for row in tables.subjects_of(connection, person.id)},
                "consents": [{"receipt": json.loads(row.receipt_json), "salt": row.salt.hex()} for row in consents],
                "accesses": [
                    {"at": iso(row.at), "by": row.by, "what": row.what, "purpose": row.purpose} for row in accesses
                ],
            }

        return json.dumps(await self._store.read(query), indent=2, ensure_ascii=False)

    async def erase(self, request: pb.EraseMeRequest, who: Principal) -> str:
        """Destroys the person here and tells each service that knew a pairwise subject; returns the receipt."""
        require_request_id(request.request_id)
        person = await self.of_subject(who.subject)
        if request.confirm_login != person.login:
            raise InvalidArgument("to erase your data, send your own login in confirm_login", field="confirm_login")
        now = unix(self._ctx.clock)

        def unit(work: Unit) -> str:
            subjects = tables.subjects_of(work.connection, person.id)
            for row in subjects:
                event = events_pb2.SubjectErased(audience=row.audience, subject=row.subject)
                # The salt is thrown away: the commitment fills its place in the log and can never be opened.
                committed = commitment(self._ctx.randomness(SALT_BYTES), self._ctx.randomness(SALT_BYTES))
                publish(work, self._ctx.randomness, row.subject, event, now, committed)
            tables.erase_person(work, person.id)
            return encode(
                erasure_receipt([row.audience for row in subjects], self._ctx.settings.general.city, iso(now))
            ).decode()

        return await self._store.write(unit)

    async def _by_id(self, person: str) -> pb.Person:
        row = await self._store.read(lambda c: tables.person_by_id(c, person))
        if row is None:
            raise NotFound("no such person", field="person")
        return _person(row)


def _person(row: Any) -> pb.Person:
    roles = [access_pb2.Role.Value(f"ROLE_{name.upper()}") for name in row.roles.split(",")]
    message = pb.Person(id=row.id, login=row.login, display_name=row.display_name, roles=roles)
    message.created_at.seconds = row.created_at
    return message


def _consent(row: Any) -> pb.Consent:
    message = pb.Consent(id=row.id, purpose=row.purpose, recipient=row.recipient, receipt_json=row.receipt_json)
    message.given_at.seconds = row.given_at
    if row.withdrawn_at is not None:
        message.withdrawn_at.seconds = row.withdrawn_at
    return message
