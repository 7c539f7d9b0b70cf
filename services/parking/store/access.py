"""Access documents, instructions to locks, and the keys that sign them. Called by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from citykit.store.port import Unit
from services.parking.store.tables import ACCESS, INSTRUCTIONS, KEYS, PACKAGES


@dataclass(frozen=True, slots=True)
class AccessRow:
    """An issued document; `used_sequence` 0: the lock has not told of its use."""

    number: int
    reservation: str
    lock: str
    act: str
    document: str
    not_before: int
    expires: int
    used_device: str
    used_sequence: int
    used_time: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A published key; `transaction` is the ledger's."""

    kid: str
    public_key: bytes
    transaction: str


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A lock's package with the opening of its commitment."""

    device: str
    sequence: int
    content: bytes
    salt: bytes


def next_number(unit: Unit, reservation: str, lock: str, act: str, not_before: int, expires: int) -> int:
    """A number for a document that is signed next; `set_document` completes it in the same unit."""
    row = {"reservation": reservation, "lock": lock, "act": act, "document": "", "not_before": not_before}
    unused = {"expires": expires, "used_device": "", "used_sequence": 0, "used_time": 0}
    return int(unit.execute(insert(ACCESS).values(**row, **unused).returning(ACCESS.c.number))[0].number)


def set_document(unit: Unit, number: int, document: str) -> None:
    unit.execute(update(ACCESS).where(ACCESS.c.number == number).values(document=document))


def access(connection: Connection, number: int) -> AccessRow | None:
    found = connection.execute(select(ACCESS).where(ACCESS.c.number == number)).one_or_none()
    return None if found is None else _access(found)


def access_of(connection: Connection, reservation: str) -> list[AccessRow]:
    """Every document of a reservation, in order."""
    query = select(ACCESS).where(ACCESS.c.reservation == reservation).order_by(ACCESS.c.number)
    return [_access(row) for row in connection.execute(query)]


def set_used(unit: Unit, number: int, device: str, sequence: int, time: int) -> None:
    values = {"used_device": device, "used_sequence": sequence, "used_time": time}
    unit.execute(update(ACCESS).where(ACCESS.c.number == number).values(**values))


def erase_documents(unit: Unit, reservations: Sequence[str]) -> None:
    """Destroys the signed texts; numbers stay, so that a replay stays known."""
    unit.execute(update(ACCESS).where(ACCESS.c.reservation.in_(reservations)).values(document=""))


def instruction_head(connection: Connection, lock: str) -> tuple[int, bytes] | None:
    """(sequence, hash) of the newest instruction to a lock."""
    query = select(INSTRUCTIONS.c.sequence, INSTRUCTIONS.c.hash).where(INSTRUCTIONS.c.lock == lock)
    found = connection.execute(query.order_by(INSTRUCTIONS.c.sequence.desc()).limit(1)).one_or_none()
    return None if found is None else (found.sequence, bytes(found.hash))


def add_instruction(unit: Unit, lock: str, sequence: int, hash_: bytes, content: bytes) -> None:
    unit.insert_many(INSTRUCTIONS, ("lock", "sequence", "hash", "content"), [(lock, sequence, hash_, content)])


def instructions(connection: Connection, lock: str, after: int, limit: int) -> list[bytes]:
    query = select(INSTRUCTIONS.c.content).where(INSTRUCTIONS.c.lock == lock, INSTRUCTIONS.c.sequence > after)
    return [bytes(row.content) for row in connection.execute(query.order_by(INSTRUCTIONS.c.sequence).limit(limit))]


def keys(connection: Connection) -> list[KeyRow]:
    return [KeyRow(row.kid, bytes(row.public_key), row.ledger_transaction) for row in connection.execute(select(KEYS))]


def add_key(unit: Unit, row: KeyRow) -> None:
    unit.insert_many(KEYS, ("kid", "public_key", "ledger_transaction"), [(row.kid, row.public_key, row.transaction)])


def packages_of(connection: Connection, wanted: Sequence[tuple[str, int]]) -> list[PackageRow]:
    """The packages named (device, sequence), in that order; those not stored are left out."""
    found = []
    for device, sequence in sorted(set(wanted)):
        at = (PACKAGES.c.device == device, PACKAGES.c.sequence == sequence)
        row = connection.execute(select(PACKAGES.c.content, PACKAGES.c.salt).where(*at)).one_or_none()
        found += [PackageRow(device, sequence, bytes(row.content), bytes(row.salt))] if row is not None else []
    return found


def _access(row: Row[Any]) -> AccessRow:
    return AccessRow(**row._mapping)
