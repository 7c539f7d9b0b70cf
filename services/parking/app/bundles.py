"""Proof bundles of sessions: one JSON file that the offline verifier checks (docs/PROOFS.md, "Bundle"). Called by `api` and a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection

from city.payments.v1 import payments_service_pb2 as payments_pb
from citykit import canonical
from citykit.errors import CityError, FailedPrecondition, NotFound, Unavailable
from citykit.onramp.devices import Key
from citykit.package import commitment
from citykit.proofs import FORMAT, Proofs, package_part
from citykit.store.port import Store
from services.parking import events
from services.parking.app.access import Keys, kid_of
from services.parking.app.payee import Payee
from services.parking.app.words import own
from services.parking.domain.reservation import OVER, PRICED, Reservation
from services.parking.store import access, documents, payments, reservations, tariffs
from services.parking.store.access import AccessRow, PackageRow
from services.parking.store.documents import DocumentRow
from services.parking.store.payments import OPEN, PaymentRow

KIND = "parking-session"
UNPROVEN_MAX, ROUND_MAX = 10_000, 20
"""Looked at in one round; tried in one round."""
ROUNDS_MAX = 64
"""Rounds between two tries, at most."""


@dataclass
class _Patience:
    """Who is tried in which round."""

    round: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)

    def due(self, ids: Sequence[str]) -> list[str]:
        self.round += 1
        self.next = {id_: self.next[id_] for id_ in ids if id_ in self.next}
        self.waits = {id_: self.waits[id_] for id_ in ids if id_ in self.waits}
        return [id_ for id_ in ids if self.next.get(id_, 0) <= self.round]

    def failed(self, id_: str) -> None:
        self.waits[id_] = min(ROUNDS_MAX, 2 * self.waits.get(id_, 1))
        self.next[id_] = self.round + self.waits[id_]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What parking itself holds of a session."""

    one: Reservation
    versions: list[DocumentRow]
    used: list[AccessRow]
    packages: list[PackageRow]
    paid: list[PaymentRow]
    owed_done: bool
    tariff: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a log: its content and the opening of its commitment."""

    content: bytes
    salt: bytes
    commitment: bytes


@dataclass(frozen=True)
class Bundles:
    """Gathers documents, openings, receipts, proofs and evidence. `keys_of` gives a device's registered keys."""

    store: Store
    proofs: Proofs
    payee: Payee
    keys: Keys
    keys_of: Callable[[Connection, str], Sequence[Key]]
    city: str
    patience: _Patience = field(default_factory=_Patience)

    async def session(self, id_: str, subject: str) -> bytes:
        """The bundle of a reservation that is over and paid.

        Raises:
            NotFound, FailedPrecondition (not over, not paid, not anchored yet), Unavailable.
        """
        parts = await self.store.read(partial(_parts, id_, subject))
        receipts = await self._receipts(parts)
        logs: list[Any] = []
        packages = [_Entry(row.content, row.salt, commitment(row.salt, row.content)) for row in parts.packages]
        versions = [_Entry(row.document, row.salt, commitment(row.salt, row.document)) for row in parts.versions]
        shown = {
            name: await self._entries(log, entries, logs)
            for name, log, entries in (
                ("reservation", events.EVENTS_LOG, versions),
                ("packages", events.STATES_LOG, packages),
                ("receipts", events.RECEIPTS_LOG, receipts),
            )
        }
        return canonical.encode(
            {
                "format": FORMAT,
                "kind": KIND,
                "city": self.city,
                "earlier": None,
                "logs": sorted(logs, key=lambda log: str(log["origin"])),
                "packages": [package_part(index, entry.content, entry.salt) for index, entry in shown["packages"]],
                "devices": [await self._device(name) for name in sorted({row.device for row in parts.packages})],
                "reservation": [_document(*item) for item in shown["reservation"]],
                "receipts": [_document(*item) for item in shown["receipts"]],
                "access": [row.document for row in parts.used],
                "keys": await self._keys(parts.used),
                "tariff": await self.proofs.evidence(parts.tariff),
            }
        )

    async def mark_provable(self) -> None:
        """Notes which reservations can be proven by now. A job; what cannot be proven is tried again less and less often."""
        ids = await self.store.read(lambda c: reservations.unproven(c, PRICED, UNPROVEN_MAX))
        for id_ in self.patience.due(ids)[:ROUND_MAX]:
            one = await self.store.read(partial(_get, id_))
            try:
                await self.session(id_, one.subject)
            except Unavailable:
                return
            except CityError:
                self.patience.failed(id_)
                continue
            await self.store.write(partial(reservations.set_provable, id_=id_, provable=True))

    async def _receipts(self, parts: _Parts) -> list[_Entry]:
        """Of payments that were decided, in the order of their references."""
        if not parts.owed_done:
            raise _later("its payments are not settled yet")
        found = [await self.payee.receipt(row.payment) for row in parts.paid if row.payment]
        entries = [_Entry(answer.document, answer.salt, answer.commitment) for answer in found]
        if sum(map(_net, found)) != (parts.one.price_minor or 0):
            raise _later("its payments are not settled yet")
        return entries

    async def _entries(self, log: str, entries: Sequence[_Entry], logs: list[Any]) -> list[tuple[int, _Entry]]:
        if not entries:
            return []
        indexes, part = await self.proofs.log_part(log, [entry.commitment for entry in entries])
        logs.append(part)
        return list(zip(indexes, entries, strict=True))

    async def _device(self, device: str) -> dict[str, Any]:
        keys = await self.store.read(lambda c: self.keys_of(c, device))
        return await self.proofs.device(device, keys)

    async def _keys(self, used: Sequence[AccessRow]) -> list[dict[str, Any]]:
        signed = {kid_of(row.document) for row in used}
        rows = sorted((row for row in self.keys.rows if row.kid in signed), key=lambda row: row.kid)
        return [{"kid": row.kid, "registered": await self.proofs.evidence(row.transaction)} for row in rows]


def _parts(id_: str, subject: str, connection: Connection) -> _Parts:
    one = own(reservations.get(connection, id_), id_, subject)
    versions = documents.of(connection, id_)
    if one.state not in OVER or not versions:
        raise _later(f"it is {one.state}, and only what is over can be proven")
    named = {number for row in versions if (number := _number(row))}
    used = [row for row in access.access_of(connection, id_) if row.number in named]
    packages = access.packages_of(connection, [(row.used_device, row.used_sequence) for row in used])
    rules = tariffs.tariff(connection, one.tariff, one.tariff_version)
    assert rules is not None  # noqa: S101 - a reservation is made under a stored tariff
    waiting = any(duty.state == OPEN for duty in payments.duties_of(connection, id_))
    return _Parts(one, versions, used, packages, payments.payments_of(connection, id_), not waiting, rules.transaction)


def _get(id_: str, connection: Connection) -> Reservation:
    one = reservations.get(connection, id_)
    if one is None:
        raise NotFound(f"no reservation {id_!r}", field="reservation")
    return one


def _number(row: DocumentRow) -> int:
    use = canonical.decode(row.document)["access"]
    return int(use["number"]) if use else 0


def _net(receipt: payments_pb.GetReceiptResponse) -> int:
    document = json.loads(receipt.document)
    return int(document["captured_minor"]) - int(document["refunded_minor"])


def _document(index: int, entry: _Entry) -> dict[str, Any]:
    return {"index": index, "salt": entry.salt.hex(), "document": canonical.decode(entry.content)}


def _later(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"there is no proof of this reservation yet: {why}; try again later", reason="not-provable", retry_after_s=2.0
    )
