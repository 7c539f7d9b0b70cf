"""People: created, read, and known to each service under a subject of its own. Personal data leaves no other trace."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from sqlalchemy import insert

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.access import Principal, role_name
from citykit.clock import unix
from citykit.errors import AlreadyExists, NotFound, PermissionDenied
from citykit.ids import new_id
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.once import asked
from services.identity.domain.people import (
    Cost,
    cost_of,
    pairwise_subject,
    password_hash,
    require_audience,
    require_person,
    require_purpose,
)

SELF = "identity"
GATEWAY = "gateway"
SALT_BYTES = 16


class People:
    """The use cases, and who a token speaks for."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx = ctx
        self._store = store
        self._pairwise_key = ctx.key("pairwise")
        self._key = ctx.key("request-fingerprint")

    async def create(self, request: pb.CreatePersonRequest, who: Principal) -> pb.Person:
        """A new person. A service of the city that asks for one who is there, with the same content, gets that one.

        Raises:
            IdentityError: naming the field. AlreadyExists: the login is taken.
        """
        once = asked(self._key, request)
        roles = frozenset(role_name(role) for role in request.roles)
        require_person(request.login, request.display_name, roles, request.password)
        known = await self._store.write(once.before)
        if known is not None:
            return await self.by_id(known.decode())
        found = await self._store.read(lambda c: tables.person_by_login(c, request.login))
        if found is not None and "service" in who.roles and await _is_same(found, request, roles):
            return person_message(found)
        row = await self.new_row(request.login, request.display_name, roles, request.password)

        def unit(work: Unit) -> bytes:
            known = once.before(work)
            if known is not None:
                return known
            self.add(work, row)
            return once.keep(work, row["id"].encode())

        return await self.by_id((await self._store.write(unit)).decode())

    async def new_row(self, login: str, name: str, roles: frozenset[str], password: str) -> dict[str, Any]:
        """The row of a person to be added; without a password nobody can log in here as that person."""
        salt, cost = self._ctx.randomness(SALT_BYTES), Cost()
        hashed = await asyncio.to_thread(password_hash, password, salt, cost) if password else b""
        return {
            "id": new_id("person", self._ctx.randomness), "login": login, "display_name": name,
            "roles": ",".join(sorted(roles)), "password_salt": salt, "password_hash": hashed, "password_cost": str(cost),
            "created_at": unix(self._ctx.clock),
        }  # fmt: skip

    def add(self, unit: Unit, row: dict[str, Any]) -> None:
        """Adds a person, known to the gateway from the start.

        Raises:
            AlreadyExists: the login is taken.
        """
        if tables.person_by_login(unit.connection, row["login"]) is not None:
            raise AlreadyExists("this login is taken; choose another", reason="login-taken", field="login")
        unit.execute(insert(tables.PEOPLE).values(row))
        tables.remember_subject(unit, self.subject_at(row["id"], GATEWAY), GATEWAY, row["id"])

    async def get(self, request: pb.GetPersonRequest, who: Principal) -> pb.Person:
        """The caller; or anybody, for a registrar who says why, which that person can read.

        Raises:
            PermissionDenied, NotFound, IdentityError (no purpose).
        """
        if not request.person:
            return person_message(await self.of_subject(who.subject))
        own = await self._store.read(lambda c: tables.person_by_subject(c, who.subject, SELF))
        if own is not None and request.person == own.id:
            return person_message(own)
        if "registrar" not in who.roles:
            raise PermissionDenied("only a registrar may read somebody else's record; leave `person` out for yours")
        require_purpose(request.purpose)
        found = await self.by_id(request.person)
        now = unix(self._ctx.clock)
        row = {
            "person": found.id, "at": now, "by": "registrar at identity", "what": "the person's record",
            "purpose": request.purpose,
        }  # fmt: skip
        await self._store.write(lambda unit: tables.add_access(unit, row))
        return found

    async def subject_for(self, login: str, audience: str) -> str:
        """The pairwise subject of a login at a service.

        Raises:
            NotFound: nobody has this login.
        """
        require_audience(audience)
        row = await self._store.read(lambda c: tables.person_by_login(c, login))
        if row is None:
            raise NotFound("nobody has this login; a registrar can create the person", field="login")
        return await self.subject(row.id, audience)

    async def subject(self, person: str, audience: str) -> str:
        """The pairwise subject, remembered so that an erasure can tell the service."""
        found = self.subject_at(person, audience)
        await self._store.write(lambda unit: tables.remember_subject(unit, found, audience, person))
        return found

    def subject_at(self, person: str, audience: str) -> str:
        return pairwise_subject(self._pairwise_key, person, audience)

    async def of_subject(self, subject: str, audience: str = SELF) -> Any:
        """The row of the person a service knows under `subject`.

        Raises:
            NotFound: reason unknown-person; erased, or of another service.
        """
        row = await self._store.read(lambda c: tables.person_by_subject(c, subject, audience))
        if row is None:
            raise NotFound("this person is not known here any more; log in again", reason="unknown-person")
        return row

    async def by_id(self, person: str) -> pb.Person:
        """Raises NotFound."""
        row = await self._store.read(lambda c: tables.person_by_id(c, person))
        if row is None:
            raise NotFound("no such person; they may have been erased", field="person", reason="unknown-person")
        return person_message(row)


async def password_fits(row: Any, password: str) -> bool:
    """True if this is the person's password; false for a person without one."""
    hashed = await asyncio.to_thread(password_hash, password, row.password_salt, cost_of(row.password_cost))
    return bool(row.password_hash) and hmac.compare_digest(hashed, row.password_hash)


async def _is_same(row: Any, request: pb.CreatePersonRequest, roles: frozenset[str]) -> bool:
    if (row.display_name, row.roles) != (request.display_name, ",".join(sorted(roles))):
        return False
    return await password_fits(row, request.password) if request.password else not row.password_hash


def person_message(row: Any) -> pb.Person:
    """A person on the wire."""
    roles = [access_pb2.Role.Value(f"ROLE_{name.upper()}") for name in row.roles.split(",")]
    message = pb.Person(id=row.id, login=row.login, display_name=row.display_name, roles=roles)
    message.created_at.seconds = row.created_at
    return message
