"""Identity's tables. Personal data stands in `people`, `subjects`, `consents` and `accesses` only; erasure empties them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from citykit.errors import NotFound
from citykit.store.port import Unit

METADATA = MetaData()
DEVICES = Table(
    "devices",
    METADATA,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("manufacturer", String, nullable=False),
    Column("voucher", String),
    Column("registered_at", BigInteger, nullable=False),
    Column("in_service_from", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_sequence", BigInteger),
    Column("revoked_reason", String),
)
DEVICE_KEYS = Table(
    "device_keys",
    METADATA,
    Column("device", String, primary_key=True),
    Column("from_sequence", BigInteger, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
PEOPLE = Table(
    "people",
    METADATA,
    Column("id", String, primary_key=True),
    Column("login", String, nullable=False, unique=True),
    Column("display_name", String, nullable=False),
    Column("roles", String, nullable=False),
    Column("password_salt", LargeBinary, nullable=False),
    Column("password_hash", LargeBinary, nullable=False),
    Column("password_cost", String, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
SUBJECTS = Table(
    "subjects",
    METADATA,
    Column("subject", String, primary_key=True),
    Column("audience", String, nullable=False),
    Column("person", String, nullable=False, index=True),
)
CODES = Table(
    "codes",
    METADATA,
    Column("hash", LargeBinary, primary_key=True),
    Column("person", String, nullable=False),
    Column("client", String, nullable=False),
    Column("redirect", String, nullable=False),
    Column("challenge", String, nullable=False),
    Column("nonce", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used", Integer, nullable=False),
    Column("token", String, index=True),
)
CONSENTS = Table(
    "consents",
    METADATA,
    Column("id", String, primary_key=True),
    Column("person", String, nullable=False, index=True),
    Column("purpose", String, nullable=False),
    Column("recipient", String, nullable=False),
    Column("given_at", BigInteger, nullable=False),
    Column("withdrawn_at", BigInteger),
    Column("receipt_json", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
ACCESSES = Table(
    "accesses",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("person", String, nullable=False, index=True),
    Column("at", BigInteger, nullable=False),
    Column("by", String, nullable=False),
    Column("what", String, nullable=False),
    Column("purpose", String, nullable=False),
    sqlite_autoincrement=True,
)
OPENINGS = Table(
    "openings",
    METADATA,
    Column("commitment", LargeBinary, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("document", LargeBinary, nullable=False),
)
"""Salts and documents of the facts about devices, which are not personal."""

INTENTS = Table(
    "intents",
    METADATA,
    Column("request_id", String, primary_key=True),
    Column("rpc", String, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("function", String, nullable=False),
    Column("arguments", String, nullable=False),
    Column("details", String, nullable=False),
    Column("at", BigInteger, nullable=False),
)
"""Decisions about devices that are on their way to the ledger."""

Rows = Sequence[Row[Any]]


def devices_named(connection: Connection, names: Sequence[str]) -> dict[str, Row[Any]]:
    """At most 1,000 at once."""
    return {row.id: row for row in connection.execute(select(DEVICES).where(DEVICES.c.id.in_(names)))}


def devices(connection: Connection, after: str, limit: int) -> Rows:
    return connection.execute(select(DEVICES).where(DEVICES.c.id > after).order_by(DEVICES.c.id).limit(limit)).all()


def keys_of(connection: Connection, names: Sequence[str]) -> dict[str, list[Row[Any]]]:
    query = (
        select(DEVICE_KEYS)
        .where(DEVICE_KEYS.c.device.in_(names))
        .order_by(DEVICE_KEYS.c.device, DEVICE_KEYS.c.from_sequence)
    )
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.device, []).append(row)
    return found


def person_by_login(connection: Connection, login: str) -> Row[Any] | None:
    return connection.execute(select(PEOPLE).where(PEOPLE.c.login == login)).one_or_none()


def person_by_id(connection: Connection, person: str) -> Row[Any] | None:
    return connection.execute(select(PEOPLE).where(PEOPLE.c.id == person)).one_or_none()


def person_by_subject(connection: Connection, subject: str, audience: str) -> Row[Any] | None:
    """Whom a service knows under a subject; the subject of another service finds nobody."""
    query = select(PEOPLE).join(SUBJECTS, SUBJECTS.c.person == PEOPLE.c.id)
    return connection.execute(query.where(SUBJECTS.c.subject == subject, SUBJECTS.c.audience == audience)).one_or_none()


def subjects_of(connection: Connection, person: str) -> Rows:
    return connection.execute(select(SUBJECTS).where(SUBJECTS.c.person == person).order_by(SUBJECTS.c.audience)).all()


def remember_subject(unit: Unit, subject: str, audience: str, person: str) -> None:
    """So that an erasure can tell the service.

    Raises:
        NotFound: the person was erased meanwhile.
    """
    _require_person(unit, person)
    known = unit.execute(select(SUBJECTS.c.subject).where(SUBJECTS.c.subject == subject))
    if not known:
        unit.execute(insert(SUBJECTS).values(subject=subject, audience=audience, person=person))


def add_access(unit: Unit, row: dict[str, Any]) -> None:
    """Raises NotFound where the person was erased meanwhile."""
    _require_person(unit, row["person"])
    unit.execute(insert(ACCESSES).values(row))


def _require_person(unit: Unit, person: str) -> None:
    if person_by_id(unit.connection, person) is None:
        raise NotFound("this person is not known here any more; log in again", reason="unknown-person")


def consents(connection: Connection, person: str, after: str, limit: int) -> Rows:
    query = (
        select(CONSENTS).where(CONSENTS.c.person == person, CONSENTS.c.id > after).order_by(CONSENTS.c.id).limit(limit)
    )
    return connection.execute(query).all()


def accesses(connection: Connection, person: str, before: int, limit: int) -> Rows:
    """The newest first."""
    query = select(ACCESSES).where(ACCESSES.c.person == person, ACCESSES.c.number < before)
    return connection.execute(query.order_by(ACCESSES.c.number.desc()).limit(limit)).all()


def consent(connection: Connection, person: str, name: str) -> Row[Any] | None:
    query = select(CONSENTS).where(CONSENTS.c.person == person, CONSENTS.c.id == name)
    return connection.execute(query).one_or_none()


def take_code(unit: Unit, digest: bytes) -> Row[Any] | None:
    """The code as it was before, with one use more counted."""
    rows = unit.execute(select(CODES).where(CODES.c.hash == digest))
    unit.execute(update(CODES).where(CODES.c.hash == digest).values(used=CODES.c.used + 1))
    return rows[0] if rows else None


def token_revoked(connection: Connection, token: str) -> bool:
    """True if the code that gave this token was shown twice."""
    query = select(CODES.c.used).where(CODES.c.token == token)
    return any(row.used > 1 for row in connection.execute(query))


def save_code(unit: Unit, row: dict[str, Any], oldest: int) -> None:
    """Keeps a code, and forgets those that ran out before `oldest`."""
    unit.execute(delete(CODES).where(CODES.c.expires_at < oldest))
    unit.execute(insert(CODES).values(row))


def intents(connection: Connection, limit: int) -> Rows:
    return connection.execute(select(INTENTS).order_by(INTENTS.c.at, INTENTS.c.request_id).limit(limit)).all()


def intent(connection: Connection, request_id: str) -> Row[Any] | None:
    return connection.execute(select(INTENTS).where(INTENTS.c.request_id == request_id)).one_or_none()


def drop_intent(unit: Unit, request_id: str) -> None:
    unit.execute(delete(INTENTS).where(INTENTS.c.request_id == request_id))


def erase_person(unit: Unit, person: str) -> None:
    """Destroys every row of a person, salts included."""
    for table in (CONSENTS, ACCESSES, SUBJECTS, CODES):
        unit.execute(delete(table).where(table.c.person == person))
    unit.execute(delete(PEOPLE).where(PEOPLE.c.id == person))
