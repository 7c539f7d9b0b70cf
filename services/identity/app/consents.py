"""Consents: given and withdrawn by the person, each with a receipt whose salted commitment goes to the log."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert, update

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import Principal
from citykit.canonical import encode
from citykit.clock import iso, unix
from citykit.errors import NotFound
from citykit.ids import new_id
from citykit.package import commitment
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.once import asked
from services.identity.app.pages import page_of
from services.identity.app.people import People
from services.identity.domain.people import require_audience, require_purpose
from services.identity.domain.receipts import consent_receipt, withdrawal_receipt
from services.identity.events import SALT_BYTES, publish


class Consents:
    """The use cases, for the caller's own consents."""

    def __init__(self, ctx: Context, store: Store, people: People) -> None:
        self._ctx = ctx
        self._store = store
        self._people = people
        self._key = ctx.key("request-fingerprint")

    async def record(self, request: pb.RecordConsentRequest, who: Principal) -> pb.Consent:
        """A new consent."""
        once = asked(self._key, request)
        require_purpose(request.purpose)
        require_audience(request.recipient, "recipient")
        person = await self._people.of_subject(who.subject)
        now, name = unix(self._ctx.clock), new_id("consent", self._ctx.randomness)
        subject = self._people.subject_at(person.id, request.recipient)
        city = self._ctx.settings.general.city
        receipt = encode(consent_receipt(name, subject, request.purpose, request.recipient, city, iso(now)))
        salt = self._ctx.randomness(SALT_BYTES)

        def unit(work: Unit) -> bytes:
            known = once.before(work)
            if known is not None:
                return known
            tables.remember_subject(work, subject, request.recipient, person.id)
            row = {
                "id": name, "person": person.id, "purpose": request.purpose, "recipient": request.recipient, "given_at": now,
                "receipt_json": receipt.decode(), "salt": salt,
            }  # fmt: skip
            work.execute(insert(tables.CONSENTS).values(row))
            event = events_pb2.ConsentRecorded(subject=subject, recipient=request.recipient, purpose=request.purpose)
            publish(work, self._ctx.randomness, name, event, now, commitment(salt, receipt))
            return once.keep(work, name.encode())

        return consent_message(await self._own(person.id, (await self._store.write(unit)).decode()))

    async def withdraw(self, request: pb.WithdrawConsentRequest, who: Principal) -> pb.Consent:
        """Ends a consent; one that is withdrawn stays as it is.

        Raises:
            NotFound: no such consent of the caller.
        """
        once = asked(self._key, request)
        person = await self._people.of_subject(who.subject)
        found = await self._own(person.id, request.consent)
        now = unix(self._ctx.clock)
        receipt = encode(withdrawal_receipt(json.loads(found.receipt_json), iso(now)))
        salt = self._ctx.randomness(SALT_BYTES)
        subject = self._people.subject_at(person.id, found.recipient)

        def unit(work: Unit) -> None:
            if once.before(work) is not None:
                return
            row = {"withdrawn_at": now, "receipt_json": receipt.decode(), "salt": salt}
            changed = work.execute(
                update(tables.CONSENTS)
                .where(tables.CONSENTS.c.id == found.id, tables.CONSENTS.c.withdrawn_at.is_(None))
                .values(row)
                .returning(tables.CONSENTS.c.id)
            )
            if changed:
                event = events_pb2.ConsentWithdrawn(subject=subject, recipient=found.recipient, purpose=found.purpose)
                publish(work, self._ctx.randomness, found.id, event, now, commitment(salt, receipt))
            once.keep(work, found.id.encode())

        await self._store.write(unit)
        return consent_message(await self._own(person.id, found.id))

    async def page(self, page_size: int, page_token: str, who: Principal) -> pb.ListConsentsResponse:
        """The caller's consents, by id."""
        size = page_of(page_size)
        person = await self._people.of_subject(who.subject)
        rows = await self._store.read(lambda c: tables.consents(c, person.id, page_token, size))
        token = rows[-1].id if len(rows) == size else ""
        return pb.ListConsentsResponse(consents=map(consent_message, rows), next_page_token=token)

    async def _own(self, person: str, name: str) -> Any:
        row = await self._store.read(lambda c: tables.consent(c, person, name))
        if row is None:
            raise NotFound("no such consent of yours; ListConsents names yours", field="consent")
        return row


def consent_message(row: Any) -> pb.Consent:
    """A consent on the wire."""
    message = pb.Consent(id=row.id, purpose=row.purpose, recipient=row.recipient, receipt_json=row.receipt_json)
    message.given_at.seconds = row.given_at
    if row.withdrawn_at is not None:
        message.withdrawn_at.seconds = row.withdrawn_at
    return message
