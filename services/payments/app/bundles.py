"""Proof bundles of receipts and statements: one JSON file that the offline verifier checks (docs/PROOFS.md, "Bundle"). Called by `api`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from citykit import canonical, merkle
from citykit.access import Principal
from citykit.clock import iso
from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.package import commitment
from citykit.proofs import FORMAT, Proofs
from citykit.store.port import Store
from services.payments import events
from services.payments.app.payments import Payments, own_account
from services.payments.app.posting import leaves
from services.payments.domain.books import Account, Movement
from services.payments.domain.posting import documents, posting_salts, set_salt
from services.payments.store import books as stored
from services.payments.store.books import SetRow

SETS_MAX = 2_000
"""Sets of one statement."""
DAY_S = 86_400
_TIME_MAX = 1 << 40


@dataclass(frozen=True, slots=True)
class Shown:
    """A set as a statement shows it: the account's postings, and what proves them."""

    row: SetRow
    postings: tuple[tuple[int, bytes, bytes], ...]
    """(place in the set, salt, document)."""
    leaves: tuple[bytes, ...]

    @property
    def commitment(self) -> bytes:
        return commitment(set_salt(self.row.seed), self.row.root)

    def last(self) -> Shown:
        """With its last posting only."""
        return Shown(self.row, self.postings[-1:], self.leaves)

    def part(self, index: int) -> dict[str, Any]:
        """As it stands in the bundle; `index` is its place in the log."""
        indexes, size = [place for place, _, _ in self.postings], len(self.leaves)
        hashes = merkle.batch_proof(merkle.in_memory(self.leaves), indexes, size)
        return {
            "index": index,
            "salt": set_salt(self.row.seed).hex(),
            "proof": {"size": size, "indexes": indexes, "hashes": [item.hex() for item in hashes]},
            "postings": [{"salt": salt.hex(), "document": canonical.decode(text)} for _, salt, text in self.postings],
        }


@dataclass(frozen=True)
class Bundles:
    """Gathers documents, openings and proofs."""

    store: Store
    payments: Payments
    proofs: Proofs
    city: str

    async def receipt(self, who: Principal, payment: str) -> bytes:
        """The bundle of a payment's newest receipt, kind `event`.

        Raises:
            NotFound, FailedPrecondition (nothing certain, or not anchored yet), Unavailable.
        """
        row = await self.payments.receipt(who, payment)
        indexes, log = await self.proofs.log_part(events.EVENTS_LOG, [commitment(row.salt, row.document)])
        body = {"event": canonical.decode(row.document), "salt": row.salt.hex(), "index": indexes[0]}
        return self._encoded("event", log, body)

    async def statement(self, who: Principal, from_time: int, to_time: int) -> bytes:
        """The bundle of a resident's account over a time range, widened to whole days of UTC.

        Raises:
            InvalidArgument, FailedPrecondition (no postings, or not anchored yet), Unavailable.
        """
        if not 0 <= from_time < to_time <= _TIME_MAX:
            raise InvalidArgument("from_time must lie before to_time", field="from_time")
        start, end = from_time // DAY_S * DAY_S, -(-to_time // DAY_S) * DAY_S
        account, before, shown = await self.store.read(partial(_gathered, who.subject, start, end))
        every = [before, *shown] if before is not None else shown
        if not every:
            raise FailedPrecondition("your account has no posting until then", reason="no-postings")
        indexes, log = await self.proofs.log_part(events.TRANSFERS_LOG, [item.commitment for item in every])
        parts = [item.part(index) for item, index in zip(every, indexes, strict=True)]
        newest = canonical.decode(every[-1].postings[-1][2])
        body = {
            "account": account.id,
            "currency": account.currency,
            "from_time": start,
            "to_time": end,
            "before": parts[0] if before is not None else None,
            "sets": parts[1:] if before is not None else parts,
            "closing": {"number": newest["number"], "balance": newest["balance"]},
        }
        return self._encoded("statement", log, body)

    def _encoded(self, kind: str, log: Any, body: dict[str, Any]) -> bytes:
        return canonical.encode(
            {"format": FORMAT, "kind": kind, "city": self.city, "log": log, "earlier": None, **body}
        )


def _gathered(subject: str, start: int, end: int, connection: Connection) -> tuple[Account, Shown | None, list[Shown]]:
    """(account, the set with the posting before the range, the sets of the range)."""
    account = own_account(connection, subject)
    numbers = stored.sets_of(connection, account, start, end, SETS_MAX + 1)
    if len(numbers) > SETS_MAX:
        raise InvalidArgument(f"over {SETS_MAX} sets; choose a shorter range", field="to_time")
    earlier = stored.set_before(connection, account, start)
    before = _shown(connection, account, [earlier])[0].last() if earlier is not None else None
    return stored.accounts(connection, [account])[account], before, _shown(connection, account, numbers)


def _shown(connection: Connection, account: str, numbers: Sequence[int]) -> list[Shown]:
    return [_show(connection, account, row, movements) for row, movements in stored.sets(connection, numbers)]


def _show(connection: Connection, account: str, row: SetRow, movements: Sequence[Movement]) -> Shown:
    named = {movement.debit for movement in movements} | {movement.credit for movement in movements}
    rules = {item.id: item.rule for item in stored.accounts(connection, named).values()}
    salts, time = posting_salts(row.seed, 2 * len(movements)), iso(row.time)
    own = [
        (place, salts[place], text)
        for number, movement in enumerate(movements)
        for place, text in enumerate(documents(movement, rules, time), 2 * number)
        if account == (movement.debit, movement.credit)[place % 2]
    ]
    return Shown(row, tuple(own), tuple(leaves(movements, rules, row.seed, row.time)))
