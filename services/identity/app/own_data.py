"""What a person may know and end: who looked at the data, a copy of all of it, and its erasure."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import Principal
from citykit.canonical import encode
from citykit.clock import iso, unix
from citykit.errors import InvalidArgument, NotFound
from citykit.package import commitment
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.once import Asked, asked
from services.identity.app.pages import page_of
from services.identity.app.people import SELF, People
from services.identity.domain.people import NAME_MAX, require_purpose
from services.identity.domain.receipts import erasure_receipt
from services.identity.events import SALT_BYTES, publish

EXPORT_MAX = 10_000
"""Consents, and accesses, in one copy: the newest."""
_NEWEST = 2**62
_SERVICE = "service:"


class OwnData:
    """The use cases."""

    def __init__(self, ctx: Context, store: Store, people: People) -> None:
        self._ctx = ctx
        self._store = store
        self._people = people
        self._key = ctx.key("request-fingerprint")

    async def record_access(self, request: pb.RecordAccessRequest, who: Principal) -> None:
        """A service tells who looked at whose data; it names the person by the subject it knows itself.

        Raises:
            NotFound: nobody has that subject at this service (a household without a login, an erased person).
        """
        once = asked(self._key, request)
        require_purpose(request.purpose)
        for field in ("by", "what"):
            if not 1 <= len(getattr(request, field)) <= NAME_MAX:
                raise InvalidArgument(f"`{field}` has 1 to {NAME_MAX} characters", field=field)
        person = await self._people.of_subject(request.subject, who.subject.removeprefix(_SERVICE))
        now = unix(self._ctx.clock)
        row = {"person": person.id, "at": now, "by": request.by, "what": request.what, "purpose": request.purpose}

        def unit(work: Unit) -> None:
            if once.before(work) is None:
                tables.add_access(work, row)
                once.keep(work, b"")

        await self._store.write(unit)

    async def accesses(self, page_size: int, page_token: str, who: Principal) -> pb.ListAccessesResponse:
        """Who looked at the caller's data, the newest first."""
        size = page_of(page_size)
        if page_token and not (page_token.isascii() and page_token.isdigit() and int(page_token) <= _NEWEST):
            raise InvalidArgument("use the page token of the answer before", field="page_token")
        person = await self._people.of_subject(who.subject)
        before = int(page_token) if page_token else _NEWEST
        rows = await self._store.read(lambda c: tables.accesses(c, person.id, before, size))
        found = pb.ListAccessesResponse(next_page_token=str(rows[-1].number) if len(rows) == size else "")
        for row in rows:
            found.accesses.add(by=row.by, what=row.what, purpose=row.purpose).at.seconds = row.at
        return found

    async def export(self, who: Principal) -> str:
        """Everything identity holds of the caller (GDPR, article 20), JSON."""
        person = await self._people.of_subject(who.subject)
        return json.dumps(await self._store.read(lambda c: _copy(c, person)), indent=2, ensure_ascii=False)

    async def erase(self, request: pb.EraseMeRequest, who: Principal) -> str:
        """Destroys the person here and tells each service that knew a subject of theirs; returns the receipt.

        Raises:
            InvalidArgument: not the caller's own login.
        """
        once = asked(self._key, request)
        return (
            await self._store.write(lambda unit: self._erase(unit, once, who.subject, request.confirm_login))
        ).decode()

    def _erase(self, unit: Unit, once: Asked, subject: str, login: str) -> bytes:
        known = once.before(unit)
        if known is not None:
            return known
        row = tables.person_by_subject(unit.connection, subject, SELF)
        if row is None:
            raise NotFound("this person is erased already", reason="unknown-person")
        if login != row.login:
            message = "to erase your data for good, send your own login in confirm_login"
            raise InvalidArgument(message, field="confirm_login", reason="not-confirmed")
        now = unix(self._ctx.clock)
        told = self._tell(unit, row.id, now)
        tables.erase_person(unit, row.id)
        return once.keep(unit, encode(erasure_receipt(told, self._ctx.settings.general.city, iso(now))))

    def _tell(self, unit: Unit, person: str, now: int) -> list[str]:
        """Tells every service that knew the person under which subject; returns the services."""
        randomness = self._ctx.randomness
        subjects = tables.subjects_of(unit.connection, person)
        for known in subjects:
            event = events_pb2.SubjectErased(audience=known.audience, subject=known.subject)
            # Nobody keeps this salt: the commitment fills its place in the log and can never be opened.
            sealed = commitment(randomness(SALT_BYTES), randomness(SALT_BYTES))
            publish(unit, randomness, known.subject, event, now, sealed)
        return [known.audience for known in subjects]


def _copy(connection: Connection, person: Any) -> dict[str, Any]:
    consents = tables.consents(connection, person.id, "", EXPORT_MAX)
    accesses = tables.accesses(connection, person.id, _NEWEST, EXPORT_MAX)
    return {
        "person": {"login": person.login, "display_name": person.display_name, "roles": person.roles.split(",")},
        "created_at": iso(person.created_at),
        "subjects": {row.audience: row.subject for row in tables.subjects_of(connection, person.id)},
        "consents": [{"receipt": json.loads(row.receipt_json), "salt": row.salt.hex()} for row in consents],
        "accesses": [{"at": iso(row.at), "by": row.by, "what": row.what, "purpose": row.purpose} for row in accesses],
    }
